package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// lastWords is how long a connection that can no longer be written to is read for what its other end
// wrote before. Usually all of that has arrived already.
const lastWords = 10 * time.Second

// A socket carries lines over a connection. One goroutine (run) writes all that waits at once; a lone line
// is written by the goroutine that adds it, if the connection takes it without blocking.
type socket struct {
	link   *Link
	conn   net.Conn
	direct tryWriter // nil if conn cannot
	reader *wire.Reader
	// received counts what is read.
	received counter
	sent     atomic.Int64
	pace     wire.Pace // guarded by link.mu, but for Heard
	left     func()    // by take, for the goroutine that reads
}

// A tryWriter writes as much as it can without blocking.
type tryWriter interface {
	TryWrite(b []byte) (n int)
}

// New returns a link over a connection, from which the bytes in read have been read already. A line that
// arrives may be as long as limits.MaxLine.
func New(conn net.Conn, read []byte, limits wire.Limits) *Link {
	s := &socket{link: newLink(), conn: conn}
	s.link.carrier = s
	in := io.Reader(conn)
	if d := sock.NewDirect(conn); d != nil {
		in, s.direct = d, d
	}
	s.received.from = in
	s.received.n.Store(int64(len(read)))
	in = &s.received
	if len(read) > 0 {
		in = io.MultiReader(bytes.NewReader(read), in)
	}
	s.reader = wire.NewReader(in, limits.MaxLine())
	return s.link
}

// A counter counts the bytes that are read from a connection.
type counter struct {
	from io.Reader
	n    atomic.Int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// passLocked writes a lone line. When lines follow each other closely run does it, since it can write
// several at once.
func (s *socket) passLocked() bool {
	if s.direct != nil && s.pace.Lone() {
		w := &s.link.waiting
		n := s.direct.TryWrite(w.lines)
		s.sent.Add(int64(n))
		w.lines = w.lines[:copy(w.lines, w.lines[n:])]
		s.link.size = len(w.lines)
	}
	if s.link.size == 0 {
		return true
	}
	s.link.wakeUp()
	return false
}

func (s *socket) added(bool) (work func()) { return nil }

func (s *socket) run() {
	var b batch
	for open := true; open; {
		select {
		case <-s.link.wake:
		case <-s.link.done:
		}
		for {
			if b, open = s.nextBatch(b); len(b.lines) == 0 {
				break
			}
			n, err := s.conn.Write(b.lines)
			s.sent.Add(int64(n))
			if err != nil {
				s.stopWriting(err)
			}
			settle(b.charges)
		}
	}
	s.link.drop()
}

// nextBatch swaps waiting lines for run's used buffers. open is false when the link has ended.
func (s *socket) nextBatch(used batch) (b batch, open bool) {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.writing = false
		return batch{}, false
	}
	return l.takeLocked(used), true
}

// stopWriting ends the link over a connection that takes no more. What its other end wrote before it
// left is still read, and so is the way it ended.
func (s *socket) stopWriting(err error) {
	s.link.end(fmt.Errorf("writing: %w", err))
	_ = s.conn.SetReadDeadline(time.Now().Add(lastWords)) // fails if the connection is closed: then reads fail, too
}

func (s *socket) serve(take Take, w *relief.Watch) {
	ended := make(chan struct{})
	var post *relief.Post
	read := func() {
		for take(s.next()) {
			if work := s.left; work != nil {
				s.left = nil
				if !post.Do(work) {
					return
				}
			}
		}
		close(ended)
	}
	post = relief.NewPost(w, read)
	go read() // not here: the work of one who was relieved is not waited for
	<-ended
}

func (s *socket) leave(work func()) bool {
	if s.reader.Buffered() > 0 {
		return false
	}
	s.left = work
	return true
}

// next reads a line. A connection that does not end after stopWriting is no reason for the link's end:
// the error of writing is.
func (s *socket) next() ([]byte, error) {
	line, err := s.reader.ReadLine()
	s.pace.Heard()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if why := s.link.endReason(); why != nil {
			err = why
		}
	}
	return line, err
}

func (s *socket) close(bool) {
	_ = s.conn.Close() // the other end sees EOF; an error would change nothing
}
