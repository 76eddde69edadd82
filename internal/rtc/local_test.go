//go:build linux || darwin

package rtc_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// onHost has a node use sockets with peers of this host.
func onHost(c *rtc.Config) { c.NoLocal = false }

func pathTo(a, b *agent) string {
	if p := a.peer(b.id); p != nil {
		return p.Stats().Path
	}
	return ""
}

// moved waits until a link goes over a socket, at both ends.
func moved(t *testing.T, a, b *agent) {
	t.Helper()
	linked(t, a, b)
	testutil.Eventually(t, "a socket", func() bool { return pathTo(a, b) == wire.PathLocal && pathTo(b, a) == wire.PathLocal })
}

// floods sends numbered messages of several lengths from one agent to another, as fast as they go.
func floods(t *testing.T, from, to *agent, n int) {
	p := from.peer(to.id)
	for i := range n {
		for p.Queued() > 1<<20 {
			runtime.Gosched()
		}
		send(t, p, numbered(i))
	}
}

func numbered(i int) string { return message(i, []int{10, 300, 40_000}[i%3]) }

// A link of two processes on one host moves to a socket while messages go both ways, and streams: none is lost, or doubled, or out of
// order.
func TestMove(t *testing.T) {
	for name, up := range map[string]func(*rtc.Peer){
		"streams begin when they like": nil,
		"streams begin first":          (*rtc.Peer).WantStreams,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			moves(t, up)
		})
	}
}

