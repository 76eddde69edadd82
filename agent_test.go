package mesh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A fakeSidecar is the far end of the link, under the test's control, so that a
// test can say exactly what the agent does at which moment. With synctest its
// clock is the test's, too.
type fakeSidecar struct {
	t       *testing.T
	lines   chan string   // what the agent wrote, but for hello and list_peers
	started chan struct{} // one for each start

	mu                 sync.Mutex
	conn               net.Conn
	undrained, lingers bool
	pings              bool               // pings are lines for the test
	drains             func(*fakeSidecar) // in place of drained
	failure            error              // of the next starts
	withReady          string             // lines, each behind a line's end
}

// newFakeAgent returns a mesh whose sidecar is the test. An extended sidecar
// responds to hello.
func newFakeAgent(t *testing.T, cfg Config, extended bool) (*Mesh, *fakeSidecar) {
	t.Helper()
	return newFakeAgentWith(t, cfg, extended, liveness{})
}

func newFakeAgentWith(t *testing.T, cfg Config, extended bool, l liveness) (*Mesh, *fakeSidecar) {
	t.Helper()
	f := &fakeSidecar{t: t, lines: make(chan string, 4096), started: make(chan struct{}, 16), pings: l.ticks > 0}
	cfg.SignalingURL = "ws://127.0.0.1:1/ws"
	m, err := newMesh(t.Context(), cfg, func(context.Context, *Config, sidecar.Settings) (*launched, error) {
		agent, side := net.Pipe()
		f.mu.Lock()
		err := f.failure
		f.conn = side
		f.mu.Unlock()
		if err != nil {
			return nil, err
		}
		done := make(chan struct{})
		go f.serve(side, extended, done)
		f.started <- struct{}{}
		return &launched{
			link: link.New(agent, nil, wire.Limits{}), path: "fake", liveness: l,
			stop: func(ctx context.Context) {
				if f.is(&f.lingers) {
					<-ctx.Done()
				}
				side.Close()
				<-done
			},
			diagnose: func() error { return nil },
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil && !errors.Is(err, ErrUnsent) {
			t.Error(err)
		}
	})
	return m, f
}

func (f *fakeSidecar) serve(conn net.Conn, extended bool, done chan struct{}) {
	defer close(done)
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch {
		case strings.Contains(line, `"type":"hello"`):
			if extended {
				f.say(`{"type":"ready","payload":{"protocol":1,"features":["error","flow","cancel","drain","ping","stats","cards"],"max_message":16777216}}` + f.more())
			}
		case strings.Contains(line, `"type":"list_peers"`):
			f.say(`{"type":"peer_list","payload":{"peers":[]}}`)
		case strings.Contains(line, `"type":"drain"`):
			f.mu.Lock()
			drains := f.drains
			f.mu.Unlock()
			switch {
			case drains != nil:
				drains(f)
			case !f.is(&f.undrained):
				f.say(`{"type":"drained","payload":{}}`)
			}
		case strings.HasPrefix(line, `{"type":"ping","payload":{}`) && !f.is(&f.pings):
			f.say(`{"type":"pong","payload":{}}`)
		default:
			f.lines <- strings.TrimSuffix(line, "\n")
		}
	}
}

// obstruct keeps the sidecar from responding to drain, and from ending by itself.
func (f *fakeSidecar) obstruct(undrained, lingers bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.undrained, f.lingers = undrained, lingers
}

// onDrain sets what the sidecar does when it is to drain.
func (f *fakeSidecar) onDrain(do func(*fakeSidecar)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drains = do
}

// is reads a field.
func (f *fakeSidecar) is(field *bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *field
}

// say writes a line to the agent.
func (f *fakeSidecar) say(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// The agent may have hung up; the test sees that where it matters.
	_, _ = io.WriteString(f.conn, line+"\n")
}

// fail makes every start from now on fail.
func (f *fakeSidecar) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
}

// sayWithReady has the next sidecars say a line in one breath with ready.
func (f *fakeSidecar) sayWithReady(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.withReady += "\n" + line
}

func (f *fakeSidecar) more() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.withReady
}

// hangUp ends the connection, as a sidecar that crashes does.
func (f *fakeSidecar) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.Close()
}

