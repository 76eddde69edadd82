package link

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
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

func startLink(t *testing.T, conn net.Conn) *Link {
	t.Helper()
	return started(t, New(conn, nil, wire.Limits{}))
}

// started gives a link its goroutine.
func started(t *testing.T, l *Link) *Link {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); l.Run() }()
	t.Cleanup(func() { l.Close(); <-done })
	return l
}

// received has the lines of a link taken, in order, until it ends.
func received(l *Link) <-chan string {
	lines := make(chan string, 4096) // take must not block
	go func() {
		defer close(lines)
		l.Serve(func(line []byte, err error) bool {
			if err == nil {
				lines <- string(line)
			}
			return err == nil
		})
	}()
	return lines
}

func line(s string) func([]byte) []byte {
	return func(b []byte) []byte { return append(append(b, s...), '\n') }
}

// nextLine returns the first of the lines that wait on a link, or the next one.
func nextLine(l *Link) (next string, err error) {
	l.Serve(func(line []byte, lineErr error) bool {
		next, err = string(line), lineErr
		return false
	})
	return next, err
}

// awaitEnd skips lines until the link ends. It returns why, or nil if the counterpart
// closed it.
func awaitEnd(l *Link) (err error) {
	l.Serve(func(_ []byte, lineErr error) bool {
		err = lineErr
		return err == nil
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// linkKinds make the two ends of each kind of link.
var linkKinds = map[string]func(t *testing.T) (a, b *Link){
	"memory": func(*testing.T) (a, b *Link) { return Pipe() },
	"socket": func(t *testing.T) (*Link, *Link) {
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
		return New(a, nil, wire.Limits{}), New(b, nil, wire.Limits{})
	},
}

func TestLinkBothWays(t *testing.T) {
	kinds := maps.Clone(linkKinds)
	kinds["no descriptor"] = func(*testing.T) (*Link, *Link) {
		a, b := net.Pipe()
		return New(a, nil, wire.Limits{}), New(b, nil, wire.Limits{})
	}
	for name, ends := range kinds {
		t.Run(name, func(t *testing.T) {
			la, lb := ends(t)
			started(t, la)
			started(t, lb)
			const n = 1000
			go func() {
				for i := range n {
					_ = la.Write(t.Context(), line(fmt.Sprint("a", i))) // the reader misses what fails
				}
			}()
			go func() {
				for i := range n {
					_ = lb.WriteNow(nil, line(fmt.Sprint("b", i)))
				}
			}()
			for from, l := range map[string]*Link{"b": la, "a": lb} {
				lines := received(l)
				for i := range n {
					if got, want := <-lines, fmt.Sprint(from, i); got != want {
						t.Fatalf("got %q, want %q", got, want)
					}
				}
				defer func() {
					l.Close()
					for range lines {
						t.Error("one line too many")
					}
				}()
			}
		})
	}
}

// Lines that wait for the writer are written together.
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
		if err := l.Write(t.Context(), line("first")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the writer holds the first line
		for range 100 {
			if err := l.Write(t.Context(), line("more")); err != nil {
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

// Write blocks under its context while the queue is full; WriteNow does not.
func TestLinkBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		l := startLink(t, a)
		defer b.Close()
		big := strings.Repeat("x", QueueSize)
		for range 2 { // one with the writer, one waiting
			if err := l.Write(t.Context(), line(big)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		blocked := make(chan error, 2)
		go func() { blocked <- l.Write(ctx, line("y")) }()
		synctest.Wait()
		if len(blocked) != 0 {
			t.Fatal("Write did not block")
		}
		cancel()
		if err := <-blocked; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := l.WriteNow(nil, line("z")); err != nil {
			t.Errorf("writeNow: %v", err)
		}
		go func() { blocked <- l.Write(t.Context(), line("y")) }()
		synctest.Wait()
		go io.Copy(io.Discard, b)
		if err := <-blocked; err != nil {
			t.Errorf("after the queue had drained: %v", err)
		}
		if err := l.Flush(t.Context()); err != nil {
			t.Errorf("flush: %v", err)
		}
	})
}

// Lines that do not wait for a counterpart that does not read are refused in the end. Those that an account is
// charged for are not: what becomes of that peer is for the account to decide.
func TestLinkOverflow(t *testing.T) {
	near, _ := Pipe()
	big := line(strings.Repeat("x", 1<<20-1))
	refusedAt := 0
	for n := 1; refusedAt == 0 && n <= 2*overflow>>20; n++ {
		if err := near.WriteNow(nil, big); errors.Is(err, ErrOverflow) {
			refusedAt = n
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if want := overflow>>20 + 2; refusedAt != want { // the first line that comes after more than the bound
		t.Errorf("MiB %d was refused, want %d", refusedAt, want)
	}
	if err := near.WriteNow(new(tally), big); err != nil {
		t.Errorf("with an account: %v", err)
	}
	near.Close()
	if err := near.Flush(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("flush of what was dropped: %v", err)
	}
}

type tally struct{ charged, released atomic.Int64 }

func (a *tally) Charge(n int)  { a.charged.Add(int64(n)) }
func (a *tally) Release(n int) { a.released.Add(int64(n)) }

// What is charged is released when it is written, or when the link ends.
func TestLinkAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		l := startLink(t, a)
		var one, two tally
		add := func(acct *tally) {
			if err := l.WriteNow(acct, line("0123456789")); err != nil {
				t.Fatal(err)
			}
		}
		add(&one)
		synctest.Wait() // with the writer, not yet read
		add(&two)
		add(&one)
		const lone = 11 + chargeCost
		if one.charged.Load() != 2*lone || two.charged.Load() != lone || one.released.Load() != 0 {
			t.Errorf("charged %d and %d", one.charged.Load(), two.charged.Load())
		}
		if _, err := io.ReadFull(b, make([]byte, 11)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if one.released.Load() != lone {
			t.Errorf("released %d", one.released.Load())
		}
		b.Close()
		synctest.Wait()
		if one.released.Load() != 2*lone || two.released.Load() != lone {
			t.Errorf("after the end released %d and %d", one.released.Load(), two.released.Load())
		}
	})
}

// Many lines that wait are taken in order, their charges are released as they go, and they take little more memory than
// their bytes and their charges.
func TestLinkPieces(t *testing.T) {
	for name, ends := range linkKinds {
		t.Run(name, func(t *testing.T) {
			near, far := ends(t)
			var one, two tally
			const n = 200_000
			for i := range n {
				account := []*tally{&one, &two}[i%2]
				if err := near.WriteNow(account, line(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			held := 0
			for _, b := range append(near.sealed, near.waiting) {
				held += cap(b.lines) + cap(b.charges)*24
			}
			if charged := int(one.charged.Load() + two.charged.Load()); held > charged || near.size > held {
				t.Errorf("%d bytes of lines take %d, charged are %d", near.size, held, charged)
			}
			started(t, near)
			lines := received(far)
			for i := range n {
				if got := <-lines; got != fmt.Sprint(i) {
					t.Fatalf("line %d is %q", i, got)
				}
			}
			if err := near.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			near.Close()
			for range lines {
				t.Error("one line too many")
			}
		})
	}
}

// The same in memory, except for the first line, which does not wait.
func TestPipeAccounts(t *testing.T) {
	for _, read := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			near, far := Pipe()
			started(t, near)
			var one, two tally
			for _, account := range []*tally{&one, &two, &two} { // far does not look yet
				if err := near.WriteNow(account, line("0123456789")); err != nil {
					t.Fatal(err)
				}
			}
			const both = 22 + chargeCost
			expect := func(when string, released int64) {
				t.Helper()
				synctest.Wait()
				if one.charged.Load() != 0 || two.charged.Load() != both || two.released.Load() != released {
					t.Errorf("%s: charged %d and %d, released %d; want 0, %d, %d",
						when, one.charged.Load(), two.charged.Load(), two.released.Load(), both, released)
				}
			}
			expect("unread", 0)
			if read {
				received(far)
				expect("taken", both)
			}
			near.Close()
			expect("closed", both)
		})
	}
}

// What blocks at one end of a pipe is freed when the other one closes, even if what was written is still being
// taken there.
func TestPipeFarClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := Pipe()
		started(t, near)
		taking := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			far.Serve(func(_ []byte, err error) bool {
				<-taking
				return err == nil
			})
		})
		synctest.Wait()
		full := line(strings.Repeat("x", QueueSize))
		all.Go(func() { _ = near.Write(t.Context(), full) }) // being taken, by this goroutine
		synctest.Wait()
		if err := near.Write(t.Context(), full); err != nil { // waiting
			t.Fatal(err)
		}
		freed := make(chan error, 2)
		go func() { freed <- near.Flush(t.Context()) }()
		go func() { freed <- near.Write(t.Context(), line("y")) }()
		synctest.Wait()
		if len(freed) != 0 {
			t.Error("Flush or Write did not block")
		}
		far.Close()
		synctest.Wait()
		if len(freed) != 2 {
			t.Fatalf("%d of 2 are freed", len(freed))
		}
		for range 2 {
			if err := <-freed; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		close(taking)
		all.Wait()
		if err := near.WriteNow(nil, line("z")); !errors.Is(err, ErrClosed) {
			t.Errorf("WriteNow: %v", err)
		}
	})
}

// The reader of a pipe is told which end was closed.
func TestPipeEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := Pipe()
		started(t, near)
		started(t, far)
		var closed, other error
		var reading sync.WaitGroup
		reading.Go(func() { closed = awaitEnd(near) })
		reading.Go(func() { other = awaitEnd(far) })
		synctest.Wait()
		near.Close()
		reading.Wait()
		if !errors.Is(closed, net.ErrClosed) || other != nil {
			t.Errorf("the closed end: %v; the far one: %v; want %v and none", closed, other, net.ErrClosed)
		}
		if err := far.Flush(t.Context()); err != nil {
			t.Errorf("flush with nothing to write: %v", err)
		}
	})
}

