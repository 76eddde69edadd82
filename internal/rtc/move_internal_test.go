//go:build linux || darwin

package rtc

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// pipes returns a channel, and the other end of its socket.
func pipes(t *testing.T) (*localChannel, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	return newLocalChannel(near), far
}

// An attempt that is given up leaves no socket, and none can come later; one that was decided on is not given up.
func TestGiveUp(t *testing.T) {
	welcomed, pumped := 0, 0
	m := (*move)(nil)
	take := func(purpose byte, c *localChannel) bool {
		return m.take(purpose, c, func() { welcomed++ }, func(*localChannel) { pumped++ })
	}
	begin := func(able bool) { m = &move{ready: make(chan struct{}), able: able, settled: func() {}} }
	first, far := pipes(t)
	second, _ := pipes(t)

	begin(true)
	if take(localMessages, second) {
		t.Error("a socket for messages without the one for streams")
	}
	if !take(localStreams, first) || m.decided.Load() || welcomed != 1 || pumped != 0 {
		t.Fatal("the first of two sockets is not kept, or decides")
	}
	if !m.giveUp() {
		t.Error("it cannot be given up before it is decided")
	}
	if b, err := io.ReadAll(far); err != nil || len(b) != localHeader {
		t.Errorf("the socket that was kept: %d bytes, %v; want a farewell and the end", len(b), err)
	}
	if take(localMessages, second) || welcomed != 1 {
		t.Error("a socket is taken after all")
	}

	begin(false)
	if take(localStreams, second) {
		t.Error("a socket for streams, which the link cannot carry")
	}
	if !take(localMessages, second) || m.giveUp() || !m.decided.Load() || pumped != 1 {
		t.Error("it is given up after it was decided")
	}
	if again, _ := pipes(t); take(localMessages, again) {
		t.Error("a second socket for the same purpose")
	}

	begin(true)
	third, _ := pipes(t)
	fourth, _ := pipes(t)
	if !take(localStreams, third) || !take(localMessages, fourth) || pumped != 2 {
		t.Error("two sockets are not taken")
	}
	pump := func(*localChannel) { pumped++ }
	if m.kept(pump) != third || m.kept(pump) != nil || pumped != 3 {
		t.Error("the socket that was kept is not to be had once")
	}
}

// The two ends of a link show different marks, of which each knows the other's; and other links have others.
func TestHostMarks(t *testing.T) {
	near := identity.Link{Offerer: true, Own: "a", Other: "b", OwnSession: "1", OtherSession: "2", OwnCert: [32]byte{1}, OtherCert: [32]byte{2}}
	far := identity.Link{Own: "b", Other: "a", OwnSession: "2", OtherSession: "1", OwnCert: [32]byte{2}, OtherCert: [32]byte{1}}
	own, other := hostMarks("boot", near)
	if farOwn, farOther := hostMarks("boot", far); farOwn != other || farOther != own || own == other || own == "" {
		t.Errorf("the marks are %q and %q at one end, %q and %q at the other", own, other, farOwn, farOther)
	}
	near.OtherCert[0]++
	if o, _ := hostMarks("boot", near); o == own {
		t.Error("another link has the same mark")
	}
	m := move{mark: own, want: other}
	if m.meets(own); m.possible() {
		t.Error("a mark that is sent back counts")
	}
	if m.meets(other); !m.possible() {
		t.Error("the other end's mark does not count")
	}
	if m = (move{}); m.possible() {
		t.Error("without a mark of our own it is possible")
	}
	if m.meets(""); m.possible() {
		t.Error("without a mark it is possible")
	}
}

