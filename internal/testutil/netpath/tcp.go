package netpath

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxChunk is the most of a TCP connection that travels as one piece, in bytes.
	maxChunk = 32 << 10
	// maxTravelling bounds the pieces on their way in one direction of a connection. A sender that is ahead by as many
	// waits.
	maxTravelling = 256
)

// A TCPPath leads TCP connections to a server over a path with delay. Loss and the rate of a line are not imitated: what
// it shows is what each round trip costs, that of TCP's own handshake included.
type TCPPath struct {
	listener net.Listener
	target   string
	delay    time.Duration // one way
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

// NewTCP opens a path to the server at target, an address and port, with a delay each way.
func NewTCP(target string, delay time.Duration) (*TCPPath, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &TCPPath{listener: listener, target: target, delay: delay, conns: make(map[net.Conn]struct{})}
	p.work.Go(p.accept)
	return p, nil
}

// Addr returns the address at which clients reach the server over the path.
func (p *TCPPath) Addr() string { return p.listener.Addr().String() }

// Close ends the path and the connections over it.
func (p *TCPPath) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
	return err
}

func (p *TCPPath) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.work.Go(func() { p.serve(client, time.Now()) })
	}
}

// serve joins a client that connected at began to the server, until both directions have ended.
func (p *TCPPath) serve(client net.Conn, began time.Time) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.forget(client, server)
	var both sync.WaitGroup
	// Loopback has connected at once what takes a round trip: until then the client could have sent nothing.
	both.Go(func() { p.carry(server, client, began.Add(2*p.delay)) })
	both.Go(func() { p.carry(client, server, began) })
	both.Wait()
}

// keep has Close end the connections. It reports whether the path is still open.
func (p *TCPPath) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return !p.closed
}

func (p *TCPPath) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// A piece is a part of a stream that is on its way.
type piece struct {
	due time.Time
	b   []byte
}

// carry moves what from sends to the other end, as if nothing had been sent before first.
func (p *TCPPath) carry(to, from net.Conn, first time.Time) {
	travelling := make(chan piece, maxTravelling)
	var deliver sync.WaitGroup
	deliver.Go(func() {
		for next := range travelling {
			time.Sleep(time.Until(next.due))
			_, _ = to.Write(next.b) // if that fails the other end is gone, which its own direction shows
		}
		if c, ok := to.(*net.TCPConn); ok {
			_ = c.CloseWrite()
		}
	})
	for {
		b := make([]byte, maxChunk)
		n, err := from.Read(b)
		if n > 0 {
			sent := time.Now()
			if sent.Before(first) {
				sent = first
			}
			travelling <- piece{sent.Add(p.delay), b[:n]}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = to.Close() // a reset, which takes no notice of what is on its way
			}
			break
		}
	}
	close(travelling)
	deliver.Wait()
}
