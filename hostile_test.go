package mesh

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/testutil/hostile"
)

// What a peer that keeps to no rule can do to an agent.

// from returns the line of a message from a peer.
func from(peer, message string) string {
	return `{"type":"message","payload":{"from_peer":"` + peer + `","message":` + message + `}}`
}

// flood gives the agent n lines, which line makes.
func (f *fakeSidecar) flood(n int, line func(i int) string) {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
		if i < n-1 {
			b.WriteByte('\n')
		}
		if b.Len() > 64<<10 {
			f.say(strings.TrimSuffix(b.String(), "\n"))
			b.Reset()
		}
	}
	if b.Len() > 0 {
		f.say(b.String())
	}
}

// memory returns how many bytes of heap and stacks are in use.
func memory() int64 {
	runtime.GC()
	runtime.GC() // what pools held
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc + s.StackInuse)
}

// taken blocks until the agent has taken all lines so far.
func (f *fakeSidecar) taken(m *Mesh) {
	f.t.Helper()
	f.connect("the last one")
	if err := m.WaitPeer(bounded(f.t), "the last one"); err != nil {
		f.t.Fatal(err)
	}
	f.say(`{"type":"peer_disconnected","payload":{"peer_id":"the last one"}}`)
}

// Messages that wait for a handler cost about their bytes, however small they are.
func TestSmallMessagesCost(t *testing.T) {
	const n = 100_000
	note := `{"type":"x"}`
	started, release := make(chan struct{}), make(chan struct{})
	var ended testutil.Record[struct{}]
	m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
		"first": func(context.Context, *Message) (any, error) { close(started); <-release; return nil, nil },
		"x":     func(context.Context, *Message) (any, error) { return nil, nil },
		"last":  func(context.Context, *Message) (any, error) { ended.Add(struct{}{}); return nil, nil },
	}}, true)
	f.connect("bob")
	f.say(from("bob", `{"type":"first"}`))
	<-started
	before := memory()
	f.flood(n, func(int) string { return from("bob", note) })
	f.taken(m)
	cost, wire := memory()-before, int64(n*len(note))
	t.Logf("%d messages of %d bytes take %d bytes each", n, len(note), cost/n)
	if cost > 3*wire {
		t.Errorf("%d bytes of messages take %d bytes of memory", wire, cost)
	}
	f.say(from("bob", `{"type":"last"}`))
	close(release)
	ended.Wait(t, "the last message", func(all []struct{}) bool { return len(all) == 1 })
}

// A response that no request waits for is dropped when it arrives: it does not queue behind a handler that is busy.
func TestUnexpectedResponsesDoNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		var reports testutil.Record[error]
		release := make(chan struct{})
		m, f := newFakeAgent(t, Config{OnError: reports.Add, Handlers: map[string]Handler{
			"n": func(context.Context, *Message) (any, error) { <-release; return nil, nil },
		}}, true)
		f.connect("bob")
		f.say(from("bob", `{"type":"n"}`))
		done := ask(t.Context(), m, "bob", Message{Type: "x_request"})
		id := f.request()
		for i := range n {
			typ := []string{"a_response", "x_response", "pong"}[i%3]
			f.say(from("bob", fmt.Sprintf(`{"type":"%s","request_id":"%d"}`, typ, i)))
			f.say(from("bob", fmt.Sprintf(`{"type":"x_stream_chunk","request_id":"%d"}`, i))) // nobody's: those of a loop that was left come late
			synctest.Wait()
		}
		if got := reports.Len(); got != n || !errors.Is(reports.All()[0], errUnexpectedResponse) {
			t.Errorf("%d of %d are reported while a handler is busy: %v", got, n, reports.All())
		}
		// One counts, its copies are dropped.
		for range 3 {
			f.reply("bob", id)
		}
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
		synctest.Wait()
		if got := reports.Len(); got != n+2 {
			t.Errorf("%d are reported, want %d", got, n+2)
		}
		close(release)
	})
}

// A handler for responses gets those that no request waits for.
func TestUnexpectedResponseWithHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got testutil.Record[*Message]
		_, f := newFakeAgent(t, Config{Handlers: map[string]Handler{"x_response": collect(&got)}}, true)
		f.connect("bob")
		f.reply("bob", "1")
		synctest.Wait()
		if all := got.All(); len(all) != 1 || all[0].RequestID != "1" {
			t.Errorf("got %v", all)
		}
	})
}