// heard returns the next line that the agent wrote.
func (f *fakeSidecar) heard() map[string]any {
	f.t.Helper()
	line := testutil.Take(f.t, "a line of the agent", f.lines)
	var v map[string]any
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		f.t.Fatalf("the agent wrote %q: %v", line, err)
	}
	return v
}

// request returns the id of the request that the agent has just sent.
func (f *fakeSidecar) request() string {
	f.t.Helper()
	line := f.heard()
	payload, _ := line["payload"].(map[string]any)
	msg, _ := payload["message"].(map[string]any)
	id, _ := msg["request_id"].(string)
	if line["type"] != "send" || id == "" {
		f.t.Fatalf("want a request, the agent wrote %v", line)
	}
	return id
}

func (f *fakeSidecar) reply(from, id string) {
	f.say(`{"type":"message","payload":{"from_peer":"` + from + `","message":{"type":"x_response","request_id":"` + id + `","payload":{"ok":true}}}}`)
}

func (f *fakeSidecar) chunk(from, id, payload string) {
	f.say(`{"type":"message","payload":{"from_peer":"` + from + `","message":{"type":"x_stream_chunk","request_id":"` + id + `","payload":` + payload + `}}}`)
}

func (f *fakeSidecar) connect(peers ...string) {
	for _, p := range peers {
		f.say(`{"type":"peer_connected","payload":{"peer_id":"` + p + `"}}`)
	}
}

type outcome struct {
	reply *Message
	err   error
}

// ask runs a Request beside the test.
func ask(ctx context.Context, m *Mesh, peer string, msg Message) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		reply, err := m.Request(ctx, peer, msg)
		c <- outcome{reply, err}
	}()
	return c
}

// A pending request ends in each of these ways, at that moment and for that reason.
func TestRequestEnds(t *testing.T) {
	request := Message{Type: "x_request"}
	for _, tt := range []struct {
		name  string
		cause func(m *Mesh, f *fakeSidecar, id string, cancel context.CancelFunc)
		want  error // nil: a reply
		after time.Duration
	}{
		{"response", func(_ *Mesh, f *fakeSidecar, id string, _ context.CancelFunc) { f.reply("bob", id) }, nil, 0},
		{"default timeout", func(*Mesh, *fakeSidecar, string, context.CancelFunc) {}, context.DeadlineExceeded, 30 * time.Second},
		{"cancelled", func(_ *Mesh, _ *fakeSidecar, _ string, cancel context.CancelFunc) { cancel() }, context.Canceled, 0},
		{"peer gone", func(_ *Mesh, f *fakeSidecar, _ string, _ context.CancelFunc) {
			f.say(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`)
		}, ErrPeerGone, 0},
		{"sidecar gone", func(_ *Mesh, f *fakeSidecar, _ string, _ context.CancelFunc) { f.hangUp() }, ErrSidecarLost, 0},
		{"mesh closed", func(m *Mesh, _ *fakeSidecar, _ string, _ context.CancelFunc) { m.Close() }, ErrClosed, 0},
		{"send failed", func(_ *Mesh, f *fakeSidecar, id string, _ context.CancelFunc) {
			f.say(`{"type":"error","payload":{"code":"peer_not_connected","message":"no","command":"send","target_peer":"bob","request_id":"` + id + `"}}`)
		}, ErrNotConnected, 0},
		{"reply from the wrong peer", func(_ *Mesh, f *fakeSidecar, id string, _ context.CancelFunc) { f.reply("carol", id) }, context.DeadlineExceeded, 30 * time.Second},
		{"reply to another request", func(_ *Mesh, f *fakeSidecar, _ string, _ context.CancelFunc) { f.reply("bob", "other") }, context.DeadlineExceeded, 30 * time.Second},
		{"a request with our id is no response", func(_ *Mesh, f *fakeSidecar, id string, _ context.CancelFunc) {
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"y_request","request_id":"` + id + `"}}}`)
		}, context.DeadlineExceeded, 30 * time.Second},
		{"chunks precede the response", func(_ *Mesh, f *fakeSidecar, id string, _ context.CancelFunc) {
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_stream_chunk","request_id":"` + id + `"}}}`)
			f.reply("bob", id)
		}, nil, 0},
		{"an error in the payload", func(_ *Mesh, f *fakeSidecar, id string, _ context.CancelFunc) {
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_response","request_id":"` + id + `","payload":{"result":null,"error":"busy"}}}}`)
		}, ErrBusy, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newFakeAgent(t, Config{}, true)
				f.connect("bob", "carol")
				synctest.Wait()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				done := ask(ctx, m, "bob", request)
				id := f.request()
				tt.cause(m, f, id, cancel)
				got := <-done
				if tt.want == nil {
					if got.err != nil || got.reply.Type != "x_response" || got.reply.From != "bob" {
						t.Fatalf("got %+v, %v", got.reply, got.err)
					}
				} else if !errors.Is(got.err, tt.want) {
					t.Fatalf("got %v, want %v", got.err, tt.want)
				}
				var pe *PeerError
				if got.err != nil && (!errors.As(got.err, &pe) || pe.Peer != "bob" || pe.RequestID == "") {
					t.Errorf("%v names neither peer nor request", got.err)
				}
				if d := time.Since(began); d != tt.after {
					t.Errorf("it ended after %v, want %v", d, tt.after)
				}
				cancel()
				if _, err := m.Request(ctx, "bob", Message{Type: "x_request", RequestID: id}); errors.Is(err, ErrDuplicateRequest) {
					t.Error("the request is still pending")
				}
			})
		})
	}
}

