//go:build !js

package rtc_test

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// basePeer is a double of a sidecar that knows no extensions, with its habits: it offers to everyone on
// each peer_list, answers each offer, keeps one connection by peer id, and forgets the id when any
// connection to it ends.
type basePeer struct {
	t  *testing.T
	h  *hub
	id string

	mu       sync.Mutex
	done     bool // the test is over: no new connections
	all      []*webrtc.PeerConnection
	pcs      map[string]*webrtc.PeerConnection // the current one by peer id
	channels map[string]*webrtc.DataChannel
	early    map[string][]webrtc.ICECandidateInit
	got      []string
	mute     bool   // answers no offer
	offered  string // the session of the last offer that it got
	late     []func()
	tamper   func(*signal.Description) // makes it another kind of peer
	raw      func(*webrtc.DataChannel) // called when a channel opens
	net      *cable                    // nil is the plain network
	slow     bool                      // with the clocks of the original, five times as fast
}

func startBase(t *testing.T, h *hub, id string) *basePeer {
	b := &basePeer{
		t: t, h: h, id: id, pcs: make(map[string]*webrtc.PeerConnection),
		channels: make(map[string]*webrtc.DataChannel), early: make(map[string][]webrtc.ICECandidateInit),
	}
	t.Cleanup(func() {
		b.mu.Lock()
		b.done = true
		b.mu.Unlock()
		b.hangUp()
	})
	return b
}

func (b *basePeer) join() *basePeer {
	b.h.join(b.id, b)
	return b
}

// hangUp ends all its connections.
func (b *basePeer) hangUp() {
	b.mu.Lock()
	all := b.all
	b.mu.Unlock()
	for _, pc := range all {
		_ = pc.GracefulClose()
	}
}

// newPC makes the current connection to a peer, or returns nil when the test is over.
func (b *basePeer) newPC(peer string) *webrtc.PeerConnection {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return nil
	}
	var se webrtc.SettingEngine
	se.LoggerFactory = &logging.DefaultLoggerFactory{Writer: io.Discard}
	se.SetIncludeLoopbackCandidate(true)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.SetICETimeouts(time.Second, 2*time.Second, 200*time.Millisecond)
	if b.slow {
		se.SetICETimeouts(time.Second, 5*time.Second, 400*time.Millisecond)
	}
	if b.net != nil {
		se.SetNet(b.net)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		b.t.Error(err)
		return nil
	}
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			init := c.ToJSON()
			b.send(signal.Candidate, peer, signal.ICECandidate{
				Candidate: init.Candidate, SDPMid: init.SDPMid, SDPMLineIndex: init.SDPMLineIndex,
			})
		}
	})
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateDisconnected, webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			b.mu.Lock()
			delete(b.pcs, peer) // whichever connection that is
			delete(b.channels, peer)
			b.mu.Unlock()
		}
	})
	pc.OnDataChannel(func(dc *webrtc.DataChannel) { b.use(peer, dc) })
	b.all = append(b.all, pc)
	b.pcs[peer] = pc
	delete(b.channels, peer)
	return pc
}

func (b *basePeer) use(peer string, dc *webrtc.DataChannel) {
	dc.OnMessage(func(m webrtc.DataChannelMessage) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.got = append(b.got, string(m.Data))
	})
	dc.OnOpen(func() {
		b.mu.Lock()
		if b.pcs[peer] != nil {
			b.channels[peer] = dc
		}
		raw := b.raw
		b.mu.Unlock()
		if raw != nil {
			raw(dc)
		}
	})
}

func (b *basePeer) send(typ, to string, payload any) {
	p, err := json.Marshal(payload)
	if err != nil {
		b.t.Error(err)
	}
	// An error means that the test has taken the peer out of the hub.
	_ = port{b.h, b.id}.Send(signal.Message{Type: typ, PeerID: b.id, TargetID: to, Payload: p})
}

func (b *basePeer) describe(typ, to string, d webrtc.SessionDescription) {
	desc := signal.Description{SDP: d.SDP}
	if b.tamper != nil {
		b.tamper(&desc)
	}
	if typ == signal.Answer && desc.Session != "" {
		b.mu.Lock()
		desc.Answers = b.offered
		b.mu.Unlock()
	}
	b.send(typ, to, desc)
}