// A peer whose queue is full gets no refusals, and takes nobody else's place on the link.
func TestNoRefusalsForDeafPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		_, f := newFakeAgent(t, Config{Limits: Limits{MaxRequests: 1}}, true)
		f.connect("bob")
		f.say(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`)
		f.flood(n, func(i int) string { return from("bob", fmt.Sprintf(`{"type":"ping","request_id":"%d"}`, i)) })
		synctest.Wait()
		if len(f.lines) != 0 {
			t.Errorf("%d lines for a peer that does not read, first: %.200s", len(f.lines), <-f.lines)
		}
		f.say(`{"type":"resume","payload":{"peer_id":"bob"}}`)
		f.heard() // the one that was run
		synctest.Wait()
		if len(f.lines) != 0 {
			t.Errorf("%d more lines", len(f.lines))
		}
	})
}

// A peer that comes and goes while OnPeer does not return costs little, and OnPeer is told in the end how it is.
func TestPeerComesAndGoes(t *testing.T) {
	for _, live := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const n = 1000
			var told testutil.Record[PeerEvent]
			release := make(chan struct{})
			_, f := newFakeAgent(t, Config{OnPeer: func(e PeerEvent) { told.Add(e); <-release }}, true)
			f.connect("bob")
			f.flood(n, func(i int) string {
				if i%2 == 0 {
					return `{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`
				}
				return `{"type":"peer_connected","payload":{"peer_id":"bob"}}`
			})
			if !live {
				f.say(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`)
			}
			synctest.Wait()
			close(release)
			synctest.Wait()
			all := told.All()
			if len(all) > 32 || all[len(all)-1].Connected != live {
				t.Errorf("%d events, the last of which is %+v; want few, and connected: %t", len(all), all[len(all)-1], live)
			}
			for i, e := range all {
				if e.Connected != (i%2 == 0) {
					t.Fatalf("event %d is %+v", i, e)
				}
			}
		})
	}
}

// Of any number of responses that a peer does not take, one takes memory. All of them arrive once it takes them.
func TestRepliesWaitAsTheyAre(t *testing.T) {
	const n, size = 80, 256 << 10
	body := strings.Repeat("x", size)
	var done testutil.Record[struct{}]
	m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
		"x_request": func(context.Context, *Message) (any, error) { done.Add(struct{}{}); return body, nil },
	}}, true)
	f.connect("bob")
	f.say(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`)
	f.taken(m)
	before := memory()
	f.flood(n, func(i int) string { return from("bob", fmt.Sprintf(`{"type":"x_request","request_id":"%d"}`, i)) })
	done.Wait(t, "the handlers", func(all []struct{}) bool { return len(all) == n })
	if cost, used := memory()-before, m.inboxes.used.Load(); cost > n*size/4 || used > n*size/4 {
		t.Errorf("%d responses of %d bytes that wait take %d bytes of memory, %d of them charged", n, size, cost, used)
	}
	f.say(`{"type":"resume","payload":{"peer_id":"bob"}}`)
	for range n {
		if got := f.heard()["payload"].(map[string]any)["message"].(map[string]any)["payload"]; got != body {
			t.Fatalf("got %.100v", got)
		}
	}
	testutil.Eventually(t, "the end of the charges", func() bool { return m.inboxes.used.Load() == 0 })
}

// What many peers do on links that come and go leaves no charge behind.
func TestChargesAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{OnPeer: func(PeerEvent) {}, Limits: Limits{MaxRequests: 2}, Handlers: map[string]Handler{
			"slow_request":  func(ctx context.Context, _ *Message) (any, error) { <-ctx.Done(); return nil, nil },
			"panic_request": func(context.Context, *Message) (any, error) { panic("on purpose") },
			"n":             func(context.Context, *Message) (any, error) { <-time.After(time.Millisecond); return nil, nil },
		}}, true)
		used := func() int64 { return m.inboxes.used.Load() }
		for round := range 60 {
			f.connect("bob")
			if round%3 == 0 {
				f.say(`{"type":"pause","payload":{"peer_id":"bob"}}`) // refusals wait
			}
			for i := range 8 {
				f.say(from("bob", fmt.Sprintf(`{"type":"slow_request","request_id":"%d"}`, i%5)))
				f.say(from("bob", fmt.Sprintf(`{"type":"panic_request","request_id":"p%d"}`, i)))
				f.say(from("bob", `{"type":"n"}`))
				f.say(`{"type":"cancel","payload":{"from_peer":"bob","request_id":"1"}}`)
			}
			synctest.Wait()
			if round == 0 && used() < requestCost { // later ones may find both places taken by what is just ending
				t.Errorf("%d bytes are charged for requests in work", used())
			}
			f.say(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`)
			for len(f.lines) > 0 {
				f.heard()
			}
		}
		<-time.After(time.Minute)
		if used() != 0 {
			t.Errorf("%d bytes remain charged", used())
		}
	})
}