// A caller that gives up tells the peer, which can stop its work.
func TestCancelIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		f.connect("bob")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		done := ask(ctx, m, "bob", Message{Type: "x_request"})
		id := f.request()
		cancel()
		<-done
		line := f.heard()
		payload := line["payload"].(map[string]any)
		if line["type"] != "cancel" || payload["target_peer"] != "bob" || payload["request_id"] != id {
			t.Errorf("got %v", line)
		}
	})
}

// A response counts only from the peer that was asked.
func TestResponseFromAnotherPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan error, 1)
		m, f := newFakeAgent(t, Config{OnError: func(err error) { reported <- err }}, true)
		f.connect("bob")
		f.connect("carol")
		synctest.Wait()
		done := ask(t.Context(), m, "bob", Message{Type: "x_request"})
		id := f.request()
		f.reply("carol", id)
		if err := <-reported; !errors.Is(err, errUnexpectedResponse) {
			t.Errorf("reported %v", err)
		}
		f.reply("bob", id)
		if got := <-done; got.err != nil || got.reply.From != "bob" {
			t.Errorf("got %+v", got)
		}
	})
}

// A late reply is reported and gets no response: two agents that respond to each
// other's errors would never stop.
func TestLateReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan error, 1)
		m, f := newFakeAgent(t, Config{OnError: func(err error) { reported <- err }}, true)
		f.connect("bob")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := ask(ctx, m, "bob", Message{Type: "x_request"})
		id := f.request()
		if got := <-done; !errors.Is(got.err, context.DeadlineExceeded) {
			t.Fatal(got.err)
		}
		f.heard() // cancel
		f.reply("bob", id)
		if err := <-reported; !errors.Is(err, errUnexpectedResponse) {
			t.Errorf("reported %v", err)
		}
		synctest.Wait()
		if len(f.lines) != 0 {
			t.Errorf("the agent responded: %s", <-f.lines)
		}
	})
}

func TestDuplicateRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		f.connect("bob", "carol")
		synctest.Wait()
		msg := Message{Type: "x_request", RequestID: "same"}
		first := ask(t.Context(), m, "bob", msg)
		f.request()
		if _, err := m.Request(t.Context(), "bob", msg); !errors.Is(err, ErrDuplicateRequest) {
			t.Errorf("second request with the id to that peer: %v", err)
		}
		other := ask(t.Context(), m, "carol", msg) // another peer, another request
		f.request()
		f.reply("carol", "same")
		if got := <-other; got.err != nil || got.reply.From != "carol" {
			t.Errorf("got %+v", got)
		}
		f.reply("bob", "same")
		if got := <-first; got.err != nil || got.reply.From != "bob" {
			t.Errorf("got %+v", got)
		}
	})
}