func (b *basePeer) Registered(_ string, l signal.PeersPayload) {
	for _, p := range l.Peers {
		b.offer(p)
	}
}

func (b *basePeer) Disconnected() {}

func (b *basePeer) offer(peer string) *webrtc.PeerConnection {
	pc := b.newPC(peer)
	dc, err := pc.CreateDataChannel("mesh", nil)
	if err != nil {
		b.t.Error(err)
	}
	b.use(peer, dc)
	d, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(d)
	}
	if err != nil {
		b.t.Error(err)
	}
	b.describe(signal.Offer, peer, d)
	return pc
}

func (b *basePeer) Receive(m signal.Message) {
	b.mu.Lock()
	if b.mute && m.Type == signal.Offer {
		b.late = append(b.late, func() { b.receive(m) })
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	b.receive(m)
}

func (b *basePeer) receive(m signal.Message) {
	peer := m.PeerID
	b.mu.Lock()
	pc := b.pcs[peer]
	b.mu.Unlock()
	switch m.Type {
	case signal.Offer:
		var d signal.Description
		_ = json.Unmarshal(m.Payload, &d)
		if pc = b.newPC(peer); pc == nil {
			return
		}
		b.mu.Lock()
		b.offered = d.Session
		b.mu.Unlock()
		_ = pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: d.SDP})
		b.addEarly(peer, pc)
		answer, err := pc.CreateAnswer(nil)
		if err == nil {
			err = pc.SetLocalDescription(answer)
		}
		if err != nil {
			b.t.Errorf("%s cannot answer: %v", b.id, err)
			return
		}
		b.describe(signal.Answer, peer, answer)
	case signal.Answer:
		var d signal.Description
		_ = json.Unmarshal(m.Payload, &d)
		if pc == nil {
			return
		}
		_ = pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: d.SDP})
		b.addEarly(peer, pc)
	case signal.Candidate:
		var c signal.ICECandidate
		_ = json.Unmarshal(m.Payload, &c)
		init := webrtc.ICECandidateInit{Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex}
		if pc == nil || pc.RemoteDescription() == nil {
			b.mu.Lock()
			b.early[peer] = append(b.early[peer], init)
			b.mu.Unlock()
			return
		}
		_ = pc.AddICECandidate(init)
	}
}

func (b *basePeer) addEarly(peer string, pc *webrtc.PeerConnection) {
	b.mu.Lock()
	early := b.early[peer]
	delete(b.early, peer)
	b.mu.Unlock()
	for _, c := range early {
		_ = pc.AddICECandidate(c)
	}
}

func (b *basePeer) channel(peer string) *webrtc.DataChannel {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.channels[peer]
}

func (b *basePeer) received() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.got...)
}

// exchange sends messages both ways.
func exchange(t *testing.T, a *agent, b *basePeer) {
	t.Helper()
	testutil.Eventually(t, "a link on both sides", func() bool { return a.peer(b.id) != nil && b.channel(a.id) != nil })
	already, alreadyBase := len(a.received(b.id)), len(b.received())
	for i := range 100 {
		send(t, a.peer(b.id), message(i, 50))
		if err := b.channel(a.id).SendText(message(i, 60)); err != nil {
			t.Fatal(err)
		}
	}
	testutil.Eventually(t, "100 messages each way", func() bool {
		return len(a.received(b.id)) == already+100 && len(b.received()) == alreadyBase+100
	})
	for i := range 100 {
		if got, want := a.received(b.id)[already+i], message(i, 60); got != want {
			t.Fatalf("message %d: %s", i, got)
		}
		if got, want := b.received()[alreadyBase+i], message(i, 50); got != want {
			t.Fatalf("message %d to base: %s", i, got)
		}
	}
}

