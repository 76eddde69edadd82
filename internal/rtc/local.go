//go:build !js

package rtc

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// localPatience bounds an attempt to meet on a socket.
	localPatience = time.Second
	// maxGuests is how many connections to a door are looked at, at a time.
	maxGuests = 64

	ticketSize = 16
	secretSize = 32
	nonceSize  = 32
)

// The purposes of a connection.
const (
	localMessages byte = iota
	localStreams
	localPurposes
)

// localWelcome is the first byte from a door to a guest that it takes.
const localWelcome = 1

// A door is the socket at which the other ends of links that this node has offered may connect, if they are on this host. There is none
// before the first of them is.
type door struct {
	socket   string // of the process; see Config.Socket
	mu       sync.Mutex
	dir      *sock.Dir
	borrowed bool // the directory is not ours
	listener net.Listener
	tickets  map[[ticketSize]byte]*ticket
	guests   map[net.Conn]struct{} // that are looked at
	closing  chan struct{}         // closed by close
	closed   bool
	wg       sync.WaitGroup
}

// A ticket is for the connections of one link, of which there may be one for each purpose.
type ticket struct {
	id     [ticketSize]byte
	secret [secretSize]byte
	link   [sha256.Size]byte // identity.Link.Sum
	used   [localPurposes]bool
	come   comer
}

// A comer is called with each connection that proves to be the other end's, and reports whether it takes it. If so it calls welcome, before
// anything else is written to the connection.
type comer func(purpose byte, conn net.Conn, welcome func()) bool

// issue returns a ticket for a link, and what the other end has to know.
func (d *door) issue(link identity.Link, come comer) (*ticket, *wire.Local, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openLocked(); err != nil {
		return nil, nil, err
	}
	t := &ticket{link: link.Sum(), come: come}
	_, _ = rand.Read(t.id[:]) // never fails, as documented
	_, _ = rand.Read(t.secret[:])
	d.tickets[t.id] = t
	encode := base64.StdEncoding.EncodeToString
	return t, &wire.Local{Socket: d.dir.Name(), Ticket: encode(t.id[:]), Secret: encode(t.secret[:])}, nil
}

// revoke ends a ticket.
func (d *door) revoke(t *ticket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.tickets, t.id)
}

func (d *door) openLocked() error {
	if d.closed {
		return net.ErrClosed
	}
	if d.listener != nil {
		if _, err := os.Lstat(d.dir.Door()); err == nil {
			return nil
		}
		d.shutLocked() // its directory was removed
	}
	dir, borrowed := sock.DirOf(d.socket), true
	if dir == nil {
		var err error
		if dir, err = sock.NewDir(); err != nil {
			return err
		}
		borrowed = false
	}
	listener, err := sock.Listen(dir.Door())
	if err != nil && !borrowed {
		err = errors.Join(err, dir.Remove())
	}
	if err != nil {
		return err
	}
	d.borrowed = borrowed
	d.dir, d.listener = dir, listener
	if d.tickets == nil {
		d.tickets, d.guests, d.closing = make(map[[ticketSize]byte]*ticket), make(map[net.Conn]struct{}), make(chan struct{})
	}
	d.wg.Go(func() { d.accept(listener) })
	return nil
}

// shutLocked ends the listener and its directory.
func (d *door) shutLocked() {
	if d.listener == nil {
		return
	}
	_ = d.listener.Close()
	if !d.borrowed {
		_ = d.dir.Remove()
	}
	d.listener = nil
}

func (d *door) accept(l net.Listener) {
	room := make(chan struct{}, maxGuests)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as a lack of descriptors
			select {
			case <-time.After(localPatience):
			case <-d.closing:
			}
			continue
		}
		select {
		case room <- struct{}{}:
		case <-d.closing:
			_ = conn.Close()
			return
		}
		d.wg.Go(func() {
			defer func() { <-room }()
			if err := d.receive(conn); err != nil {
				_ = conn.Close()
			}
		})
	}
}

// receive admits a guest, unless the door is closed meanwhile.
func (d *door) receive(conn net.Conn) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return net.ErrClosed
	}
	d.guests[conn] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.guests, conn)
	}()
	return d.admit(conn)
}