// What has arrived is read although writing has failed, and the end is that of the other process.
func TestReadAfterBrokenWrite(t *testing.T) {
	c, far := pipes(t)
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		c.pump()
	}()
	b := make([]byte, wire.SliceSize)
	for c.BufferedAmount() < localBudget {
		if _, err := c.WriteDataChannel(b, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := far.Write([]byte{0, 0, 0, 2, 'h', 'i'}); err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	for {
		if _, err := c.WriteDataChannel(b, false); err != nil {
			break
		}
	}
	if n, _, err := c.ReadDataChannel(b); err != nil || string(b[:n]) != "hi" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if _, _, err := c.ReadDataChannel(b); !errors.Is(err, io.EOF) && !errors.Is(err, ErrDied) {
		t.Errorf("the end is %v", err)
	}
	c.close()
	<-pumped
}

// A channel that waits keeps no large buffer.
func TestIdleChannelIsSmall(t *testing.T) {
	c, far := pipes(t)
	defer c.close()
	var idle atomic.Int32
	rest := c.direct.Idle
	c.direct.Idle = func() []byte {
		idle.Add(1)
		return rest()
	}
	if _, err := far.Write(append([]byte{0, 0, 0x20, 0}, make([]byte, 8<<10)...)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, wire.SliceSize)
	if n, _, err := c.ReadDataChannel(b); err != nil || n != 8<<10 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	before := idle.Load()
	go func() { // the end comes when the reader waits for it
		for idle.Load() == before {
			runtime.Gosched()
		}
		_ = far.Close()
	}()
	if _, _, err := c.ReadDataChannel(b); err == nil {
		t.Fatal("more came")
	}
	if len(c.in) != localIdle {
		t.Errorf("it holds %d bytes", len(c.in))
	}
}

// A fakeChannel is a data channel that acknowledges what it is told to.
type fakeChannel struct {
	dataChannel
	buffered, low uint64
	onLow         func()
}

func (c *fakeChannel) BufferedAmount() uint64                 { return c.buffered }
func (c *fakeChannel) SetBufferedAmountLowThreshold(n uint64) { c.low = n }
func (c *fakeChannel) OnBufferedAmountLow(f func())           { c.onLow = f }

func (c *fakeChannel) acknowledge(left uint64) {
	before := c.buffered
	if c.buffered = left; before > c.low && left <= c.low {
		c.onLow()
	}
}

// A writer that waits for room is told of it, whichever of data channel and socket makes it, and also if the data channel is of no use any more
// before it has acknowledged everything.
func TestCarrierTellsOfRoom(t *testing.T) {
	for name, room := range map[string]func(dc *fakeChannel, c *carrier){
		"acknowledgements": func(dc *fakeChannel, _ *carrier) { dc.acknowledge(10) },
		"retired":          func(_ *fakeChannel, c *carrier) { c.retire() },
	} {
		t.Run(name, func(t *testing.T) {
			l, far := pipes(t)
			defer l.close()
			dc := &fakeChannel{buffered: 60 << 10}
			c := newCarrier(dc)
			woken := make(chan struct{}, 1)
			c.OnBufferedAmountLow(func() { notify(woken) })
			all := transit{first: c}
			c.moveOut(l)
			for all.waiting() <= localBudget {
				if _, err := c.WriteDataChannel(make([]byte, wire.SliceSize), false); err != nil {
					t.Fatal(err)
				}
			}
			all.lowMark(localBudget * 7 / 8)
			go l.pump()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			testutil.Eventually(t, "the socket has taken all", func() bool { return l.BufferedAmount() == 0 })
			select {
			case <-woken: // that may be told, too
			default:
			}
			room(dc, c)
			testutil.Take(t, "word of room", woken)
		})
	}
}

// Who stands before a door that does not respond leaves when the link has ended.
func TestVisitEnds(t *testing.T) {
	dir, err := sock.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Remove()
	l, err := sock.Listen(dir.Door())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			_, _ = io.ReadFull(conn, make([]byte, 10)) // it is there
			cancel()
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	encode := base64.StdEncoding.EncodeToString
	where := &wire.Local{Socket: dir.Name(), Ticket: encode(make([]byte, ticketSize)), Secret: encode(make([]byte, secretSize))}
	if _, err := visit(ctx, identity.Link{}, where, localMessages); !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}
