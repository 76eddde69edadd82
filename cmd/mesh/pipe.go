package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh"
)

// An end is one of the two ends between which bytes are copied.
type end interface {
	io.ReadWriteCloser
	CloseWrite() error // half-close
}

// pipe copies between two ends, both ways, until both directions have ended or ctx ends, and closes them. That one end
// writes no more is passed on. A program that has ended, as b, ends both directions. What breaks off is not passed on as if
// it were complete, as far as the other end can tell.
func pipe(ctx context.Context, a, b end) error {
	defer func() { _, _ = a.Close(), b.Close() }()
	stop := context.AfterFunc(ctx, func() {
		abort(a)
		abort(b)
	})
	defer stop()
	var there, back error
	var both sync.WaitGroup
	both.Go(func() { there = carry(b, a) })
	both.Go(func() {
		back = carry(a, b)
		if p, ok := b.(*program); ok && back == nil {
			<-p.exited
			_ = a.Close() // nobody reads the other direction any more
		}
	})
	both.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if there == nil || errors.Is(there, net.ErrClosed) {
		return back
	}
	return there
}

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// carry copies one direction. An end that takes no more may still have something to say, so that is no reason to close
// it.
func carry(dst, src end) error {
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF { //nolint:errorlint // a Read's own
			return ignoreClosed(dst.CloseWrite())
		}
		if err != nil {
			abort(dst)
			abort(src)
			return err
		}
	}
}

// ignoreClosed returns no error for an end that is closed: the other direction has done that, and has the reason.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// abort closes an end so that what was read from it does not look complete, where there is a way to say so.
func abort(e end) {
	switch e := e.(type) {
	case *net.TCPConn:
		_ = e.SetLinger(0)
	case *mesh.Conn:
		e.Reset()
	}
	_ = e.Close()
}

// whileLinked returns a context that ends with ctx, or when the link is gone on which a stream came: a stream of which
// one direction has ended does not tell.
func whileLinked(ctx context.Context, m *mesh.Mesh, conn *mesh.Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for linked(m, conn.Peer()) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		cancel(mesh.ErrPeerGone)
	}()
	return ctx, func() { cancel(nil) }
}

// linked reports whether a peer has still the same link.
func linked(m *mesh.Mesh, peer mesh.Peer) bool {
	for _, p := range m.Peers() {
		if p.ID == peer.ID {
			return p.Since.Equal(peer.Since)
		}
	}
	return false
}
