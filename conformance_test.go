package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A scenario is something that must come out the same wherever the sidecars of
// two agents run. Its agents are shared with the scenarios before it, so it
// gives its messages types of their own.
type scenario struct {
	name string
	run  func(t *testing.T, p *pair)
	// reports: agents may report failures for which no caller waits.
	reports bool
	// ends: it leaves no agents behind that the next scenario could use.
	ends bool
}

var scenarios = []scenario{
	{name: "connect", run: testConnect},
	{name: "send", run: testSend},
	{name: "broadcast", run: testBroadcast},
	{name: "request", run: testRequest},
	{name: "handler-error", run: testHandlerError},
	{name: "unknown-peer", run: testUnknownPeer},
	{name: "cancel", run: testCancel},
	{name: "large", run: testLarge},
	{name: "awkward", run: testAwkward},
	{name: "concurrent", run: testConcurrent},
	{name: "slow-handler", run: testSlowHandler},
	{name: "sidecar-lost", run: testSidecarLost, reports: true},
	{name: "peer-leaves", run: testPeerLeaves, ends: true},
	{name: "close-busy", run: testCloseBusy, reports: true, ends: true},
}

// TestConformance runs every scenario for every pair of modes.
func TestConformance(t *testing.T) {
	sidecar := buildSidecar(t)
	for _, first := range modesHere() {
		for _, second := range modesHere() {
			t.Run(first.String()+"-"+second.String(), func(t *testing.T) {
				p := &pair{stage: newStage(t, sidecar), modes: [2]Mode{first, second}}
				for _, sc := range scenarios {
					p.play(t, sc)
				}
			})
		}
	}
}

// A pair is two agents with a link between them.
type pair struct {
	*stage
	modes      [2]Mode
	alice, bob *agent // nil until a scenario needs them
}

// play runs one scenario. The agents belong to the test of the pair, t.
func (p *pair) play(t *testing.T, sc scenario) {
	t.Run(sc.name, func(sub *testing.T) {
		if p.alice == nil {
			p.begin(t, sub)
		}
		reported := []int{p.alice.reports.count(), p.bob.reports.count()}
		sc.run(sub, p)
		if !sc.reports {
			for i, a := range []*agent{p.alice, p.bob} {
				for _, err := range a.reports.list()[reported[i]:] {
					sub.Errorf("%s reported: %v", a.id, err)
				}
			}
		}
	})
	// What failed may have left anything behind: the next scenario starts afresh.
	if (sc.ends || t.Failed()) && p.alice != nil && p.bob != nil {
		p.alice.end(t)
		p.bob.end(t)
		p.alice, p.bob = nil, nil
	}
}

func (p *pair) begin(t, sub *testing.T) {
	alice := p.start(t, p.modes[0], "alice")
	bob := p.start(t, p.modes[1], "bob")
	p.alice, p.bob = alice, bob
	p.meet(sub)
}

// extra starts one more agent for one scenario and waits until all are linked.
func (p *pair) extra(t *testing.T, id string) *agent {
	t.Helper()
	t.Cleanup(func() { // runs after the agent's own end
		for _, a := range []*agent{p.alice, p.bob} {
			eventually(t, a.id+" sees "+id+" go", func() bool { return !slices.Contains(a.Peers(), id) })
		}
	})
	x := p.start(t, InProcess, id)
	p.meet(t, x)
	return x
}

// meet waits until all agents are linked.
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

// echo answers with the payload of the request.
func echo(_ context.Context, msg *Message) (any, error) { return msg.Payload, nil }

// collect returns a handler that keeps the messages it gets.
func collect(r *record[*Message]) Handler {
	return func(_ context.Context, msg *Message) (any, error) {
		r.add(msg)
		return nil, nil
	}
}

// blocker returns a handler that signals its start and works until nobody waits
// for its answer any more.
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

func testConnect(t *testing.T, p *pair) {
	for _, way := range p.ways() {
		a, b := way[0], way[1]
		if got := a.waitEvents(t, b.id, 0, 1); len(got) != 1 || got[0] != (PeerEvent{Peer: b.id, Connected: true}) {
			t.Errorf("%s was told %+v", a.id, got)
		}
		if got := a.Peers(); !slices.Equal(got, []string{b.id}) {
			t.Errorf("the peers of %s are %v", a.id, got)
		}
		if got := a.Signaling(); got.State != SignalingConnected || got.Err != nil || a.ID() != a.id {
			t.Errorf("%s is %q and has the state %+v", a.id, a.ID(), got)
		}
		if err := a.Connect(bounded(t), b.id); err != nil {
			t.Errorf("%s, connected already: %v", a.id, err)
		}
	}
	if got := p.alice.SidecarPID(); (got != 0) != (p.modes[0] == SelfExec || p.modes[0] == Binary) {
		t.Errorf("mode %v has a sidecar with process id %d", p.modes[0], got)
	}
}