// moves has links move, at whose beginning up is called.
func moves(t *testing.T, up func(*rtc.Peer)) {
	n := 3000
	if testing.Short() {
		n = 300
	}
	for range 3 {
		h := newHub(t)
		a, b := start(t, h, "a", onHost), start(t, h, "b", onHost)
		a.onUp, b.onUp = up, up
		a.join()
		b.join()
		linked(t, a, b)
		var all sync.WaitGroup
		ways := [][2]*agent{{a, b}, {b, a}}
		for _, w := range ways {
			all.Go(func() { floods(t, w[0], w[1], n) })
			all.Go(func() { echoes(t, open(t, w[0], w[1]), 1<<20) })
		}
		all.Wait()
		moved(t, a, b)
		for _, w := range ways {
			testutil.Eventually(t, "all messages", func() bool { return len(w[1].received(w[0].id)) == n })
			for i, m := range w[1].received(w[0].id) {
				if m != numbered(i) {
					t.Fatalf("message %d: %.60s", i, m)
				}
			}
			echoes(t, open(t, w[0], w[1]), 1<<20)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := a.Flush(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		a.close(t)
		testutil.Eventually(t, "b hears that a left", func() bool { return b.history() == "[+a -a]" })
		b.close(t)
	}
}

// Of the PeerConnection nothing is left after a move: that is most of what a link takes.
func TestMoveFreesMemory(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	ends := []*agent{start(t, h, "a", onHost), start(t, h, "b", onHost)}
	connections := make([]chan weak.Pointer[webrtc.PeerConnection], 2)
	for i, e := range ends {
		connections[i] = make(chan weak.Pointer[webrtc.PeerConnection], 1)
		e.onUp = func(p *rtc.Peer) {
			e.Connection(p.ID(), func(pc *webrtc.PeerConnection) { connections[i] <- weak.Make(pc) })
		}
		e.join()
	}
	moved(t, ends[0], ends[1])
	for i, c := range connections {
		pc := testutil.Take(t, "the connection", c)
		testutil.Eventually(t, ends[i].id+" has no PeerConnection", func() bool {
			runtime.GC()
			return pc.Value() == nil
		})
	}
	send(t, ends[0].peer("b"), message(1, 10))
	testutil.Eventually(t, "the message", func() bool { return len(ends[1].received("a")) == 1 })
	for _, e := range ends {
		e.NetworkChanged()
		e.ICEServers(nil)
	}
}

// Where the two ends are not to meet, or cannot, the link stays as it is, streams included.
func TestNoMove(t *testing.T) {
	for name, edit := range map[string]func(t *testing.T, c *rtc.Config){
		"one end is not to": func(_ *testing.T, c *rtc.Config) { c.NoLocal = true },
		"another host":      func(_ *testing.T, c *rtc.Config) { c.Boot("elsewhere") },
		"no directory there": func(t *testing.T, c *rtc.Config) {
			c.Socket = "/nowhere/mesh-1/s"
			t.Setenv("TMPDIR", "/proc")
			t.Setenv("XDG_RUNTIME_DIR", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			a := start(t, h, "a", onHost, func(c *rtc.Config) { edit(t, c) }).join()
			b := start(t, h, "b", onHost).join()
			linked(t, a, b)
			echoes(t, open(t, a, b), 100_000)
			echoes(t, open(t, b, a), 100_000)
			send(t, a.peer("b"), message(1, 10))
			testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
			if name != "no directory there" && (pathTo(a, b) != wire.PathDirect || pathTo(b, a) != wire.PathDirect) {
				t.Errorf("the paths are %s and %s", pathTo(a, b), pathTo(b, a))
			}
			if got := a.history() + b.history(); got != "[+b][+a]" {
				t.Errorf("history %s", got)
			}
		})
	}
}

// The end of a socket ends the link at once, which no signaling and no timeout is needed for. That of a process that lives is no death.
func TestKilledOnHost(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t, onHost)
	moved(t, a, b)
	if !b.BreakSockets("a") {
		t.Fatal("no socket")
	}
	testutil.Eventually(t, "a hears of it", func() bool { return strings.HasPrefix(a.history(), "[+b -b") })
	if why := get(a.recorder, func() error { return a.reasons[0] }); !errors.Is(why, rtc.ErrPeerClosed) {
		t.Errorf("the reason is %v", why)
	}
	linked(t, a, b) // anew
	moved(t, a, b)
}

// What has not been read when the other end dies counts as not received; what was confirmed does not.
func TestUnsentOnHost(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t, onHost)
	moved(t, a, b)
	p := a.peer("b")
	send(t, p, message(1, 1000))
	testutil.Eventually(t, "the confirmation", func() bool { return p.Unacknowledged(wire.LaneOrdered) == 0 })
	b.peer("a").SetReading(false)
	for i := range 100 {
		send(t, p, message(i, 1000))
	}
	if n := p.Unacknowledged(wire.LaneOrdered); n < 100_000 || n > 110_000 {
		t.Errorf("%d bytes are not acknowledged", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if unsent := a.Unsent(ctx)["b"]; unsent[wire.LaneOrdered] < 100_000 || unsent[wire.LaneOrdered] > 110_000 {
		t.Errorf("%v bytes were not sent", unsent)
	}
}

// What was sent before a link moves is confirmed without anything after it.
func TestConfirmedAfterMove(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	a, b := start(t, h, "a", onHost), start(t, h, "b", onHost)
	a.onUp = func(p *rtc.Peer) { send(t, p, message(1, 1000)) }
	a.join()
	b.join()
	moved(t, a, b)
	testutil.Eventually(t, "all is confirmed", func() bool { return a.peer("b").Unacknowledged(wire.LaneOrdered) == 0 })
}

// A message counts as not sent to the byte, without the drain behind it.
func TestUnsentSmallOnHost(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t, onHost)
	moved(t, a, b)
	testutil.Eventually(t, "all is confirmed", func() bool { return a.peer("b").Unacknowledged(wire.LaneOrdered) == 0 })
	b.peer("a").SetReading(false)
	send(t, a.peer("b"), `{"type":"read"}`) // the last line that is
	testutil.Eventually(t, "the first", func() bool { return len(b.received("a")) == 1 })
	before := a.peer("b").Unacknowledged(wire.LaneOrdered)
	send(t, a.peer("b"), `{"type":"t"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if unsent := a.Unsent(ctx)["b"][wire.LaneOrdered]; unsent != before+len(`{"type":"t"}`)+1 {
		t.Errorf("%d bytes were not sent, want %d more than %d", unsent, len(`{"type":"t"}`)+1, before)
	}
}

// A flush ends although there is always more to send.
func TestFlushUnderLoadOnHost(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t, onHost)
	b.onLine = func(*rtc.Peer, *wire.PeerLine) bool {
		<-time.After(time.Millisecond)
		return true
	}
	moved(t, a, b)
	p, stop, ended := a.peer("b"), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for p.Queued() > 900<<10 {
				runtime.Gosched()
			}
			_ = p.Send([]byte(message(i, 10_000)), wire.LaneOrdered)
		}
	}()
	testutil.Eventually(t, "a backlog", func() bool { return p.Queued() > 800<<10 })
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience)
	defer cancel()
	for range 3 {
		if err := a.Flush(ctx); err != nil {
			t.Error(err)
		}
	}
	if n := p.Unacknowledged(wire.LaneOrdered); n > 16<<20 {
		t.Errorf("%d bytes are not confirmed", n)
	}
	close(stop)
	<-ended
}

// The largest card passes.
func TestCardOnHost(t *testing.T) {
	t.Parallel()
	_, a, b := pair(t, onHost)
	moved(t, a, b)
	a.SetCard([]byte(`{"x":"` + strings.Repeat("x", wire.MaxCard-len(`{"x":""}`)) + `"}`))
	testutil.Eventually(t, "the card", func() bool {
		p := b.peer("a")
		return p == nil || len(p.Card()) == wire.MaxCard
	})
	if got := b.history(); got != "[+a]" {
		t.Errorf("history %s", got)
	}
}

func TestLeavesWhileNotReadOnHost(t *testing.T) {
	t.Parallel()
	h, a, b := pair(t, onHost)
	moved(t, a, b)
	testLeavesWhileNotRead(t, h, a, b)
}

// What has arrived before a peer left is read, although something is sent to it after that, and although streams hear of the end first.
func TestSendAfterEndOnHost(t *testing.T) {
	t.Parallel()
	const count = 100
	h := newHub(t)
	a, b := start(t, h, "a", onHost), start(t, h, "b", onHost)
	first, release := holdUp(b)
	a.join()
	b.join()
	moved(t, a, b)
	echoes(t, open(t, a, b), 1000)
	for i := range count {
		send(t, a.peer("b"), message(i, 1000))
	}
	<-first
	p := b.peer("a")
	testutil.Eventually(t, "all are on their way", func() bool { return a.peer("b").Queued() == 0 })
	h.leave("a")
	a.close(t)
	for range 1000 { // until it fails, too
		if p.Send([]byte(message(1, 1000)), wire.LaneOrdered) != nil {
			break
		}
	}
	close(release)
	testutil.Eventually(t, "the end", func() bool { return b.peer("a") == nil })
	if n := len(b.received("a")); n != count {
		t.Errorf("%d of %d messages", n, count)
	}
}

// TestChildAgent is an agent in a process of its own, for TestKilledUnread.
func TestChildAgent(t *testing.T) {
	if url := os.Getenv("RTC_TEST_URL"); url != "" {
		signaled(t, url, "b", onHost)
		select {}
	}
}

// The death of a peer's process is one, also if it shows first in that nothing can be written, while the peer is not read.
func TestKilledUnread(t *testing.T) {
	t.Parallel()
	url := serveSignaling(t)
	a := signaled(t, url, "a", onHost)
	child := exec.Command(os.Args[0], "-test.run=^TestChildAgent$")
	child.Env = append(os.Environ(), "RTC_TEST_URL="+url)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	testutil.Eventually(t, "a socket", func() bool {
		p := a.peer("b")
		return p != nil && p.Stats().Path == wire.PathLocal
	})
	p := a.peer("b")
	p.SetReading(false)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(a.history(), "-b") {
		_ = p.Send([]byte(message(1, 1000)), wire.LaneOrdered)
		runtime.Gosched()
	}
	if why := get(a.recorder, func() error { return a.reasons[0] }); !errors.Is(why, rtc.ErrDied) {
		t.Errorf("the reason is %v", why)
	}
}

// Streams begin, and new links move, after somebody has removed the directory of the socket.
func TestDirectoryGone(t *testing.T) {
	dir := testutil.ShortDir(t)
	t.Setenv("TMPDIR", dir)
	t.Setenv("XDG_RUNTIME_DIR", "")
	h := newHub(t)
	a, b := start(t, h, "a", onHost).join(), start(t, h, "b", onHost).join()
	moved(t, a, b)
	all, _ := filepath.Glob(dir + "/mesh-*")
	for _, d := range all {
		_ = os.RemoveAll(d)
	}
	echoes(t, open(t, a, b), 100_000)
	c := start(t, h, "c", onHost).join()
	moved(t, a, c)
	moved(t, b, c)
	if got := a.history() + b.history(); got != "[+b +c][+a +c]" {
		t.Errorf("history %s", got)
	}
}

// A channel for streams that the wrong end makes is none, and the link goes on.
func TestRogueStreams(t *testing.T) {
	t.Parallel()
	for _, local := range []bool{true, false} {
		_, a, b := pair(t, func(c *rtc.Config) { c.NoLocal = !local })
		rogue, other := a, b
		if a.Offerer("b") {
			rogue, other = b, a
		}
		if err := rogue.RogueStreams(other.id); err != nil && !local {
			t.Fatal(err)
		}
		echoes(t, open(t, rogue, other), 100_000)
		echoes(t, open(t, other, rogue), 100_000)
		if got := a.history() + b.history(); got != "[+b][+a]" {
			t.Errorf("history %s", got)
		}
	}
}

// The end that has not made the offer closes the PeerConnection, too, though it hears nothing of the other one's.
func TestConnectionIsClosedAnyway(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	a, b := start(t, h, "a", onHost), start(t, h, "b", onHost)
	connections := make(chan *webrtc.PeerConnection, 2)
	up := func(e *agent) func(*rtc.Peer) {
		return func(p *rtc.Peer) {
			e.Connection(p.ID(), func(pc *webrtc.PeerConnection) { connections <- pc })
			if e.Offers(p) {
				e.KeepConnection(p.ID())
			}
		}
	}
	a.onUp, b.onUp = up(a), up(b)
	a.join()
	b.join()
	moved(t, a, b)
	one, two := <-connections, <-connections
	testutil.Eventually(t, "one is closed", func() bool {
		return one.ConnectionState() == webrtc.PeerConnectionStateClosed || two.ConnectionState() == webrtc.PeerConnectionStateClosed
	})
	_ = one.GracefulClose()
	_ = two.GracefulClose()
}

// Signaling cannot end a link that goes over a socket, or have it look for a path.
func TestSignalingAfterMove(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	var offers testutil.Record[signal.Description]
	h.setFilter(tampering(t, func(typ string, d *signal.Description) {
		if typ == signal.Offer {
			offers.Add(*d)
		}
	}))
	a, b := start(t, h, "a", onHost).join(), start(t, h, "b", onHost).join()
	moved(t, a, b)
	again := offers.All()[0]
	again.Number = 1
	payload, _ := json.Marshal(again)
	a.Receive(signal.Message{Type: signal.Offer, PeerID: "b", Payload: payload}) // one of the two has made it
	b.Receive(signal.Message{Type: signal.Offer, PeerID: "a", Payload: payload})
	a.Answered("b") // both have dealt with it
	b.Answered("a")
	a.Disconnected()
	b.Disconnected()
	for _, x := range []*agent{a, b} {
		x.NetworkChanged()
	}
	send(t, a.peer("b"), message(1, 10))
	testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
	if got := a.history() + b.history(); got != "[+b][+a]" {
		t.Errorf("history %s", got)
	}
}

// guest connects to the door that b has offered to a link.
func guest(t *testing.T, where *wire.Local) net.Conn {
	t.Helper()
	path := filepath.Join(os.Getenv("TMPDIR"), where.Socket, "d")
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testutil.Patience))
	return conn
}

// Other processes of the user do not get into a link: not without the ticket, or the secret, not twice, and not by holding the door.
func TestDoor(t *testing.T) {
	dir := testutil.ShortDir(t)
	t.Setenv("TMPDIR", dir)
	t.Setenv("XDG_RUNTIME_DIR", "")
	d := rtc.NewDoor()
	t.Cleanup(d.Close)
	come := make(chan net.Conn, 10)
	where, err := d.Issue(func(_ byte, c net.Conn, welcome func()) bool {
		welcome()
		come <- c
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	var idle []net.Conn
	for range 10 { // say nothing
		idle = append(idle, guest(t, where))
	}
	hello := func(ticket string, purpose byte) []byte {
		id, _ := base64.StdEncoding.DecodeString(ticket)
		return append(append(id, purpose), make([]byte, 32)...)
	}
	for name, said := range map[string][]byte{
		"another ticket":  hello(base64.StdEncoding.EncodeToString(make([]byte, 16)), 0),
		"another purpose": hello(where.Ticket, 7),
		"too short":       hello(where.Ticket, 0)[:20],
	} {
		c := guest(t, where)
		_, _ = c.Write(said)
		if name == "too short" {
			_ = c.(*net.UnixConn).CloseWrite()
		}
		if n, err := c.Read(make([]byte, 100)); n > 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
	liar := guest(t, where)
	_, _ = liar.Write(hello(where.Ticket, 0))
	if _, err := io.ReadFull(liar, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	_, _ = liar.Write(make([]byte, 32)) // no proof
	if n, err := liar.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("without the secret: %d bytes, %v", n, err)
	}
	for i, want := range []bool{true, false} {
		c, err := rtc.Visit(t.Context(), where, 0)
		if (err == nil) != want && i == 0 {
			t.Errorf("visit %d: %v", i, err)
		}
		if err == nil {
			defer c.Close()
		}
	}
	first := testutil.Take(t, "the connection", come)
	defer first.Close()
	if c, err := rtc.Visit(t.Context(), where, 1); err != nil {
		t.Errorf("for streams: %v", err)
	} else {
		defer c.Close()
	}
	second := testutil.Take(t, "the connection for streams", come)
	defer second.Close()
	if len(come) > 0 {
		t.Error("somebody came twice")
	}
	other, err := d.Issue(func(byte, net.Conn, func()) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if c, err := rtc.VisitAs(t.Context(), "x", other); err == nil {
		_ = c.Close()
		t.Error("who was told of the door by its guest is let in")
	}
	wrong := *where
	wrong.Secret = base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, l := range map[string]wire.Local{"wrong secret": wrong, "no door": {Socket: "mesh-1"}, "up": {Socket: "../x"}, "empty": {}} {
		if c, err := rtc.Visit(t.Context(), &l, 0); err == nil {
			_ = c.Close()
			t.Errorf("%s: let in", name)
		}
	}
	late, err := d.Issue(func(byte, net.Conn, func()) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if c, err := rtc.Visit(t.Context(), late, 0); err == nil {
		_ = c.Close()
		t.Error("a guest that came too late is let in")
	}
	silent, err := d.Issue(func(_ byte, c net.Conn, _ func()) bool {
		come <- c
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel() // the link ends before the guest is welcome
		c := testutil.Take(t, "the connection", come)
		t.Cleanup(func() { _ = c.Close() })
	}()
	if c, err := rtc.Visit(ctx, silent, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("without a welcome: %v, %v", c, err)
	}
	for _, c := range idle { // they are shown out
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("an idle guest: %v", err)
		}
	}
}

// A peer that has moved where there is no way loses the link.
func TestMovedWhereThereIsNoWay(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	a := start(t, h, "a", onHost).join()
	crafted(t, h, "s1", hello, `["moved"]`+"\n").join()
	testutil.Eventually(t, "the end", func() bool { return a.history() == "[+x -x]" })
	if reasons := get(a.recorder, func() []error { return a.reasons }); !errors.Is(reasons[0], rtc.ErrViolation) {
		t.Errorf("ended because %v", reasons)
	}
}