// Reports of what one peer did wrong are short, and leave room for reports about others.
func TestReportsAreBounded(t *testing.T) {
	id := strings.Repeat("i", 128<<10)
	var told testutil.Record[error]
	var log testutil.LogBuffer
	release := make(chan struct{})
	m, f := newFakeAgent(t, Config{Logger: zerolog.New(&log), OnError: func(err error) { <-release; told.Add(err) }}, true)
	f.connect("bob", "carol")
	before := memory()
	for range 1100 {
		f.say(from("bob", `{"type":"x_response","request_id":"`+id+`"}`))
	}
	f.say(from("carol", `{"type":"x_response","request_id":"hers"}`))
	f.taken(m)
	if cost := memory() - before; cost > 8<<20 {
		t.Errorf("reports take %d bytes", cost)
	}
	if n := len(log.String()); n > 1<<20 {
		t.Errorf("%d bytes are logged", n)
	}
	close(release)
	told.Wait(t, "the report about carol", func(all []error) bool {
		for _, err := range all {
			if pe := (*PeerError)(nil); errors.As(err, &pe) && pe.Peer == "carol" {
				return true
			}
		}
		return false
	})
}

// A peer that causes failures without end has few of them reported, nobody else's are held back, and messages to it
// that are lost are all reported.
func TestReportsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := map[string]int{}
		_, f := newFakeAgent(t, Config{OnError: func(err error) {
			if pe := (*PeerError)(nil); errors.As(err, &pe) {
				told[pe.Op+" "+pe.Peer]++
			}
		}}, true)
		f.connect("bob", "carol")
		fail := func(n int, peer string) {
			for i := range n {
				f.say(from(peer, []string{`{"type":"x_response","request_id":"1"}`, `{"type":"no handler"}`}[i%2]))
				f.say(`{"type":"error","payload":{"code":"queue_full","message":"full","command":"send","target_peer":"` + peer + `"}}`)
				synctest.Wait()
			}
		}
		check := func(peer string, caused, lost int) {
			t.Helper()
			if got := told["receive "+peer] + told["handle "+peer]; got != caused || told["send "+peer] != lost {
				t.Errorf("of %s %v are reported, want %d failures that it caused and %d messages that were lost", peer, told, caused, lost)
			}
		}
		fail(500, "bob")
		check("bob", causedRate.Burst, 500)
		fail(50, "carol")
		check("carol", 50, 50)
		<-time.After(time.Second)
		fail(500, "bob")
		check("bob", causedRate.Burst+16, 1000)
	})
}

// A bomb is a reply, or an error, whose own code panics.
type bomb struct{}

func (bomb) MarshalJSON() ([]byte, error) { panic("secret") }
func (bomb) Error() string                { panic("secret") }

// What goes wrong inside this agent is reported here; the peer learns that it did.
func TestFaultsStayHere(t *testing.T) {
	for typ, tt := range map[string]struct {
		handler     Handler
		reply, here string
	}{
		"panic_request":  {func(context.Context, *Message) (any, error) { panic("secret") }, "internal error", "secret"},
		"goexit_request": {func(context.Context, *Message) (any, error) { runtime.Goexit(); return nil, nil }, "internal error", "ended its goroutine"},
		"encode_request": {func(context.Context, *Message) (any, error) { return func() {}, nil }, "internal error: the reply cannot be encoded", "func()"},
		"large_request": {func(context.Context, *Message) (any, error) { return strings.Repeat("x", 20<<20), nil },
			"internal error: the reply is too large", "16777216"},
		"marshal_request": {func(context.Context, *Message) (any, error) { return bomb{}, nil }, "internal error", "secret"},
		"text_request":    {func(context.Context, *Message) (any, error) { return nil, bomb{} }, "internal error", "secret"},
		"own_request":     {func(context.Context, *Message) (any, error) { return nil, errors.New("on purpose") }, "on purpose", ""},
	} {
		t.Run(typ, func(t *testing.T) {
			var reports testutil.Record[error]
			var log testutil.LogBuffer
			_, f := newFakeAgent(t, Config{OnError: reports.Add, Logger: zerolog.New(&log), Handlers: map[string]Handler{typ: tt.handler}}, true)
			f.connect("bob")
			f.say(from("bob", `{"type":"`+typ+`","request_id":"1"}`))
			payload := f.heard()["payload"].(map[string]any)["message"].(map[string]any)["payload"].(map[string]any)
			if payload["error"] != tt.reply {
				t.Errorf("the peer is told %v, want %q", payload, tt.reply)
			}
			if tt.here == "" {
				return
			}
			all := reports.Wait(t, "the report", func(all []error) bool { return len(all) == 1 })
			var pe *PeerError
			if !errors.As(all[0], &pe) || pe.Op != "handle" && pe.Op != "reply" || pe.Peer != "bob" || pe.RequestID != "1" ||
				!strings.Contains(all[0].Error(), tt.here) || log.Count(tt.here) == 0 {
				t.Errorf("reported %v; the log:\n%s", all, &log)
			}
		})
	}
}