// What the counterpart wrote before it left is read, even if the link has noticed
// that by a write that failed.
func TestLinkLastWords(t *testing.T) {
	l, far := linkKinds["socket"](t)
	started(t, l)
	const n = 1000
	var text []byte
	for i := range n {
		text = fmt.Appendln(text, i)
	}
	if _, err := far.carrier.(*socket).conn.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := far.carrier.(*socket).conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(t.Context(), line("nobody reads this")); err != nil {
		t.Fatal(err)
	}
	<-l.done
	for i := range n {
		if got, err := nextLine(l); got != fmt.Sprint(i) || err != nil {
			t.Fatalf("line %d: %q, %v", i, got, err)
		}
	}
	if err := awaitEnd(l); err != nil {
		t.Errorf("the link ended with %v", err)
	}
	if err := l.Write(t.Context(), line("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	l.Close()
	if _, err := l.carrier.(*socket).conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is open: %v", err)
	}
}

// A deafConn accepts no writes, and never reports that it has ended.
type deafConn struct{ net.Conn }

func (deafConn) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// A connection that accepts no more writes, but does not end, is read for a while. The
// link then ends with the error of the write.
func TestLinkDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, far := net.Pipe()
		defer far.Close()
		l := startLink(t, deafConn{conn})
		if err := l.Write(t.Context(), line("x")); err != nil {
			t.Fatal(err)
		}
		if err := awaitEnd(l); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("the link ended with %v", err)
		}
	})
}