func testSend(t *testing.T, p *pair) {
	const n = 1000
	ctx := bounded(t)
	var got [2]record[*Message]
	for i, way := range p.ways() {
		way[1].on(t, "send_note", collect(&got[i]))
	}
	for i := range n {
		for _, way := range p.ways() {
			err := way[0].Send(ctx, way[1].id, Message{Type: "send_note", SourceAgent: "from", TargetAgent: "to", Payload: i})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, way := range p.ways() {
		for j, msg := range got[i].wait(t, "the messages", func(m []*Message) bool { return len(m) >= n }) {
			var v int
			if err := msg.Decode(&v); err != nil || v != j || msg.From != way[0].id || msg.Type != "send_note" ||
				msg.RequestID != "" || msg.SourceAgent != "from" || msg.TargetAgent != "to" {
				t.Fatalf("message %d from %s to %s is %+v (%v)", j, way[0].id, way[1].id, msg, err)
			}
		}
	}
}

func testBroadcast(t *testing.T, p *pair) {
	const n = 100
	ctx := bounded(t)
	agents := []*agent{p.alice, p.bob, p.extra(t, "carol"), p.extra(t, "dave")}
	p.meet(t, agents[2:]...)
	got := make([]record[*Message], len(agents))
	for i, a := range agents {
		a.on(t, "broadcast_note", collect(&got[i]))
	}
	for i := range n {
		for _, a := range agents[:2] {
			if err := a.Broadcast(ctx, Message{Type: "broadcast_note", Payload: i}); err != nil {
				t.Fatalf("%s: %v", a.id, err)
			}
		}
	}
	for i, a := range agents {
		for _, from := range agents[:2] {
			if from == a {
				continue
			}
			of := func(all []*Message) (values []string) {
				for _, m := range all {
					if m.From == from.id {
						values = append(values, string(m.Payload.(json.RawMessage)))
					}
				}
				return values
			}
			all := got[i].wait(t, "the broadcasts", func(m []*Message) bool { return len(of(m)) >= n })
			for j, v := range of(all) {
				if v != fmt.Sprint(j) {
					t.Fatalf("broadcast %d from %s to %s is %s", j, from.id, a.id, v)
				}
			}
		}
	}
	for i, a := range agents[:2] {
		if m := got[i].list(); slices.ContainsFunc(m, func(m *Message) bool { return m.From == a.id }) {
			t.Errorf("%s got its own broadcast", a.id)
		}
	}
}

func testRequest(t *testing.T, p *pair) {
	ctx := bounded(t)
	for _, way := range p.ways() {
		asker, asked := way[0], way[1]
		for _, typ := range []string{"sum_request", "sum_query", "sum_prompt", "sum"} {
			asked.on(t, typ, func(_ context.Context, msg *Message) (any, error) {
				var v []int
				err := msg.Decode(&v)
				return v[0] + v[1], err
			})
			reply, err := asker.Request(ctx, asked.id, Message{Type: typ, SourceAgent: "me", TargetAgent: "you", Payload: []int{2, 3}})
			if err != nil {
				t.Fatal(err)
			}
			var sum int
			if err := reply.Decode(&sum); err != nil || sum != 5 {
				t.Errorf("%s: got %s, %v", typ, reply.Raw, err)
			}
			if reply.Type != "sum_response" || reply.From != asked.id || reply.RequestID == "" ||
				reply.SourceAgent != "you" || reply.TargetAgent != "me" {
				t.Errorf("%s: got %+v", typ, reply)
			}
		}
		works(t, asker, asked)

		// A handler that asks the one it works for, under the same request id.
		asker.on(t, "inner_request", echo)
		asked.on(t, "outer_request", func(ctx context.Context, msg *Message) (any, error) {
			reply, err := asked.Request(ctx, msg.From, Message{Type: "inner_request", RequestID: msg.RequestID, Payload: msg.Payload})
			if err != nil {
				return nil, err
			}
			return reply.Payload, nil
		})
		reply, err := asker.Request(ctx, asked.id, Message{Type: "outer_request", RequestID: "same", Payload: "deep"})
		if err != nil || string(reply.Payload.(json.RawMessage)) != `"deep"` || reply.RequestID != "same" {
			t.Errorf("a handler that asks back: got %+v, %v", reply, err)
		}
	}
}

func testHandlerError(t *testing.T, p *pair) {
	const awful = "no such file: \"x\"\n\u2028 \\ é"
	p.bob.on(t, "fail_request", func(context.Context, *Message) (any, error) { return nil, errors.New(awful) })
	p.bob.on(t, "panic_request", func(context.Context, *Message) (any, error) { panic("out of paper") })
	p.bob.on(t, "unencodable_request", func(context.Context, *Message) (any, error) { return func() {}, nil })
	for typ, want := range map[string]string{
		"fail_request":        awful,
		"panic_request":       "out of paper",
		"unencodable_request": "cannot be sent",
		"unheard_of_request":  "no handler",
	} {
		_, err := p.alice.Request(bounded(t), "bob", Message{Type: typ})
		var remote *RemoteError
		var pe *PeerError
		if !errors.As(err, &remote) || !strings.Contains(remote.Text, want) || remote.Reply == nil {
			t.Errorf("%s: %v", typ, err)
		}
		if typ == "fail_request" && remote != nil && remote.Text != want {
			t.Errorf("the text is %q", remote.Text)
		}
		if !errors.As(err, &pe) || pe.Op != "request" || pe.Peer != "bob" || pe.RequestID == "" {
			t.Errorf("%s: the error names no peer or request: %#v", typ, pe)
		}
	}
	works(t, p.alice, p.bob)
}

// What is known not to be there fails for that reason, not by a timeout.
func testUnknownPeer(t *testing.T, p *pair) {
	ctx := bounded(t)
	for _, a := range []*agent{p.alice, p.bob} {
		_, requestErr := a.Request(ctx, "nobody", Message{Type: "x_request"})
		for op, err := range map[string]error{
			"request": requestErr,
			"send":    a.Send(ctx, "nobody", Message{Type: "x"}),
			"connect": a.Connect(ctx, "nobody"),
		} {
			var pe *PeerError
			if !errors.Is(err, ErrUnknownPeer) || !errors.As(err, &pe) || pe.Op != op || pe.Peer != "nobody" {
				t.Errorf("%s of %s: %v", op, a.id, err)
			}
		}
	}
	works(t, p.alice, p.bob)
}

func testCancel(t *testing.T, p *pair) {
	h, started, ended := blocker()
	p.bob.on(t, "cancel_request", h)
	ctx, cancel := context.WithCancel(bounded(t))
	first := ask(ctx, p.alice.Mesh, "bob", Message{Type: "cancel_request"})
	other, cancelOther := context.WithCancel(bounded(t))
	second := ask(other, p.alice.Mesh, "bob", Message{Type: "cancel_request"})
	take(t, "the handler", started)
	take(t, "the other handler", started)
	cancel()
	if got := take(t, "the cancelled request", first); !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %+v", got)
	}
	take(t, "the end of the handler's context", ended)
	works(t, p.alice, p.bob)
	if len(ended) != 0 || len(second) != 0 {
		t.Error("the request beside it ended, too")
	}
	cancelOther()
	take(t, "the other request", second)
	take(t, "the end of the other handler's context", ended)
}

func testLarge(t *testing.T, p *pair) {
	ctx := bounded(t)
	type blob struct{ Data, Hash string }
	hash := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	p.bob.on(t, "large_request", func(_ context.Context, msg *Message) (any, error) {
		var b blob
		if err := msg.Decode(&b); err != nil {
			return nil, err
		}
		if hash(b.Data) != b.Hash {
			return nil, errors.New("it has changed on the way")
		}
		return msg.Payload, nil
	})
	for _, size := range []int{64 << 10, 1 << 20, 8 << 20} {
		data := text(size)
		sent, err := json.Marshal(blob{data, hash(data)})
		if err != nil {
			t.Fatal(err)
		}
		reply, err := p.alice.Request(ctx, "bob", Message{Type: "large_request", Payload: json.RawMessage(sent)})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got := reply.Payload.(json.RawMessage); !bytes.Equal(got, sent) {
			t.Errorf("%d bytes: %d came back, and not the same", size, len(got))
		}
	}
	if err := p.alice.Send(ctx, "bob", Message{Type: "large", Payload: strings.Repeat("x", 16<<20)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	works(t, p.alice, p.bob)
}

// awkward is a payload in which everything occurs that anybody might get wrong.
func awkward() json.RawMessage {
	var controls strings.Builder
	for c := range 0x20 {
		fmt.Fprintf(&controls, `\u%04x`, c)
	}
	return json.RawMessage("{\r\n\t\"controls\": \"" + controls.String() + "\",\r\n" +
		`"short": "\b\f\n\r\t\/\\\"", "quotes": "\"}}\n{\"type\":\"peer_disconnected\",\"payload\":{\"peer_id\":\"bob\"}}",` + "\n\n\r" +
		"\"raw\": \"\u007f \u0080 \u0085 \u00a0 \u2028 \u2029 \ufeff \uffff \U0001F600 e\u0301 \U0010FFFF </script>\",\r\n" +
		`"surrogates": ["\ud83d\ude00", "\ud800", "\udc00", "\udc00\ud800", "\ud800x"],` +
		`"nul": "\u0000", "\u0000": "a key", "": "no key", "\u0074ype": "escaped", "type": "plain", "type": "twice",` +
		`"request_id": 7, "payload": {"message": {"type": null}}, "target_peer": [], "error": "", "result": null,` +
		"\"numbers\":[1e400,-1E-400,-0,0.10,123456789012345678901234567890,1.0000000000000000000000001]\r\n,\n" +
		"\"spaces\" \t:\r\n [ \n ] , \"empty\":{\r},\"literals\":[true,false,null],\"deep\":" +
		strings.Repeat("[", 500) + strings.Repeat("]", 500) + "\n}")
}

func testAwkward(t *testing.T, p *pair) {
	const odd = "\"\\/\b\r\n\x00\x1f\x7f {}[],: \u2028\u2029\ufeff é 日本 \U0001F600"
	sent := Message{
		Type: odd + "_request", RequestID: "id " + odd, SourceAgent: "source " + odd, TargetAgent: "target " + odd,
		Payload: awkward(),
	}
	// The line ends between tokens become spaces. Nothing else changes.
	want := []byte(strings.NewReplacer("\r", " ", "\n", " ").Replace(string(awkward())))
	var got record[*Message]
	p.bob.on(t, sent.Type, func(_ context.Context, msg *Message) (any, error) {
		got.add(msg)
		return msg.Payload, nil
	})
	reply, err := p.alice.Request(bounded(t), "bob", sent)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Type != odd+"_response" || reply.RequestID != sent.RequestID || reply.SourceAgent != sent.TargetAgent || reply.TargetAgent != sent.SourceAgent {
		t.Errorf("the reply is %q", reply.Raw)
	}
	msg := got.list()[0]
	if msg.Type != sent.Type || msg.RequestID != sent.RequestID || msg.SourceAgent != sent.SourceAgent || msg.TargetAgent != sent.TargetAgent {
		t.Errorf("the request is %q", msg.Raw)
	}
	for name, payload := range map[string]any{"request": msg.Payload, "reply": reply.Payload} {
		raw := payload.(json.RawMessage)
		if !bytes.Equal(raw, want) {
			t.Errorf("payload of the %s:\n got %q\nwant %q", name, raw, want)
		}
		if !reflect.DeepEqual(decoded(t, raw), decoded(t, awkward())) {
			t.Errorf("payload of the %s means something else", name)
		}
	}
}

func decoded(t *testing.T, raw []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// A thousand requests each way at once are more than the queues hold: each side
// has to pause the other, and still gets its replies.
func testConcurrent(t *testing.T, p *pair) {
	const n, together = 1000, 100
	ctx := bounded(t)
	pad := text(16 << 10)
	payload := func(i int) json.RawMessage { return fmt.Appendf(nil, `{"n":%d,"pad":%q}`, i, pad) }
	// Nobody answers before a hundred have come on both sides.
	var arrived [2]atomic.Int32
	var missing sync.WaitGroup
	missing.Add(2)
	for i, way := range p.ways() {
		way[1].on(t, "concurrent_request", func(_ context.Context, msg *Message) (any, error) {
			if arrived[i].Add(1) == together {
				missing.Done()
			}
			missing.Wait()
			return msg.Payload, nil
		})
	}
	var asking sync.WaitGroup
	var failed record[error]
	for i := range n {
		for _, way := range p.ways() {
			asking.Go(func() {
				reply, err := way[0].Request(ctx, way[1].id, Message{Type: "concurrent_request", Payload: payload(i)})
				if err == nil && !bytes.Equal(reply.Payload.(json.RawMessage), payload(i)) {
					err = fmt.Errorf("request %d of %s got the reply %.100s", i, way[0].id, reply.Raw)
				}
				if err != nil {
					failed.add(err)
				}
			})
		}
	}
	asking.Wait()
	if errs := failed.list(); len(errs) > 0 {
		t.Errorf("%d of %d failed, first: %v", len(errs), 2*n, errs[0])
	}
}

// testSlowHandler has Bob's handler stop at Alice's first message while she
// sends more than may wait for it.
func testSlowHandler(t *testing.T, p *pair) {
	const n = 96 // times 256 KiB are three times what makes an agent pause a peer
	ctx := bounded(t)
	carol := p.extra(t, "carol")
	pad := text(256 << 10)
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	var slow, flowing record[*Message]
	p.bob.on(t, "slow_note", func(_ context.Context, msg *Message) (any, error) {
		<-release
		slow.add(msg)
		return nil, nil
	})
	p.bob.on(t, "flow_note", collect(&flowing))
	p.alice.on(t, "flow_note", collect(&flowing))
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := p.alice.Send(ctx, "bob", Message{Type: "slow_note", Payload: fmt.Sprint(i, " ", pad)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	eventually(t, "alice is asked to pause", func() bool { return p.alice.stopped("bob") != stopNothing })

	for i := range 200 {
		for _, to := range []string{"bob", "alice"} {
			if err := carol.Send(ctx, to, Message{Type: "flow_note", Payload: i}); err != nil {
				t.Fatal(err)
			}
		}
	}
	works(t, carol, p.bob)
	works(t, p.bob, carol)
	works(t, p.alice, carol)
	works(t, p.bob, p.alice) // its reply passes the pause
	flowing.wait(t, "carol's messages", func(m []*Message) bool { return len(m) == 400 })
	if slow.count() != 0 || len(sent) != 0 {
		t.Errorf("%d messages were handled and Send ended %d times before the handler went on", slow.count(), len(sent))
	}

	free()
	if err := take(t, "alice's last Send", sent); err != nil {
		t.Error(err)
	}
	for i, msg := range slow.wait(t, "alice's messages", func(m []*Message) bool { return len(m) >= n }) {
		var s string
		if err := msg.Decode(&s); err != nil || s != fmt.Sprint(i, " ", pad) {
			t.Fatalf("message %d is %.100s (%v)", i, msg.Raw, err)
		}
	}
	works(t, p.alice, p.bob)
}

// stopped tells what the agent holds back for a peer.
func (m *Mesh) stopped(peer string) stop {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[peer].stop
}

// testSidecarLost takes Alice's sidecar away while both wait for each other.
func testSidecarLost(t *testing.T, p *pair) {
	atAlice, alicesStart, alicesEnd := blocker()
	atBob, bobsStart, bobsEnd := blocker()
	p.alice.on(t, "lost_request", atAlice)
	p.bob.on(t, "lost_request", atBob)
	alicesEvents, bobsEvents, pid := p.alice.events.count(), p.bob.events.count(), p.alice.SidecarPID()
	ofAlice := []<-chan outcome{
		ask(t.Context(), p.alice.Mesh, "bob", Message{Type: "lost_request"}),
		ask(t.Context(), p.alice.Mesh, "bob", Message{Type: "lost_request"}),
	}
	ofBob := ask(t.Context(), p.bob.Mesh, "alice", Message{Type: "lost_request"})
	take(t, "alice's handler", alicesStart)
	take(t, "bob's handler", bobsStart)
	take(t, "bob's handler", bobsStart)

	p.alice.sever(t)
	for _, c := range ofAlice {
		if got := take(t, "alice's request", c); !errors.Is(got.err, ErrSidecarLost) {
			t.Errorf("alice's request ended with %v", got.err)
		}
	}
	if got := take(t, "bob's request", ofBob); !errors.Is(got.err, ErrPeerGone) {
		t.Errorf("bob's request ended with %v", got.err)
	}
	take(t, "the end of alice's handler", alicesEnd)
	take(t, "the end of bob's handler", bobsEnd)
	take(t, "the end of bob's handler", bobsEnd)

	// It comes back by itself.
	for _, want := range []struct {
		a     *agent
		peer  string
		from  int
		cause error
	}{{p.alice, "bob", alicesEvents, ErrSidecarLost}, {p.bob, "alice", bobsEvents, ErrPeerGone}} {
		got := want.a.waitEvents(t, want.peer, want.from, 2)
		if len(got) != 2 || got[0].Connected || !errors.Is(got[0].Err, want.cause) || !got[1].Connected || got[1].Err != nil {
			t.Errorf("%s was told %+v", want.a.id, got)
		}
	}
	works(t, p.alice, p.bob)
	works(t, p.bob, p.alice)
	if pid != 0 && p.alice.SidecarPID() == pid {
		t.Errorf("the sidecar still is process %d", pid)
	}
	p.alice.reports.wait(t, "alice to report the loss", func(errs []error) bool {
		return slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, ErrSidecarLost) })
	})
}

func testPeerLeaves(t *testing.T, p *pair) {
	h, started, ended := blocker()
	p.bob.on(t, "leave_request", h)
	from := p.alice.events.count()
	var asked []<-chan outcome
	for range 3 {
		asked = append(asked, ask(t.Context(), p.alice.Mesh, "bob", Message{Type: "leave_request"}))
		take(t, "bob's handler", started)
	}
	p.bob.end(t)
	for _, c := range asked {
		take(t, "the end of bob's handler", ended)
		if got := take(t, "alice's request", c); !errors.Is(got.err, ErrPeerGone) {
			t.Errorf("the request ended with %v", got.err)
		}
	}
	if got := p.alice.waitEvents(t, "bob", from, 1); len(got) != 1 || got[0].Connected || !errors.Is(got[0].Err, ErrPeerGone) {
		t.Errorf("alice was told %+v", got)
	}
	if got := p.alice.Peers(); len(got) != 0 {
		t.Errorf("alice's peers are %v", got)
	}
	if _, err := p.alice.Request(bounded(t), "bob", Message{Type: "leave_request"}); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("a request after he left ended with %v", err)
	}
}

// testCloseBusy closes Alice's mesh amid messages and requests in both directions.
func testCloseBusy(t *testing.T, p *pair) {
	ctx := bounded(t)
	pad := text(16 << 10)
	var busy sync.WaitGroup
	var done [2]atomic.Int32
	var ends [2]record[error]
	for i, way := range p.ways() {
		way[0].on(t, "busy_request", echo)
		way[0].on(t, "busy_note", func(context.Context, *Message) (any, error) { return nil, nil })
		until := func(step func() error) {
			for {
				if err := step(); err != nil {
					ends[i].add(err)
					return
				}
				done[i].Add(1)
			}
		}
		for range 16 {
			busy.Go(func() {
				until(func() error {
					_, err := way[0].Request(ctx, way[1].id, Message{Type: "busy_request", Payload: pad})
					return err
				})
			})
		}
		busy.Go(func() {
			until(func() error { return way[0].Send(ctx, way[1].id, Message{Type: "busy_note", Payload: pad}) })
		})
	}
	eventually(t, "both are busy", func() bool { return done[0].Load() > 200 && done[1].Load() > 200 })

	began := time.Now()
	closed := make(chan error, 2)
	for range cap(closed) {
		go func() { closed <- p.alice.Close() }()
	}
	for range cap(closed) {
		if err := take(t, "Close", closed); err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(began); d > 3*closeTimeout {
		t.Errorf("Close took %v", d)
	}
	take(t, "the end of alice's mesh", p.alice.Done())
	ended := make(chan struct{})
	go func() { busy.Wait(); close(ended) }()
	take(t, "the end of all requests", ended)
	for _, err := range ends[0].list() {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("at alice, who closed: %v", err)
		}
	}
	for _, err := range ends[1].list() {
		if !errors.Is(err, ErrPeerGone) && !errors.Is(err, ErrUnknownPeer) {
			t.Errorf("at bob: %v", err)
		}
	}
	if err := p.alice.Send(ctx, "bob", Message{Type: "busy_note"}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := p.bob.Err(); err != nil {
		t.Errorf("bob's mesh ended: %v", err)
	}
}