func TestBasePeer(t *testing.T) {
	for _, offers := range []bool{true, false} {
		t.Run(fmt.Sprintf("it offers %t", offers), func(t *testing.T) {
			h := newHub(t)
			a, b := start(t, h, "a"), startBase(t, h, "b")
			if offers {
				a.join()
				b.join()
			} else {
				b.join()
				a.join()
			}
			exchange(t, a, b)
			p := a.peer("b")
			if p.Extended() {
				t.Error("Extended")
			}
			p.Pause(wire.StopNewWork)
			p.Resume()
			p.Cancel("x")
			err := p.Send([]byte(message(0, wire.BaseMaxMessage+1)), wire.LaneOrdered)
			if code(err) != wire.CodeTooLarge {
				t.Errorf("Send of 65536 bytes: %v", err)
			}
			deep := func(levels int) []byte {
				return []byte(`{"type":"x","payload":` + strings.Repeat("[", levels-1) + strings.Repeat("]", levels-1) + "}")
			}
			if err := p.Send(deep(wire.BaseMaxDepth+1), wire.LaneOrdered); code(err) != wire.CodeTooDeep {
				t.Errorf("Send of %d levels: %v", wire.BaseMaxDepth+1, err)
			}
			send(t, p, message(1, wire.BaseMaxMessage))
			for _, bad := range []string{"{", `{"type":"x"}` + "\n" + `{"type":"y"}`, `["pause"]`} {
				if err := b.channel("a").SendText(bad); err != nil {
					t.Error(err)
				}
			}
			if err := b.channel("a").Send([]byte("{\r\n\"type\":\"binary\"}")); err != nil {
				t.Error(err)
			}
			testutil.Eventually(t, "the long message and the binary one", func() bool {
				return len(b.received()) == 101 && len(a.received("b")) == 101
			})
			if n := get(a.recorder, func() int { return len(a.rejected) }); n != 3 {
				t.Errorf("%d lines rejected, want 3", n)
			}
			if got := len(b.received()[100]); got != wire.BaseMaxMessage {
				t.Errorf("long message has %d bytes", got)
			}
			if got := get(a.recorder, func() []string { return a.controls }); len(got) != 0 {
				t.Errorf("controls %q", got)
			}
		})
	}
}

// A base peer's link ends with the path, and it gets no offer before it has forgotten the old link: soon
// if it has closed its end itself, which also forgets us, and when it is heard again if it merely went silent.
func TestBasePeerLeavesAndReturns(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silently %t", silent), func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			a, b := start(t, h, "a").join(), startBase(t, h, "b")
			b.net = newCable(t)
			b.join()
			exchange(t, a, b)
			if silent {
				b.net.cut.Store(true)
			} else {
				b.hangUp()
			}
			testutil.Eventually(t, "the end of the link", func() bool { return a.peer("b") == nil })
			if silent {
				time.Sleep(500 * time.Millisecond)
				if n := h.count(signal.Offer, "a", "b"); n != 0 {
					t.Errorf("%d offers to a peer that is silent", n)
				}
				b.net.cut.Store(false)
			}
			testutil.Eventually(t, "an offer", func() bool { return h.count(signal.Offer, "a", "b") > 0 })
			exchange(t, a, b)
			if n := h.count(signal.Offer, "a", "b"); n != 1 {
				t.Errorf("%d offers", n)
			}
			if got, want := a.history(), "[+b -b +b]"; got != want {
				t.Errorf("history %s, want %s", got, want)
			}
		})
	}
}

