package main

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// streamService is what streams are opened to.
const streamService = "bench"

// streamWrite is how much is written to a stream at a time when it carries bulk.
const streamWrite = 64 << 10

// A streamPair is two ends of which one dials the other.
type streamPair struct {
	dial  func(context.Context) (net.Conn, error)
	close func()
}

// A streamOpener opens a pair, whose far end passes each stream to serve in a goroutine of its own.
type streamOpener func(ctx context.Context, serve func(net.Conn)) (*streamPair, error)

// acceptAll ends with the listener.
func acceptAll(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go serve(conn)
	}
}

// openMeshStreams opens streams between two agents.
func openMeshStreams(mode mesh.Mode) streamOpener {
	return func(ctx context.Context, serve func(net.Conn)) (*streamPair, error) {
		pair, err := openMeshPair(ctx, mode, webRTC, nil)
		if err != nil {
			return nil, err
		}
		return streamsOf(pair, serve, pair.close)
	}
}

// openMeshStreamsOver is openMeshStreams in process, over a path.
func openMeshStreamsOver(path *netpath.Path) streamOpener {
	return func(ctx context.Context, serve func(net.Conn)) (*streamPair, error) {
		room, err := openWANRoom(path)
		if err != nil {
			return nil, err
		}
		pair, err := openMeshPairAt(ctx, mesh.Config{SignalingURL: room.URL(), Network: overPathOnly}, nil)
		if err != nil {
			room.close()
			return nil, err
		}
		return streamsOf(pair, serve, func() { pair.close(); room.close() })
	}
}

// streamsOf has the far agent listen. If that fails, all is closed.
func streamsOf(pair *meshPair, serve func(net.Conn), done func()) (*streamPair, error) {
	listener, err := pair.far.Listen(streamService)
	if err != nil {
		done()
		return nil, err
	}
	go acceptAll(listener, serve) // ends with the agent
	return &streamPair{
		dial:  func(ctx context.Context) (net.Conn, error) { return pair.near.Dial(ctx, farID, streamService) },
		close: done,
	}, nil
}

// openGostreams opens libp2p's streams as connections.
func openGostreams(t p2pTransport) streamOpener {
	return func(ctx context.Context, serve func(net.Conn)) (*streamPair, error) {
		var listener net.Listener
		pair, err := connectP2P(ctx, t, func(far host.Host) (err error) {
			listener, err = gostream.Listen(far, benchProtocol)
			return err
		})
		if err != nil {
			return nil, err
		}
		go acceptAll(listener, serve) // ends with close
		return &streamPair{
			dial: func(ctx context.Context) (net.Conn, error) {
				return gostream.Dial(ctx, pair.near, pair.far.ID(), benchProtocol)
			},
			close: func() { _ = listener.Close(); pair.close() },
		}, nil
	}
}

// openTCPStreams opens connections on loopback.
func openTCPStreams(_ context.Context, serve func(net.Conn)) (*streamPair, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go acceptAll(listener, serve) // ends with close
	var dialer net.Dialer
	return &streamPair{
		dial: func(ctx context.Context) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", listener.Addr().String())
		},
		close: func() { _ = listener.Close() },
	}, nil
}

// A streamPipe writes to one stream, whose far end counts writes.
type streamPipe struct {
	pair  *streamPair
	conn  net.Conn
	msg   []byte
	count *counter
}

func openStreamPipe(open streamOpener) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) {
		p := newStreamPipe()
		pair, err := open(ctx, p.receive)
		if err != nil {
			return nil, err
		}
		p.pair = pair
		if err := p.dial(ctx); err != nil {
			p.close()
			return nil, err
		}
		return p, nil
	}
}

func newStreamPipe() *streamPipe {
	return &streamPipe{msg: make([]byte, streamWrite), count: newCounter()}
}

func (p *streamPipe) dial(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if p.conn, err = p.pair.dial(ctx); err != nil {
		return err
	}
	// One deadline for the whole life: setting it for each write would be measured.
	return p.conn.SetDeadline(time.Now().Add(time.Hour))
}

func (p *streamPipe) receive(conn net.Conn) { countMessages(conn, len(p.msg), p.count) }

func (p *streamPipe) send(ctx context.Context) error {
	if ctx.Err() != nil { // connections know no context
		return context.Cause(ctx)
	}
	_, err := p.conn.Write(p.msg)
	return err
}

func (p *streamPipe) flush() error      { return nil }
func (p *streamPipe) arrived() *counter { return p.count }

func (p *streamPipe) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	p.pair.close()
}

// returnAll sends back what arrives, until the end.
func returnAll(conn net.Conn) {
	defer conn.Close()
	b := make([]byte, smallSize)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		if _, err := conn.Write(b[:n]); err != nil {
			return
		}
	}
}

// openEchoed opens a stream whose far end is returnAll, has a byte come back, and closes it. It returns how long it took until
// the byte was there.
func (p *streamPair) openEchoed(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	conn, err := p.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b := []byte{'x'}
	if _, err := conn.Write(b); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(conn, b)
	return time.Since(start), err
}
