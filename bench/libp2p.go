package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	libp2ptcp "github.com/libp2p/go-libp2p/p2p/transport/tcp"
	libp2pwebrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
)

// A p2pTransport is a transport of libp2p.
type p2pTransport struct {
	constructor any
	listen      string
}

var (
	p2pWebRTC = p2pTransport{libp2pwebrtc.New, "/ip4/127.0.0.1/udp/0/webrtc-direct"}
	p2pQUIC   = p2pTransport{libp2pquic.NewTransport, "/ip4/127.0.0.1/udp/0/quic-v1"}
	p2pTCP    = p2pTransport{libp2ptcp.NewTCPTransport, "/ip4/127.0.0.1/tcp/0"}
)

const benchProtocol = protocol.ID("/bench/1")

// A p2pPair is two libp2p hosts with a stream between them.
type p2pPair struct {
	near, far host.Host
	stream    network.Stream
}

// openP2P opens a stream whose far end handle reads.
func openP2P(ctx context.Context, t p2pTransport, handle func(network.Stream)) (*p2pPair, error) {
	p, err := connectP2P(ctx, t, func(far host.Host) error {
		far.SetStreamHandler(benchProtocol, handle)
		return nil
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if p.stream, err = p.near.NewStream(ctx, p.far.ID(), benchProtocol); err != nil {
		p.close()
		return nil, fmt.Errorf("libp2p: %w", err)
	}
	return p, nil
}

// connectP2P connects two hosts without a stream, of which listen has the far one ready for some.
func connectP2P(ctx context.Context, t p2pTransport, listen func(far host.Host) error) (_ *p2pPair, err error) {
	p := &p2pPair{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for _, h := range []*host.Host{&p.near, &p.far} {
		*h, err = libp2p.New(libp2p.Transport(t.constructor), libp2p.ListenAddrStrings(t.listen),
			libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Ping(false))
		if err != nil {
			return nil, fmt.Errorf("libp2p: %w", err)
		}
	}
	if err := listen(p.far); err != nil {
		return nil, fmt.Errorf("libp2p: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := p.near.Connect(ctx, peer.AddrInfo{ID: p.far.ID(), Addrs: p.far.Addrs()}); err != nil {
		return nil, fmt.Errorf("libp2p: %w", err)
	}
	return p, nil
}

func (p *p2pPair) close() {
	if p.stream != nil {
		_ = p.stream.Reset()
	}
	for _, h := range []host.Host{p.near, p.far} {
		if h != nil {
			_ = h.Close()
		}
	}
}

// p2pPipe writes messages to a stream, whose far end counts bytes.
type p2pPipe struct {
	*p2pPair
	msg   []byte
	count *counter
}

func openP2PPipe(t p2pTransport) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) {
		p := &p2pPipe{msg: make([]byte, smallSize), count: newCounter()}
		pair, err := openP2P(ctx, t, p.receive)
		if err != nil {
			return nil, err
		}
		p.p2pPair = pair
		return p, nil
	}
}

func (p *p2pPipe) receive(s network.Stream) {
	countMessages(s, len(p.msg), p.count)
}

// countMessages counts the messages of size bytes that arrive on a stream, until it ends.
func countMessages(r io.Reader, size int, c *counter) {
	b := make([]byte, 64<<10)
	for rest := 0; ; {
		n, err := r.Read(b)
		if n += rest; n >= size {
			c.add(int64(n / size))
		}
		rest = n % size
		if err != nil {
			return
		}
	}
}

func (p *p2pPipe) send(context.Context) error { _, err := p.stream.Write(p.msg); return err }
func (p *p2pPipe) flush() error               { return nil }
func (p *p2pPipe) arrived() *counter          { return p.count }

// p2pEcho writes a message to a stream and reads it back.
type p2pEcho struct {
	*p2pPair
	msg, buf []byte
}

func openP2PEcho(t p2pTransport) func(context.Context) (echoer, error) {
	return func(ctx context.Context) (echoer, error) {
		pair, err := openP2P(ctx, t, p2pReturn)
		if err != nil {
			return nil, err
		}
		return &p2pEcho{pair, make([]byte, smallSize), make([]byte, smallSize)}, nil
	}
}

func p2pReturn(s network.Stream) {
	r, b := bufio.NewReader(s), make([]byte, smallSize)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		if _, err := s.Write(b); err != nil {
			return
		}
	}
}

func (e *p2pEcho) echo(context.Context) error {
	_ = e.stream.SetDeadline(time.Now().Add(roundTimeout))
	if _, err := e.stream.Write(e.msg); err != nil {
		return err
	}
	_, err := io.ReadFull(e.stream, e.buf)
	return err
}
