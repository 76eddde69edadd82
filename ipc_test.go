package mesh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// countedConn counts writes and can hold them up.
type countedConn struct {
	net.Conn
	writes atomic.Int64
	gate   chan struct{} // each write waits for one value; nil means no gate
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	if c.gate != nil {
		<-c.gate
	}
	return c.Conn.Write(b)
}

func startLink(t *testing.T, conn net.Conn) *link {
	t.Helper()
	l := newLink(conn, wire.Limits{})
	done := make(chan struct{})
	go func() { defer close(done); _ = l.writeLoop() }()
	t.Cleanup(func() { l.close(); <-done })
	return l
}

func line(s string) func([]byte) []byte {
	return func(b []byte) []byte { return append(append(b, s...), '\n') }
}

// linkConns are the two kinds of connection that a link runs over.
var linkConns = map[string]func(t *testing.T) (a, b net.Conn){
	"memory": func(*testing.T) (net.Conn, net.Conn) {
		a, b := newMemoryConns()
		return a, b
	},
	"socket": func(t *testing.T) (net.Conn, net.Conn) {
		ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		a, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	},
}

func TestLinkBothWays(t *testing.T) {
	for name, conns := range linkConns {
		t.Run(name, func(t *testing.T) {
			a, b := conns(t)
			la, lb := startLink(t, a), startLink(t, b)
			const n = 1000
			go func() {
				for i := range n {
					_ = la.write(t.Context(), line(fmt.Sprint("a", i))) // the reader misses what fails
				}
			}()
			go func() {
				for i := range n {
					_ = lb.writeNow(nil, line(fmt.Sprint("b", i)))
				}
			}()
			for from, l := range map[string]*link{"b": la, "a": lb} {
				for i := range n {
					got, err := l.ReadLine()
					if want := fmt.Sprint(from, i); err != nil || string(got) != want {
						t.Fatalf("got %q, %v; want %q", got, err, want)
					}
				}
			}
		})
	}
}

// Lines that wait for the writer go out in one write.
func TestLinkCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		conn := &countedConn{Conn: a, gate: make(chan struct{})}
		l := startLink(t, conn)
		defer b.Close()
		read := make(chan int)
		go func() {
			n := 0
			for r := bufio.NewReader(b); n < 101; n++ {
				if _, err := r.ReadString('\n'); err != nil {
					break
				}
			}
			read <- n
		}()
		if err := l.write(t.Context(), line("first")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the writer holds the first line
		for range 100 {
			if err := l.write(t.Context(), line("more")); err != nil {
				t.Fatal(err)
			}
		}
		close(conn.gate)
		if n := <-read; n != 101 {
			t.Errorf("%d lines arrived", n)
		}
		if n := conn.writes.Load(); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
	})
}

// write waits under its context when the queue is full; writeNow does not wait.
func TestLinkBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		l := startLink(t, a)
		defer b.Close()
		big := strings.Repeat("x", linkQueue)
		for range 2 { // one with the writer, one waiting
			if err := l.write(t.Context(), line(big)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		blocked := make(chan error, 2)
		go func() { blocked <- l.write(ctx, line("y")) }()
		synctest.Wait()
		if len(blocked) != 0 {
			t.Fatal("write did not wait")
		}
		cancel()
		if err := <-blocked; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := l.writeNow(nil, line("z")); err != nil {
			t.Errorf("writeNow: %v", err)
		}
		go func() { blocked <- l.write(t.Context(), line("y")) }()
		synctest.Wait()
		go io.Copy(io.Discard, b)
		if err := <-blocked; err != nil {
			t.Errorf("after the queue had drained: %v", err)
		}
		if err := l.flush(t.Context()); err != nil {
			t.Errorf("flush: %v", err)
		}
	})
}

type tally struct{ charged, released atomic.Int64 }

func (a *tally) charge(n int)  { a.charged.Add(int64(n)) }
func (a *tally) release(n int) { a.released.Add(int64(n)) }

// What is charged is released: when it is written, and when the link ends.
func TestLinkAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		l := startLink(t, a)
		var one, two tally
		add := func(acct *tally) {
			if err := l.writeNow(acct, line("0123456789")); err != nil {
				t.Fatal(err)
			}
		}
		add(&one)
		synctest.Wait() // with the writer, not yet read
		add(&two)
		add(&one)
		if one.charged.Load() != 22 || two.charged.Load() != 11 || one.released.Load() != 0 {
			t.Errorf("charged %d and %d", one.charged.Load(), two.charged.Load())
		}
		if _, err := io.ReadFull(b, make([]byte, 11)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if one.released.Load() != 11 {
			t.Errorf("released %d", one.released.Load())
		}
		b.Close()
		synctest.Wait()
		if one.released.Load() != 22 || two.released.Load() != 11 {
			t.Errorf("after the end released %d and %d", one.released.Load(), two.released.Load())
		}
	})
}

// A closed link says so, whoever closed it and however often.
func TestLinkClose(t *testing.T) {
	a, b := net.Pipe()
	l := startLink(t, a)
	b.Close()
	if _, err := l.ReadLine(); !errors.Is(err, io.EOF) {
		t.Errorf("ReadLine: %v", err)
	}
	l.close()
	l.close()
	if err := l.write(t.Context(), line("x")); !errors.Is(err, ErrSidecarLost) {
		t.Errorf("write: %v", err)
	}
	if err := l.writeNow(nil, line("x")); !errors.Is(err, ErrSidecarLost) {
		t.Errorf("writeNow: %v", err)
	}
}

// A lone line needs no writer: whoever adds it writes it. What the connection
// does not take at once is the writer's, and stays in order.
func TestLinkDirect(t *testing.T) {
	for name, conns := range linkConns {
		t.Run(name, func(t *testing.T) {
			a, b := conns(t)
			l := newLink(a, wire.Limits{}) // no writer yet
			far := newLink(b, wire.Limits{})
			if err := l.write(t.Context(), line("lone")); err != nil {
				t.Fatal(err)
			}
			if got, err := far.ReadLine(); string(got) != "lone" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			long := strings.Repeat("x", 8<<20)
			for _, text := range []string{long, "after"} {
				if err := l.writeNow(nil, line(text)); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{})
			go func() { defer close(done); _ = l.writeLoop() }()
			for _, want := range []string{long, "after"} {
				if got, err := far.ReadLine(); string(got) != want || err != nil {
					t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
				}
			}
			l.close()
			<-done
			far.close()
		})
	}
}