// A handler may send a request to the peer that it works for without blocking
// itself, whether it handles a request or a message.
func TestHandlerRequests(t *testing.T) {
	for _, kind := range []string{`"type":"a_request","request_id":"1"`, `"type":"a"`} {
		synctest.Test(t, func(t *testing.T) {
			var m *Mesh
			ready := make(chan struct{})
			ended := make(chan error, 1)
			back := func(ctx context.Context, msg *Message) (any, error) {
				<-ready
				_, err := m.Request(ctx, msg.From, Message{Type: "b_request"})
				ended <- err
				return "done", err
			}
			m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{"a_request": back, "a": back}}, true)
			f.connect("bob")
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{` + kind + `}}}`)
			close(ready)
			f.reply("bob", f.request())
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// A base-only sidecar is recognised by its response, and is sent base types only.
func TestBaseOnlySidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, false)
		f.connect("bob")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		done := ask(ctx, m, "bob", Message{Type: "x_request"})
		f.request()
		cancel()
		<-done
		synctest.Wait()
		if len(f.lines) != 0 {
			t.Errorf("a base-only sidecar was sent %s", <-f.lines)
		}
	})
}

// A paused peer holds up new work, not replies and not other peers; with "all" it
// holds up replies, too.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
			"x_request": func(context.Context, *Message) (any, error) { <-release; return nil, nil },
		}}, true)
		f.connect("bob", "carol")
		f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"1"}}}`)
		f.say(`{"type":"pause","payload":{"peer_id":"bob"}}`)
		synctest.Wait()
		sent := make(chan error, 1)
		go func() { sent <- m.Send(t.Context(), "bob", Message{Type: "n"}) }()
		synctest.Wait()
		if len(f.lines) != 0 {
			t.Fatalf("sent to a paused peer: %s", <-f.lines)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Send(short, "bob", Message{Type: "n"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send to a paused peer: %v", err)
		}
		if err := m.Send(t.Context(), "carol", Message{Type: "n"}); err != nil {
			t.Errorf("Send to another peer: %v", err)
		}
		f.heard()
		close(release)
		if got := f.heard()["payload"].(map[string]any); got["target_peer"] != "bob" {
			t.Errorf("the reply did not pass: %v", got)
		}
		f.say(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`)
		f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"2"}}}`)
		synctest.Wait()
		if len(f.lines) != 0 {
			t.Errorf("a reply passed a full queue: %s", <-f.lines)
		}
		f.say(`{"type":"resume","payload":{"peer_id":"bob"}}`)
		f.heard()
		f.heard() // the reply and the message, in either order
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// Broadcast serves the peers that keep up at once, and names those that it
// could not reach.
func TestBroadcastPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		if err := m.Broadcast(t.Context(), Message{Type: "n"}); err != nil {
			t.Errorf("with no peers: %v", err)
		}
		f.connect("bob", "carol", "dave")
		f.say(`{"type":"pause","payload":{"peer_id":"carol"}}`)
		f.say(`{"type":"pause","payload":{"peer_id":"dave"}}`)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- m.Broadcast(ctx, Message{Type: "n"}) }()
		line := f.heard()
		except, _ := line["payload"].(map[string]any)["except"].([]any)
		if line["type"] != "broadcast" || len(except) != 2 {
			t.Errorf("got %v", line)
		}
		f.say(`{"type":"resume","payload":{"peer_id":"dave"}}`)
		if line := f.heard(); line["type"] != "send" || line["payload"].(map[string]any)["target_peer"] != "dave" {
			t.Errorf("got %v", line)
		}
		var be *BroadcastError
		if err := <-done; !errors.As(err, &be) || len(be.Failed) != 1 || be.Failed[0].Peer != "carol" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// One-way messages of a peer are handled one at a time and in order; requests
// beyond the limit are refused, not queued.
func TestHandlerOrderAndLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		block := make(chan struct{})
		m, f := newFakeAgent(t, Config{Limits: Limits{MaxRequests: 2}, Handlers: map[string]Handler{
			"n": func(_ context.Context, msg *Message) (any, error) {
				var s string
				err := msg.Decode(&s)
				got = append(got, s) // -race shows it if two ran at once
				return nil, err
			},
			"x_request": func(context.Context, *Message) (any, error) { <-block; return nil, nil },
		}}, true)
		_ = m
		f.connect("bob")
		for _, s := range []string{"1", "2", "3"} {
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"` + s + `"}}}`)
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"n","payload":"` + s + `"}}}`)
		}
		synctest.Wait()
		if strings.Join(got, "") != "123" {
			t.Errorf("handled %v", got)
		}
		refused := f.heard()["payload"].(map[string]any)["message"].(map[string]any)
		if refused["request_id"] != "3" || refused["payload"].(map[string]any)["error"] != "busy" {
			t.Errorf("got %v", refused)
		}
		close(block)
		f.heard()
		f.heard()
	})
}

