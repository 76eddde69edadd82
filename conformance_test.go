package mesh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A scenario is a test that must pass wherever the sidecars of two agents run. It
// shares its agents with the scenarios before it, so its messages have types of
// their own.
type scenario struct {
	name string
	run  func(t *testing.T, p *pair)
	// reports: agents may call OnError.
	reports bool
	// ends: the next scenario cannot use the agents.
	ends bool
}

var scenarios = []scenario{
	{name: "connect", run: testConnect},
	{name: "send", run: testSend},
	{name: "broadcast", run: testBroadcast},
	{name: "request", run: testRequest},
	{name: "meta", run: testMeta},
	{name: "handler-error", run: testHandlerError, reports: true},
	{name: "no-response", run: testNoResponse},
	{name: "typed", run: testTyped},
	{name: "slow-loop", run: testSlowLoop},
	{name: "cards", run: testCards},
	{name: "unknown-peer", run: testUnknownPeer},
	{name: "cancel", run: testCancel},
	{name: "large", run: testLarge},
	{name: "awkward", run: testAwkward},
	{name: "concurrent", run: testConcurrent},
	{name: "slow-handler", run: testSlowHandler},
	{name: "quick-handler", run: testQuickHandler, reports: true},
	{name: "stats", run: testStats},
	{name: "streams", run: testStreams},
	{name: "net-conn", run: testNetConn},
	{name: "sidecar-lost", run: testSidecarLost, reports: true},
	{name: "peer-leaves", run: testPeerLeaves, ends: true},
	{name: "close-busy", run: testCloseBusy, reports: true, ends: true},
	{name: "close-quick", run: testCloseQuick, reports: true, ends: true},
}

// TestConformance runs every scenario for every pair of modes, or without
// MESH_TEST_FULL for the pairs of one mode, and for agents that are linked in memory.
func TestConformance(t *testing.T) {
	sidecar := buildSidecar(t)
	for _, first := range modesHere() {
		for _, second := range modesHere() {
			t.Run(first.String()+"-"+second.String(), func(t *testing.T) {
				if first != second {
					testutil.SkipUnlessFull(t, "the conformance suite for pairs of different modes")
				}
				p := &pair{stage: newStage(t, sidecar), modes: [2]Mode{first, second}, full: !raceEnabled()}
				p.playAll(t)
			})
		}
	}
	for _, mode := range modesHere() { // as between two hosts
		t.Run(mode.String()+"-"+mode.String()+"-network", func(t *testing.T) {
			p := &pair{stage: newStage(t, sidecar), modes: [2]Mode{mode, mode}, full: !raceEnabled()}
			p.noLocal = true
			p.playAll(t)
		})
	}
	t.Run("memory", func(t *testing.T) {
		s := newStage(t, "")
		room := rtc.NewRoom()
		t.Cleanup(room.Close)
		s.url = room.URL()
		(&pair{stage: s, modes: [2]Mode{InProcess, InProcess}, full: !raceEnabled()}).playAll(t)
	})
}

func (p *pair) playAll(t *testing.T) {
	for _, sc := range scenarios {
		p.play(t, sc)
	}
}

// A pair is two agents with a link between them.
type pair struct {
	*stage
	modes      [2]Mode
	full       bool   // bulk in full; not with -race, where it would take most of the time and show no other race
	alice, bob *agent // alice is nil if the next scenario is to start them
}

// play runs one scenario. The agents belong to the test of the pair, t.
func (p *pair) play(t *testing.T, sc scenario) {
	if p.alice == nil {
		p.begin(t)
	}
	passed := t.Run(sc.name, func(t *testing.T) {
		reported := []int{p.alice.reports.Len(), p.bob.reports.Len()}
		sc.run(t, p)
		if !sc.reports {
			for i, a := range []*agent{p.alice, p.bob} {
				for _, err := range a.reports.All()[reported[i]:] {
					t.Errorf("%s reported: %v", a.id, err)
				}
			}
		}
	})
	// A scenario that failed may have left anything behind: the next one gets new agents.
	if sc.ends || !passed {
		p.alice.end(t)
		p.bob.end(t)
		p.alice = nil
	}
}

func (p *pair) begin(t *testing.T) {
	p.alice = p.start(t, p.modes[0], "alice")
	p.bob = p.start(t, p.modes[1], "bob")
	p.meet(t)
	for _, way := range p.ways() {
		way[0].waitEvents(t, way[1].id, 0, 1) // so that no scenario takes it for one of its own
	}
}

// extra starts one more agent for one scenario and blocks until all are linked.
func (p *pair) extra(t *testing.T, id string, edits ...func(*Config)) *agent {
	t.Helper()
	t.Cleanup(func() { // runs after the agent's own end
		for _, a := range []*agent{p.alice, p.bob} {
			testutil.Eventually(t, a.id+" sees "+id+" go", func() bool { return !slices.ContainsFunc(a.Peers(), func(p Peer) bool { return p.ID == id }) })
		}
	})
	x := p.startAs(t, InProcess, id, Identity{}, edits...)
	p.meet(t, x)
	return x
}

// meet blocks until all agents are linked.
func (p *pair) meet(t *testing.T, others ...*agent) {
	t.Helper()
	ctx := bounded(t)
	all := append([]*agent{p.alice, p.bob}, others...)
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			if err := a.WaitPeer(ctx, b.id); err != nil {
				t.Fatalf("%s: %v", a.id, err)
			}
		}
	}
}

// ways are both directions.
func (p *pair) ways() [][2]*agent { return [][2]*agent{{p.alice, p.bob}, {p.bob, p.alice}} }

func (a *agent) on(t *testing.T, typ string, h Handler) {
	t.Helper()
	if err := a.Handle(typ, h); err != nil {
		t.Fatal(err)
	}
}

// echo responds with the payload of the request.
func echo(_ context.Context, msg *Message) (any, error) { return msg.Payload, nil }

// collect returns a handler that keeps the messages it gets.
func collect(r *testutil.Record[*Message]) Handler {
	return func(_ context.Context, msg *Message) (any, error) {
		r.Add(msg)
		return nil, nil
	}
}

// blocker returns a handler that signals its start, blocks until its context ends,
// and signals that.
func blocker() (h Handler, started, ended chan struct{}) {
	started, ended = make(chan struct{}, 16), make(chan struct{}, 16)
	return func(ctx context.Context, _ *Message) (any, error) {
		started <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	}, started, ended
}

// works checks that a request and its reply pass.
func works(t *testing.T, asker, asked *agent) {
	t.Helper()
	reply, err := asker.Request(bounded(t), asked.id, Message{Type: "ping"})
	if err != nil || reply.Type != "pong" || reply.From != asked.id {
		t.Errorf("%s to %s: got %+v, %v", asker.id, asked.id, reply, err)
	}
}

func text(n int) string {
	b := make([]byte, n*3/4)
	_, _ = rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