// Operations on a link that either end has closed, once or twice, return ErrClosed.
func TestLinkClose(t *testing.T) {
	a, b := net.Pipe()
	l := startLink(t, a)
	b.Close()
	if _, err := nextLine(l); !errors.Is(err, io.EOF) {
		t.Errorf("nextLine: %v", err)
	}
	l.Close()
	l.Close()
	if err := l.Write(t.Context(), line("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if err := l.WriteNow(nil, line("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("writeNow: %v", err)
	}
}

// A lone line needs no writer: the goroutine that adds it writes it. What the
// connection does not take at once is left to the writer, and stays in order.
func TestLinkDirect(t *testing.T) {
	for name, ends := range linkKinds {
		t.Run(name, func(t *testing.T) {
			l, far := ends(t)
			lines := received(far)
			if err := l.Write(t.Context(), line("lone")); err != nil { // no writer yet
				t.Fatal(err)
			}
			if got := <-lines; got != "lone" {
				t.Fatalf("got %q", got)
			}
			long := strings.Repeat("x", 8<<20)
			for _, text := range []string{long, "after"} {
				if err := l.WriteNow(nil, line(text)); err != nil {
					t.Fatal(err)
				}
			}
			started(t, l)
			for _, want := range []string{long, "after"} {
				if got := <-lines; got != want {
					t.Fatalf("got %d bytes, want %d", len(got), len(want))
				}
			}
			far.Close()
			if got, more := <-lines; more {
				t.Errorf("got %q after the end", got)
			}
		})
	}
}