// close admits no more guests, and returns when all goroutines have ended.
func (d *door) close() {
	d.mu.Lock()
	if !d.closed && d.closing != nil {
		close(d.closing)
	}
	d.closed = true
	d.shutLocked()
	for conn := range d.guests {
		_ = conn.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

var (
	errNoTicket  = errors.New("it has no ticket")
	errNotWanted = errors.New("it comes too late")
)

// admit passes on a connection that proves to be that of a link's other end.
func (d *door) admit(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(localPatience))
	if err := sock.CheckPeer(conn); err != nil {
		return err
	}
	var asked [ticketSize + 1 + nonceSize]byte
	if _, err := io.ReadFull(conn, asked[:]); err != nil {
		return err
	}
	purpose := asked[ticketSize]
	d.mu.Lock()
	t := d.tickets[[ticketSize]byte(asked[:])]
	d.mu.Unlock()
	if t == nil || purpose >= localPurposes {
		return errNoTicket
	}
	var response [nonceSize + sha256.Size]byte
	_, _ = rand.Read(response[:nonceSize])
	said := append(asked[:], response[:nonceSize]...)
	copy(response[nonceSize:], t.proof("door", said))
	if _, err := conn.Write(response[:]); err != nil {
		return err
	}
	var proof [sha256.Size]byte
	if _, err := io.ReadFull(conn, proof[:]); err != nil {
		return err
	}
	if !hmac.Equal(proof[:], t.proof("guest", said)) {
		return errNoTicket
	}
	d.mu.Lock()
	again := t.used[purpose] || d.tickets[t.id] != t
	t.used[purpose] = true
	d.mu.Unlock()
	if again {
		return errNoTicket
	}
	welcome := func() { _, _ = conn.Write([]byte{localWelcome}) } // if it fails, so does the next read
	_ = conn.SetDeadline(time.Time{})
	if !t.come(purpose, conn, welcome) {
		return errNotWanted
	}
	return nil
}

// proof shows that who makes it knows the secret, for one connection of one link: a secret that was passed
// on by a peer of another link proves nothing.
func (t *ticket) proof(who string, said []byte) []byte {
	h := hmac.New(sha256.New, t.secret[:])
	_, _ = io.WriteString(h, "mesh local\n"+who+"\n")
	_, _ = h.Write(t.link[:])
	_, _ = h.Write(said)
	return h.Sum(nil)
}

// ticketOf returns the ticket that the other end of a link has sent.
func ticketOf(link identity.Link, l *wire.Local) (*ticket, error) {
	t := &ticket{link: link.Sum()}
	id, err1 := base64.StdEncoding.Strict().DecodeString(l.Ticket)
	secret, err2 := base64.StdEncoding.Strict().DecodeString(l.Secret)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if copy(t.id[:], id) != ticketSize || copy(t.secret[:], secret) != secretSize || len(id) != ticketSize || len(secret) != secretSize {
		return nil, errNoTicket
	}
	return t, nil
}

// visit connects to a door. Once both ends have proven who they are, it blocks until the other one says whether it takes the connection.
func visit(ctx context.Context, link identity.Link, l *wire.Local, purpose byte) (net.Conn, error) {
	t, err := ticketOf(link, l)
	if err != nil {
		return nil, err
	}
	path, err := sock.Near(l.Socket)
	if err != nil {
		return nil, err
	}
	early, cancel := context.WithTimeout(ctx, localPatience)
	defer cancel()
	conn, err := sock.Dial(early, path) // whose other end is this user's, or nothing is written
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = t.visit(conn, purpose)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (t *ticket) visit(conn net.Conn, purpose byte) error {
	_ = conn.SetDeadline(time.Now().Add(localPatience))
	var asked [ticketSize + 1 + nonceSize]byte
	copy(asked[:], t.id[:])
	asked[ticketSize] = purpose
	_, _ = rand.Read(asked[ticketSize+1:])
	if _, err := conn.Write(asked[:]); err != nil {
		return err
	}
	var response [nonceSize + sha256.Size]byte
	if _, err := io.ReadFull(conn, response[:]); err != nil {
		return err
	}
	said := append(asked[:], response[:nonceSize]...)
	if !hmac.Equal(response[nonceSize:], t.proof("door", said)) {
		return errNoTicket
	}
	if _, err := conn.Write(t.proof("guest", said)); err != nil {
		return err
	}
	return awaitWelcome(conn)
}

// awaitWelcome blocks until the door takes the connection: not for a time of our own, or the two ends could differ over what became of it.
func awaitWelcome(conn net.Conn) error {
	_ = conn.SetDeadline(time.Time{})
	var welcome [1]byte
	_, err := io.ReadFull(conn, welcome[:])
	if err == nil && welcome[0] != localWelcome {
		return errNotWanted
	}
	return err
}