// A reply that waits counts towards the limit. While it waits a request over the limit is
// dropped: the peer does not read its responses.
func TestLimitOfReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports testutil.Record[error]
		_, f := newFakeAgent(t, Config{OnError: reports.Add, Limits: Limits{MaxRequests: 1}, Handlers: map[string]Handler{
			"x_request": func(context.Context, *Message) (any, error) { return "done", nil },
		}}, true)
		f.connect("bob")
		request := func(id string) {
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"` + id + `"}}}`)
			synctest.Wait()
		}
		said := func(id string, payload any) {
			t.Helper()
			m := f.heard()["payload"].(map[string]any)["message"].(map[string]any)
			if m["request_id"] != id || !reflect.DeepEqual(m["payload"], payload) {
				t.Errorf("got %v, want %v to %s", m, payload, id)
			}
		}
		f.say(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`)
		request("1")
		request("2")
		if all := reports.All(); len(all) != 1 || !errors.Is(all[0], errNotRefused) {
			t.Errorf("reported %v", all)
		}
		f.say(`{"type":"resume","payload":{"peer_id":"bob"}}`)
		said("1", "done")
		request("3")
		said("3", "done")

		f.say(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`)
		request("4")
		request("5")
		f.say(`{"type":"cancel","payload":{"from_peer":"bob","request_id":"4"}}`)
		f.say(`{"type":"resume","payload":{"peer_id":"bob"}}`)
		synctest.Wait()
		request("6")
		said("6", "done")
		if n := reports.Len(); n != 2 {
			t.Errorf("%d reports", n)
		}
	})
}

// A peer that has its response may send the next request at once, under the same id
// and with a limit of one request: here before the handler's goroutine continues,
// since in memory that goroutine hands the reply over.
func TestRequestAtOnce(t *testing.T) {
	const request = `{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"same"}}}`
	const rounds = 3
	got := make(chan string, 2*rounds)
	var stop sync.WaitGroup
	m, err := newMesh(t.Context(), Config{
		Limits: Limits{MaxRequests: 1}, SignalingURL: "ws://127.0.0.1:1/ws", OnError: func(err error) { got <- err.Error() },
		Handlers: map[string]Handler{"x_request": func(context.Context, *Message) (any, error) { return nil, nil }},
	}, func(context.Context, *Config, sidecar.Settings) (*launched, error) {
		agent, side := link.Pipe()
		say := func(lines ...string) {
			_ = side.WriteNow(nil, func(b []byte) []byte { return append(b, strings.Join(lines, "\n")+"\n"...) })
		}
		replies := 0
		stop.Go(side.Run)
		stop.Go(func() {
			side.Serve(func(line []byte, err error) bool {
				switch {
				case err != nil:
					return false
				case bytes.Contains(line, []byte(`"type":"hello"`)):
					say(`{"type":"ready","payload":{"protocol":1,"features":["error","drain"],"max_message":16777216}}`,
						`{"type":"peer_connected","payload":{"peer_id":"bob"}}`, request)
				case bytes.Contains(line, []byte(`"type":"drain"`)):
					say(`{"type":"drained","payload":{}}`)
				case bytes.Contains(line, []byte(`"type":"send"`)):
					got <- string(line)
					if replies++; replies < rounds {
						say(request)
					}
				}
				return true
			})
		})
		return &launched{
			link: agent, path: "fake", diagnose: func() error { return nil },
			stop: func(context.Context) { side.Close(); stop.Wait() },
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		if text := testutil.Take(t, "the response", got); !strings.Contains(text, "x_response") {
			t.Error(text)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// A reply that was held back while its link ended is not sent on the next one, where
// it could pass for the response to another request.
func TestReplyOfLastLink(t *testing.T) {
	const request = `{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"same"}}}`
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		_, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
			"x_request": func(context.Context, *Message) (any, error) { return runs.Add(1), nil },
		}}, true)
		f.connect("bob")
		f.say(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`)
		f.say(request)
		synctest.Wait()
		f.say(strings.Join([]string{
			`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`, `{"type":"peer_connected","payload":{"peer_id":"bob"}}`, request,
		}, "\n"))
		if m := f.heard()["payload"].(map[string]any)["message"].(map[string]any); m["payload"] != 2.0 {
			t.Errorf("got %v, want the second reply", m)
		}
		synctest.Wait()
		if n := len(f.lines); n != 0 {
			t.Errorf("%d more lines", n)
		}
	})
}