// However long an outage is, and in whichever direction, or if the base peer was suspended, messages pass both ways
// afterwards, and still do when every connection from before has ended at the base peer, by its own clocks. The clocks run
// five times as fast as the true ones.
func TestBasePeerOutage(t *testing.T) {
	t.Parallel()
	const fails = 6 * time.Second // until a connection without a path has ended at the base peer
	for _, length := range []time.Duration{900 * time.Millisecond, 1200 * time.Millisecond, fails + time.Second} {
		for _, way := range []string{"both", "ours", "theirs", "suspended"} {
			t.Run(fmt.Sprint(length, way), func(t *testing.T) {
				t.Parallel()
				h, ours := newHub(t), newCable(t)
				a, b := start(t, h, "a", func(c *rtc.Config) {
					c.UseNet(ours)
					c.BaseClocks()
					if way == "ours" {
						c.ICEDisconnected(time.Minute) // what we hear does not tell what they hear
					}
				}).join(), startBase(t, h, "b")
				b.net, b.slow = newCable(t), true
				b.join()
				exchange(t, a, b)
				began := time.Now()
				ours.cut.Store(way == "both" || way == "ours")
				ours.hold.Store(way == "suspended")
				b.net.cut.Store(way != "ours")
				time.Sleep(length)
				ours.cut.Store(false)
				b.net.cut.Store(false)
				ours.release()
				time.Sleep(time.Until(began.Add(length + time.Second))) // in which the outage has its consequences
				exchange(t, a, b)
				time.Sleep(time.Until(began.Add(length + fails + time.Second)))
				exchange(t, a, b)
			})
		}
	}
}

// Both offer at once. A base peer that then answers our offer keeps that connection; one that does not
// gets an answer to its own.
func TestBasePeerGlare(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("it answers %t", answers), func(t *testing.T) {
			h := newHub(t)
			a, b := start(t, h, "a", func(c *rtc.Config) {
				if answers {
					c.GlareHold(time.Minute)
				}
			}).join(), startBase(t, h, "b")
			b.mute = true
			h.mu.Lock()
			h.members["b"] = b // there, but not announced
			h.mu.Unlock()
			a.Connect("b")
			testutil.Eventually(t, "our offer", func() bool { return h.count(signal.Offer, "a", "b") == 1 })
			began := time.Now()
			b.offer("a")
			if answers {
				b.mu.Lock()
				late := b.late
				b.mute = false
				b.mu.Unlock()
				for _, f := range late {
					f()
				}
			}
			exchange(t, a, b)
			if held := time.Since(began) >= 300*time.Millisecond; !answers && !held {
				t.Error("its offer was answered at once")
			}
			want := 1
			if answers {
				want = 0
			}
			if n := h.count(signal.Answer, "a", "b"); n != want {
				t.Errorf("%d answers of ours, want %d", n, want)
			}
			if n := h.count(signal.Offer, "a", "b"); n != 1 {
				t.Errorf("%d offers of ours, want 1", n)
			}
			if got := a.history(); got != "[+b]" {
				t.Errorf("history %s", got)
			}
		})
	}
}

// A base peer that registers again offers again, and forgets us if its superseded connection ends.
func TestBasePeerOffersAgain(t *testing.T) {
	h := newHub(t)
	a, b := start(t, h, "a").join(), startBase(t, h, "b")
	b.join()
	exchange(t, a, b)
	want := "[+b"
	for range 3 {
		b.offer("a")
		want += " -b +b"
		testutil.Eventually(t, "a new link", func() bool { return a.history() == want+"]" })
		exchange(t, a, b)
	}
}

// A superseded connection that has ended at the base peer's end, too, no longer delays anything.
func TestBasePeerParkedLinkEnds(t *testing.T) {
	h := newHub(t)
	a, b := start(t, h, "a", func(c *rtc.Config) { c.BaseWait(time.Hour) }).join(), startBase(t, h, "b")
	b.join()
	exchange(t, a, b)
	b.mu.Lock()
	old := b.pcs["a"]
	b.mu.Unlock()
	b.offer("a")
	testutil.Eventually(t, "a new link", func() bool { return a.history() == "[+b -b +b]" })
	if n := a.Parked("b"); n != 1 {
		t.Errorf("%d links are parked", n)
	}
	_ = old.GracefulClose()
	testutil.Eventually(t, "it forgets us, whichever that was", func() bool { return b.channel("a") == nil })
	testutil.Eventually(t, "nothing is parked", func() bool { return a.Parked("b") == 0 })
	b.hangUp()
	testutil.Eventually(t, "our offer", func() bool { return h.count(signal.Offer, "a", "b") == 1 })
	exchange(t, a, b)
}

func code(err error) wire.Code {
	if e, ok := err.(*wire.Error); ok {
		return e.Code
	}
	return ""
}

var _ member = (*rtc.Node)(nil)
