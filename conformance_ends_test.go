package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

func testCancel(t *testing.T, p *pair) {
	h, started, ended := blocker()
	p.bob.on(t, "cancel_request", h)
	ctx, cancel := context.WithCancel(bounded(t))
	first := ask(ctx, p.alice.Mesh, "bob", Message{Type: "cancel_request"})
	other, cancelOther := context.WithCancel(bounded(t))
	second := ask(other, p.alice.Mesh, "bob", Message{Type: "cancel_request"})
	testutil.Take(t, "the handler", started)
	testutil.Take(t, "the other handler", started)
	cancel()
	if got := testutil.Take(t, "the cancelled request", first); !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %+v", got)
	}
	testutil.Take(t, "the end of the handler's context", ended)
	works(t, p.alice, p.bob)
	if len(ended) != 0 || len(second) != 0 {
		t.Error("the other request ended, too")
	}
	cancelOther()
	testutil.Take(t, "the other request", second)
	testutil.Take(t, "the end of the other handler's context", ended)
}

// A thousand requests each way at once are more than the queues hold: each side pauses
// the other. Then every reply has to pass the requests.
func testConcurrent(t *testing.T, p *pair) {
	const n = 1000
	ctx := bounded(t)
	pad, enough := text(16<<10), int64(inboxHigh*3/4) // a request is charged more than its bytes
	if !p.full {
		pad, enough = pad[:2<<10], inboxHigh*3/32
	}
	// No request is answered before both sides have received so much that they say pause.
	var arrived [2]atomic.Int64
	paused := make(chan struct{}, 2)
	answer := make(chan struct{})
	for i, way := range p.ways() {
		way[1].on(t, "concurrent_request", func(ctx context.Context, msg *Message) (any, error) {
			size := int64(len(msg.Raw))
			if sum := arrived[i].Add(size); sum > enough && sum-size <= enough {
				paused <- struct{}{}
			}
			select {
			case <-answer:
				return msg.Payload, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
	}
	var asking sync.WaitGroup
	var failed testutil.Record[error]
	for i := range n {
		for _, way := range p.ways() {
			asking.Go(func() {
				sent := json.RawMessage(fmt.Sprintf(`["%s",%d]`, pad, i))
				reply, err := way[0].Request(ctx, way[1].id, Message{Type: "concurrent_request", Payload: sent})
				if err == nil && !bytes.Equal(reply.Payload.(json.RawMessage), sent) {
					err = fmt.Errorf("request %d of %s got the reply %.100s", i, way[0].id, reply.Raw)
				}
				if err != nil {
					failed.Add(err)
				}
			})
		}
	}
	testutil.Take(t, "one side to receive enough", paused)
	testutil.Take(t, "the other side to receive enough", paused)
	close(answer)
	asking.Wait()
	if errs := failed.All(); len(errs) > 0 {
		t.Errorf("%d of %d failed, first: %v", len(errs), 2*n, errs[0])
	}
}

// testQuickHandler has a handler do all sorts of things after it was quick so often that it may run in the goroutine that reads.
func testQuickHandler(t *testing.T, p *pair) {
	ctx := bounded(t)
	free := make(chan struct{})
	for _, way := range p.ways() {
		way[0].on(t, "quick_request", func(ctx context.Context, msg *Message) (any, error) {
			var kind string
			if err := msg.Decode(&kind); err != nil {
				return nil, err
			}
			switch kind {
			case "block":
				<-free
			case "free":
				free <- struct{}{}
			case "ask":
				_, err := msg.Mesh().Request(ctx, msg.From, Message{Type: "quick_request", Payload: "quick"})
				return kind, err
			case "quit":
				runtime.Goexit()
			}
			return kind, nil
		})
	}
	for _, way := range p.ways() {
		ask := func(kind string) error {
			_, err := way[0].Request(ctx, way[1].id, Message{Type: "quick_request", Payload: kind})
			return err
		}
		for _, kind := range []string{"quick", "ask", "quit", "block", "quick"} {
			for range 100 { // more than make up for one that was slow
				if err := ask("quick"); err != nil {
					t.Fatal(err)
				}
			}
			other := make(chan error, 1)
			go func() { other <- ask(kind) }()
			if kind == "block" { // which must not keep this one from being read
				if err := ask("free"); err != nil {
					t.Error(err)
				}
			}
			if err := testutil.Take(t, kind, other); (err != nil) != (kind == "quit") {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}

// Bob's handler blocks at Alice's first message while she sends more than may wait
// for it.
func testSlowHandler(t *testing.T, p *pair) {
	if !p.full && p.modes != [2]Mode{InProcess, InProcess} {
		testutil.SkipUnlessFull(t, "slow handlers with the race detector, but in process")
	}
	const n = 48 // times 256 KiB are half as much again as makes an agent pause a peer
	ctx := bounded(t)
	carol := p.extra(t, "carol")
	pad := text(256 << 10)
	payload := func(i int) string { return fmt.Sprintf(`["%s",%d]`, pad, i) }
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	var slow, flowing testutil.Record[*Message]
	p.bob.on(t, "slow_note", func(_ context.Context, msg *Message) (any, error) {
		<-release
		slow.Add(msg)
		return nil, nil
	})
	p.bob.on(t, "flow_note", collect(&flowing))
	p.alice.on(t, "flow_note", collect(&flowing))
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := p.alice.Send(ctx, "bob", Message{Type: "slow_note", Payload: json.RawMessage(payload(i))}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	testutil.Eventually(t, "alice is asked to pause", func() bool { return p.alice.stopped("bob") == wire.StopOrdered })
	works(t, p.alice, p.bob) // requests do not wait for messages that are handled in order
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.alice.Send(gone, "bob", Message{Type: "slow_note"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Send to a paused peer with a context that has ended: %v", err)
	}

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
	flowing.Wait(t, "carol's messages", func(m []*Message) bool { return len(m) == 400 })
	if n := slow.Len(); n != 0 {
		t.Errorf("%d messages overtook the one that is being handled", n)
	}

	free()
	if err := testutil.Take(t, "alice's last Send", sent); err != nil {
		t.Error(err)
	}
	for i, msg := range slow.Wait(t, "alice's messages", func(m []*Message) bool { return len(m) >= n }) {
		if got := string(msg.Payload.(json.RawMessage)); got != payload(i) {
			t.Fatalf("message %d is %.100s", i, got)
		}
	}
	works(t, p.alice, p.bob)
}

// stopped returns what the agent holds back for a peer.
func (m *Mesh) stopped(peer string) wire.Stop {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[peer].stop
}

// Alice loses her sidecar while both have requests to each other pending.
func testSidecarLost(t *testing.T, p *pair) {
	atAlice, alicesStart, alicesEnd := blocker()
	atBob, bobsStart, bobsEnd := blocker()
	p.alice.on(t, "lost_request", atAlice)
	p.bob.on(t, "lost_request", atBob)
	p.alice.serve(t, "lost", ListenConfig{}, echoBytes)
	alicesEvents, bobsEvents, pid := p.alice.events.Len(), p.bob.events.Len(), p.alice.SidecarPID()
	ofAlice := []<-chan outcome{
		ask(t.Context(), p.alice.Mesh, "bob", Message{Type: "lost_request"}),
		ask(t.Context(), p.alice.Mesh, "bob", Message{Type: "lost_request"}),
	}
	ofBob := ask(t.Context(), p.bob.Mesh, "alice", Message{Type: "lost_request"})
	testutil.Take(t, "alice's handler", alicesStart)
	testutil.Take(t, "bob's handler", bobsStart)
	testutil.Take(t, "bob's handler", bobsStart)

	p.alice.sever(t)
	for _, c := range ofAlice {
		if got := testutil.Take(t, "alice's request", c); !errors.Is(got.err, ErrSidecarLost) {
			t.Errorf("alice's request ended with %v", got.err)
		}
	}
	if got := testutil.Take(t, "bob's request", ofBob); !errors.Is(got.err, ErrPeerGone) {
		t.Errorf("bob's request ended with %v", got.err)
	}
	testutil.Take(t, "the end of alice's handler", alicesEnd)
	testutil.Take(t, "the end of bob's handler", bobsEnd)
	testutil.Take(t, "the end of bob's handler", bobsEnd)

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
	throughStream(t, dialled(t, p.bob, "alice", "lost"), 1000)
	if pid != 0 && p.alice.SidecarPID() == pid {
		t.Errorf("the sidecar still is process %d", pid)
	}
	p.alice.reports.Wait(t, "alice to report the loss", func(errs []error) bool {
		return slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, ErrSidecarLost) })
	})
}

func testPeerLeaves(t *testing.T, p *pair) {
	h, started, ended := blocker()
	p.bob.on(t, "leave_request", h)
	from := p.alice.events.Len()
	var asked []<-chan outcome
	for range 3 {
		asked = append(asked, ask(t.Context(), p.alice.Mesh, "bob", Message{Type: "leave_request"}))
		testutil.Take(t, "bob's handler", started)
	}
	p.bob.end(t)
	for _, c := range asked {
		testutil.Take(t, "the end of bob's handler", ended)
		if got := testutil.Take(t, "alice's request", c); !errors.Is(got.err, ErrPeerGone) {
			t.Errorf("the request ended with %v", got.err)
		}
	}
	if got := p.alice.waitEvents(t, "bob", from, 1); len(got) != 1 || got[0].Connected || !errors.Is(got[0].Err, ErrPeerGone) {
		t.Errorf("alice was told %+v", got)
	}
	if got := p.alice.Peers(); len(got) != 0 {
		t.Errorf("alice's peers are %v", got)
	}
	if _, err := p.alice.Request(bounded(t), "bob", Message{Type: "leave_request"}); !errors.Is(err, ErrNotConnected) {
		t.Errorf("a request after he left ended with %v", err)
	}
}

// testCloseBusy closes Alice's mesh amid messages and requests in both directions.
// testCloseQuick has a handler close its mesh that has always been quick, so that it may run in the goroutine that reads.
func testCloseQuick(t *testing.T, p *pair) {
	closed := make(chan error, 1)
	p.bob.on(t, "close_request", func(_ context.Context, msg *Message) (any, error) {
		if msg.Payload == nil {
			return nil, nil
		}
		closed <- msg.Mesh().Close()
		return nil, nil
	})
	ctx := bounded(t)
	for range 20 {
		if _, err := p.alice.Request(ctx, "bob", Message{Type: "close_request"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.alice.Request(ctx, "bob", Message{Type: "close_request", Payload: 1}); !errors.Is(err, ErrPeerGone) {
		t.Errorf("the request during which its handler closes: %v", err)
	}
	if err := testutil.Take(t, "Close", closed); err != nil && !errors.Is(err, ErrUnsent) {
		t.Error(err)
	}
	testutil.Take(t, "the end of bob's mesh", p.bob.Done())
}

func testCloseBusy(t *testing.T, p *pair) {
	ctx := bounded(t)
	pad := text(16 << 10)
	var busy sync.WaitGroup
	var done [2]atomic.Int32
	var ends [2]testutil.Record[error]
	for _, way := range p.ways() { // both, before the first of them asks
		way[0].on(t, "busy_request", echo)
		way[0].on(t, "busy_note", func(context.Context, *Message) (any, error) { return nil, nil })
	}
	for i, way := range p.ways() {
		until := func(step func() error) {
			for {
				if err := step(); err != nil {
					ends[i].Add(err)
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
	testutil.Eventually(t, "both are busy", func() bool { return done[0].Load() > 50 && done[1].Load() > 50 })

	closed := make(chan error, 2)
	for range cap(closed) {
		go func() { closed <- p.alice.Close() }()
	}
	for range cap(closed) {
		if err := testutil.Take(t, "Close", closed); err != nil {
			t.Error(err)
		}
	}
	testutil.Take(t, "the end of alice's mesh", p.alice.Done())
	ended := make(chan struct{})
	go func() { busy.Wait(); close(ended) }()
	testutil.Take(t, "the end of all requests", ended)
	for _, err := range ends[0].All() {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("at alice, who closed: %v", err)
		}
	}
	for _, err := range ends[1].All() {
		if !errors.Is(err, ErrPeerGone) && !errors.Is(err, ErrNotConnected) {
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