// A request under the id of one that is still being handled is dropped. The id
// is free once the peer no longer waits for the response.
func TestRequestIDAgain(t *testing.T) {
	const request = `{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"same"}}}`
	for _, c := range []struct {
		name   string
		before []string
		runs   int32
	}{
		{"running", nil, 1},
		{"cancelled", []string{`{"type":"cancel","payload":{"from_peer":"bob","request_id":"same"}}`}, 2},
		{"new link", []string{`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`, `{"type":"peer_connected","payload":{"peer_id":"bob"}}`}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var runs atomic.Int32
				var reported error
				first, second := make(chan struct{}), make(chan struct{})
				_, f := newFakeAgent(t, Config{OnError: func(err error) { reported = err }, Handlers: map[string]Handler{
					"x_request": func(context.Context, *Message) (any, error) {
						if runs.Add(1) == 1 {
							<-first
						} else {
							<-second
						}
						return nil, nil
					},
				}}, true)
				f.connect("bob")
				f.say(request)
				for _, line := range c.before {
					f.say(line)
				}
				synctest.Wait()
				f.say(request)
				synctest.Wait()
				if n := runs.Load(); n != c.runs || (n == 1) != errors.Is(reported, errDuplicateRun) {
					t.Errorf("the handler ran %d times, want %d; reported: %v", n, c.runs, reported)
				}
				close(first)
				synctest.Wait()
				f.say(request) // runs now, if the last one has not; else that one is running
				synctest.Wait()
				if n := runs.Load(); n != 2 || !errors.Is(reported, errDuplicateRun) {
					t.Errorf("the handler ran %d times, want 2; reported: %v", n, reported)
				}
				close(second)
			})
		})
	}
}

// A slow handler makes the sidecar pause that peer, and its end resumes it.
func TestInboxPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		_, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
			"n": func(context.Context, *Message) (any, error) { <-block; return nil, nil },
		}}, true)
		f.connect("bob")
		big := strings.Repeat("x", 1<<20)
		for range inboxHigh>>20 + 1 {
			f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"n","payload":"` + big + `"}}}`)
		}
		if line := f.heard(); line["type"] != "pause" || line["payload"].(map[string]any)["peer_id"] != "bob" {
			t.Errorf("got %v", line)
		}
		close(block)
		if line := f.heard(); line["type"] != "resume" {
			t.Errorf("got %v", line)
		}
	})
}

// The sidecar's end takes the peers with it; the next one brings them back.
func TestSidecarRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan PeerEvent, 8)
		m, f := newFakeAgent(t, Config{OnPeer: func(e PeerEvent) { events <- e }}, true)
		f.connect("bob")
		if e := <-events; !e.Connected || e.Peer.ID != "bob" {
			t.Fatalf("got %+v", e)
		}
		f.hangUp()
		if e := <-events; e.Connected || !errors.Is(e.Err, ErrSidecarLost) {
			t.Fatalf("got %+v", e)
		}
		<-f.started
		<-f.started // the second one
		f.connect("bob")
		if e := <-events; !e.Connected {
			t.Fatalf("got %+v", e)
		}
		if err := m.Send(t.Context(), "bob", Message{Type: "n"}); err != nil {
			t.Fatal(err)
		}
		f.heard()
	})
}

// What a handler waits for fails because its context has ended, not with an error about the peer that it asks.
func TestHandlerContextCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		_, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
			"x_request": func(ctx context.Context, msg *Message) (any, error) {
				_, err := msg.Mesh().Request(ctx, "carol", Message{Type: "y_request"})
				ended <- err
				return nil, err
			},
		}}, true)
		f.connect("bob", "carol")
		f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"1"}}}`)
		f.heard() // the request to carol
		f.say(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`)
		if err := <-ended; !errors.Is(err, context.Canceled) || errors.Is(err, ErrPeerGone) {
			t.Errorf("got %v", err)
		}
	})
}