// A peer that makes a handler panic again and again does not fill the log.
func TestPanicsAreSampled(t *testing.T) {
	var log testutil.LogBuffer
	m, f := newFakeAgent(t, Config{Logger: zerolog.New(&log), Handlers: map[string]Handler{
		"n": func(context.Context, *Message) (any, error) { panic(strings.Repeat("x", 64<<10)) },
	}}, true)
	f.connect("bob")
	f.flood(1000, func(int) string { return from("bob", `{"type":"n"}`) })
	f.taken(m)
	testutil.Eventually(t, "the end of the messages", func() bool { p := m.peer("bob"); return p == nil || p.inbox.idle() })
	if n := len(log.String()); n > 2<<20 {
		t.Errorf("%d bytes are logged", n)
	}
}

// What one peer causes hides nothing of what another one does.
func TestLogIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testutil.LogBuffer
		_, f := newFakeAgent(t, Config{Logger: zerolog.New(&log), Handlers: map[string]Handler{
			"p_request": func(context.Context, *Message) (any, error) { panic("carol's doing") },
		}}, true)
		f.connect("bob", "carol")
		for range 1000 {
			f.say(from("bob", `{"type":"x_response","request_id":"1"}`))
		}
		f.say(from("carol", `{"type":"p_request","request_id":"1"}`))
		synctest.Wait()
		if log.Count(`"message":"handler panicked"`) != 1 {
			t.Errorf("a panic is not in the log:\n%s", &log)
		}
	})
}

// What an inbox is charged for is what it costs: never less, and not many times as much.
func TestRequestCost(t *testing.T) {
	for _, size := range []int{0, 1000, 20_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			const n = defaultMaxRequests
			var started testutil.Record[struct{}]
			m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
				"x_request": func(ctx context.Context, _ *Message) (any, error) {
					started.Add(struct{}{})
					<-ctx.Done()
					return nil, nil
				},
			}}, true)
			f.connect("bob")
			f.taken(m)
			before := memory()
			filler := strings.Repeat("x", size)
			f.flood(n, func(i int) string {
				return from("bob", fmt.Sprintf(`{"type":"x_request","request_id":"%d","payload":"%s"}`, i, filler))
			})
			started.Wait(t, "the handlers", func(all []struct{}) bool { return len(all) == n })
			real := memory() - before
			b := m.peer("bob").inbox
			b.mu.Lock()
			charged := int64(b.bytes + b.requests*requestCost)
			b.mu.Unlock()
			t.Logf("a request of %d bytes takes %d, charged are %d", size, real/n, charged/n)
			// What real lacks is memory that tests before this one have left, such as stacks, so it bounds one side only.
			if charged < real || charged > 2*int64(n*(size+requestCost)) {
				t.Errorf("charged are %d bytes for %d of memory", charged, real)
			}
			if limit := int64(inboxesFactor*inboxHigh + n*requestCost); charged > limit {
				t.Errorf("charged are %d bytes, the limit is %d", charged, limit)
			}
		})
	}
}

// A peer that asks and does not read the responses gets no more of them than fit into its queue, and nobody else waits.
func TestDeafPeer(t *testing.T) {
	testutil.SkipUnlessFull(t, "a peer that asks and does not read")
	s := newStage(t, "")
	ctx := bounded(t)
	var reports testutil.Record[error]
	join := func(id string) *Mesh {
		// So few requests run that the peer is asked to pause for none of them: this one would not, and then be read no more.
		limits := Limits{MaxRequests: 64, MaxMessage: 1 << 20}
		m, err := New(ctx, Config{SignalingURL: s.url, APIKey: id, OnError: reports.Add, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	alice := join("alice")
	join("carol")
	if err := alice.WaitPeer(ctx, "carol"); err != nil {
		t.Fatal(err)
	}
	mallory := hostile.Join(t, strings.TrimSuffix("http"+strings.TrimPrefix(s.url, "ws"), "/ws"), "mallory").Link("alice")
	mallory.SetReading(false)
	filler := strings.Repeat("i", 16_000)
	for i := range 1000 { // 64 are run, and the refusals of the others do not fit into queues of 3 and 4 MiB
		testutil.Eventually(t, "room", func() bool {
			return hostile.Say(mallory, fmt.Sprintf(`{"type":"ping","request_id":"%d %s"}`, i, filler))
		})
		if i%10 == 0 {
			if _, err := alice.Request(ctx, "carol", Message{Type: "ping"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	testutil.Eventually(t, "all to be read", func() bool { return mallory.Queued() == 0 })
	if len(reports.All()) == 0 {
		t.Error("all refusals wait for a peer that does not read")
	}
	for _, err := range reports.All() {
		if errors.Is(err, ErrCongested) || !errors.Is(err, errNotRefused) {
			t.Fatalf("reported %.300v", err)
		}
	}
}
