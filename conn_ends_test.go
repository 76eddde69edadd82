package mesh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A street has streams from alice to bob.
type street struct {
	alice, bob *agent
	l          net.Listener
}

// newStreet starts both, each with a sidecar of that mode.
func newStreet(t *testing.T, mode Mode) *street {
	t.Helper()
	s := newStage(t, "")
	a, b := s.start(t, mode, "alice"), s.start(t, mode, "bob")
	if err := a.WaitPeer(bounded(t), "bob"); err != nil {
		t.Fatal(err)
	}
	l, err := b.Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	return &street{a, b, l}
}

// open returns both ends of a stream.
func (s *street) open(t *testing.T) (near, far *Conn) {
	t.Helper()
	near = dialled(t, s.alice, "bob", "x")
	c, err := s.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, c.(*Conn)
}

// streetModes are those with and without a socket between agent and sidecar.
func streetModes() []Mode { return modesHere()[:min(2, len(modesHere()))] }

// Dials that are given up, at whatever moment, leave nothing at either end.
func TestDialsGivenUp(t *testing.T) {
	dials := 2000
	if raceEnabled() {
		dials = 200
	}
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			var all sync.WaitGroup
			defer all.Wait()
			defer s.l.Close()
			all.Go(func() {
				for {
					c, err := s.l.Accept()
					if err != nil {
						return
					}
					all.Go(func() { // as long as the other end is there
						_, _ = io.Copy(io.Discard, c)
						_ = c.Close()
					})
				}
			})
			random := rand.New(rand.NewPCG(1, 2))
			for range dials {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(1000))*time.Microsecond)
				c, err := s.alice.Dial(ctx, "bob", "x")
				switch timeout := (net.Error)(nil); {
				case err == nil:
					_ = c.Close()
				case !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout():
					t.Errorf("Dial: %v", err)
				}
				cancel()
			}
			for _, a := range []*agent{s.alice, s.bob} {
				testutil.Eventually(t, "the end of all streams of "+a.id, func() bool {
					st, err := a.Stats(bounded(t))
					return err == nil && len(st.Peers) == 1 && st.Peers[0].Streams == 0
				})
			}
		})
	}
}

// The cause of a context is what Dial returns, and nothing else.
func TestDialCause(t *testing.T) {
	mine := errors.New("mine")
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(mine)
			late, cancel2 := context.WithTimeoutCause(t.Context(), 0, mine)
			defer cancel2()
			for ctx, timeout := range map[context.Context]bool{ctx: false, late: true} {
				_, err := s.alice.Dial(ctx, "bob", "x")
				if e := (net.Error)(nil); !errors.Is(err, mine) || errors.Is(err, ErrPeerGone) || !errors.As(err, &e) || e.Timeout() != timeout {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// Writes fail at once after CloseWrite.
func TestWriteAfterCloseWrite(t *testing.T) {
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			c, _ := s.open(t)
			_ = c.CloseWrite()
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("a write after CloseWrite: %v", err)
			}
		})
	}
}

// So does one that is under way; what it had written before arrives.
func TestCloseWriteWhileWriting(t *testing.T) {
	const more = 64 << 20 // than all buffers together
	writes := map[string]func(t *testing.T, c *Conn) (int64, error){
		"Write": func(_ *testing.T, c *Conn) (int64, error) {
			n, err := c.Write(make([]byte, more))
			return int64(n), err
		},
		"ReadFrom": func(_ *testing.T, c *Conn) (int64, error) { return io.Copy(c, bytes.NewReader(make([]byte, more))) },
		"ReadFrom TCP": func(t *testing.T, c *Conn) (int64, error) {
			from, to := tcpPipe(t)
			go func() { _, _ = to.Write(make([]byte, more)) }()
			return io.Copy(c, from)
		},
	}
	for _, mode := range streetModes() {
		for name, write := range writes {
			t.Run(mode.String()+"/"+name, func(t *testing.T) {
				s := newStreet(t, mode)
				near, far := s.open(t)
				wrote := make(chan int64)
				go func() {
					n, err := write(t, near)
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("a write under way: %v", err)
					}
					wrote <- n
				}()
				if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				if err := near.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				n := <-wrote
				if rest, err := io.Copy(io.Discard, far); rest+1 != n || err != nil {
					t.Errorf("%d bytes written, then read: 1 and %d, %v", n, rest, err)
				}
			})
		}
	}
}

// tcpPipe returns both ends of a TCP connection, which the test closes.
func tcpPipe(t *testing.T) (a, b net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		defer l.Close()
		a, err = net.Dial("tcp", l.Addr().String())
	}
	if err == nil {
		b, err = l.Accept()
	}
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// A peer that has closed its end in the ordinary way is not gone: what is written to it fails for that reason.
func TestWriteToClosed(t *testing.T) {
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			for range 20 {
				near, far := s.open(t)
				_, _ = near.Write([]byte("hello"))
				_ = near.Close()
				if b, err := io.ReadAll(far); string(b) != "hello" || err != nil {
					t.Fatalf("%q, %v", b, err)
				}
				err := error(nil)
				for err == nil {
					_, err = far.Write([]byte("x"))
				}
				if !errors.Is(err, ErrStreamReset) {
					t.Errorf("got %v", err)
				}
				_ = far.Close()
			}
		})
	}
}

// A stream that nobody has accepted when its listener closes does not end as if it had been served.
func TestUnacceptedStreams(t *testing.T) {
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			c := dialled(t, s.alice, "bob", "x")
			if err := s.l.Close(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, ErrStreamReset) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// A read deadline that passes, at whatever moment, costs the stream nothing; past it nothing is read.
func TestReadDeadlines(t *testing.T) {
	size := 8 << 20
	if raceEnabled() {
		size = 1 << 20
	}
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			near, far := s.open(t)
			go func() {
				_, _ = near.Write(make([]byte, size))
				_ = near.CloseWrite()
			}()
			random := rand.New(rand.NewPCG(3, 4))
			got, buf := 0, make([]byte, 16<<10)
			for {
				_ = far.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(200)-20) * time.Microsecond))
				n, err := far.Read(buf)
				got += n
				if err == io.EOF {
					break
				}
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
			}
			if got != size {
				t.Errorf("%d bytes of %d", got, size)
			}
			_ = far.SetReadDeadline(time.Time{})
			other, end := s.open(t)
			_, _ = other.Write([]byte("x"))
			if _, err := io.ReadFull(end, buf[:1]); err != nil {
				t.Fatal(err)
			}
			_, _ = other.Write([]byte("y"))
			_ = end.SetReadDeadline(time.Now().Add(-time.Second))
			if n, err := end.Read(buf); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("past the deadline: %d bytes, %v", n, err)
			}
		})
	}
}

// Readers that stand still hold up their own streams, however little is written at a time.
func TestSmallWritesToNobody(t *testing.T) {
	for _, mode := range streetModes() {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStreet(t, mode)
			var all sync.WaitGroup
			for range 50 {
				c, _ := s.open(t) // nobody reads the other end
				all.Go(func() {
					_ = c.SetWriteDeadline(time.Now().Add(time.Second))
					for line := make([]byte, 20); ; {
						if _, err := c.Write(line); err != nil {
							if !errors.Is(err, os.ErrDeadlineExceeded) {
								t.Error(err)
							}
							return
						}
					}
				})
			}
			all.Wait()
			near, far := s.open(t)
			_, _ = near.Write([]byte("x"))
			if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
				t.Error(err)
			}
			works(t, s.alice, s.bob)
		})
	}
}
