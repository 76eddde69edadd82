package mesh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// noting returns an interceptor that notes what passes it, in both directions.
func noting(name string, log *testutil.Record[string]) Interceptor {
	return Interceptor{
		Send: func(next SendFunc) SendFunc {
			return func(ctx context.Context, peer string, msg Message) error {
				log.Add(fmt.Sprintf("%s sends %s to %q", name, msg.Type, peer))
				msg.Meta = map[string]string{"by": msg.Meta["by"] + name}
				return next(ctx, peer, msg)
			}
		},
		Call: func(next CallFunc) CallFunc {
			return func(ctx context.Context, peer string, msg Message) (*Message, error) {
				log.Add(name + " calls " + msg.Type)
				reply, err := next(ctx, peer, msg)
				log.Add(fmt.Sprintf("%s got a reply: %t", name, err == nil))
				return reply, err
			}
		},
		Stream: func(next StreamFunc) StreamFunc {
			return func(ctx context.Context, peer string, msg Message) iter.Seq2[*Message, error] {
				return func(yield func(*Message, error) bool) {
					log.Add(name + " begins " + msg.Type)
					for m, err := range next(ctx, peer, msg) {
						if err == nil {
							log.Add(name + " got " + m.Type)
						}
						if !yield(m, err) {
							break
						}
					}
					log.Add(name + " ends")
				}
			}
		},
		Handle: func(next Handler) Handler {
			return func(ctx context.Context, msg *Message) (any, error) {
				log.Add(name + " handles " + msg.Type)
				reply, err := next(ctx, msg)
				log.Add(name + " has handled " + msg.Type)
				return reply, err
			}
		},
	}
}

// The first interceptor is the outermost, at both ends.
func TestInterceptors(t *testing.T) {
	var log, notes testutil.Record[string]
	wrapped := func(cfg *Config) { cfg.Interceptors = []Interceptor{noting("one", &log), {}, noting("two", &log)} }
	s := newStage(t, "")
	bob := s.startAs(t, InProcess, "bob", Identity{}, func(cfg *Config) {
		wrapped(cfg)
		cfg.Handlers = map[string]Handler{"note": func(_ context.Context, msg *Message) (any, error) {
			notes.Add(msg.Meta["by"])
			return nil, nil
		}}
	})
	alice := s.startAs(t, InProcess, "alice", Identity{}, wrapped)
	bob.on(t, "late_request", Typed(func(context.Context, Peer, int) (int, error) { return 0, errors.New("no") }))
	bob.on(t, "count_request", TypedStream(counter))
	ctx := bounded(t)
	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { _ = alice.Send(ctx, "bob", Message{Type: "note"}) },
			`one sends note to "bob", two sends note to "bob", one handles note, two handles note, two has handled note, one has handled note`},
		{func() { _ = alice.Broadcast(ctx, Message{Type: "note"}) },
			`one sends note to "", two sends note to "", one handles note, two handles note, two has handled note, one has handled note`},
		{func() { _, _ = Call[int](ctx, alice.Mesh, "bob", "late_request", 1) },
			"one calls late_request, two calls late_request, one handles late_request, two handles late_request, " +
				"two has handled late_request, one has handled late_request, two got a reply: false, one got a reply: false"},
		{func() {
			for range CallStream[counted](ctx, alice.Mesh, "bob", "count_request", count{To: 1}) {
			}
		}, "one begins count_request, two begins count_request, one handles count_request, two handles count_request, " +
			`one sends count_stream_chunk to "alice", two sends count_stream_chunk to "alice", two has handled count_request, one has handled count_request, ` +
			"two got count_stream_chunk, one got count_stream_chunk, two got count_response, one got count_response, two ends, one ends"},
	} {
		from, want := log.Len(), strings.Split(step.want, ", ")
		step.do()
		got := slices.Clone(log.Wait(t, "the steps", func(l []string) bool { return len(l) >= from+len(want) })[from:])
		if want[0] == "one begins count_request" { // what both ends do at once has no order
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), strings.Join(want, ", "))
		}
	}
	if got := notes.All(); !slices.Equal(got, []string{"onetwo", "onetwo"}) {
		t.Errorf("notes by %q", got)
	}
}

// What an interceptor sets as a payload counts like one that has arrived, whatever its type is.
func TestInterceptorValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer *Message
		m, f := newFakeAgent(t, Config{
			Interceptors: []Interceptor{{
				Call: func(CallFunc) CallFunc {
					return func(context.Context, string, Message) (*Message, error) { return answer, nil }
				},
				Stream: func(StreamFunc) StreamFunc {
					return func(context.Context, string, Message) iter.Seq2[*Message, error] {
						return func(yield func(*Message, error) bool) {
							_ = yield(&Message{Type: "x_stream_chunk", Payload: counted{N: 1}}, nil) && yield(answer, nil)
						}
					}
				},
				Handle: func(next Handler) Handler {
					return func(ctx context.Context, msg *Message) (any, error) {
						msg.Payload = map[string]int{"to": 9}
						return next(ctx, msg)
					}
				},
			}},
			Handlers: map[string]Handler{"count_request": Typed(func(_ context.Context, _ Peer, req count) (int, error) { return req.To, nil })},
		}, true)
		call := func() (got, chunk, final counted, err error) {
			got, err = Call[counted](t.Context(), m, "bob", "count_request", nil)
			for c, failure := range CallStream[counted](t.Context(), m, "bob", "count_request", nil, Final(&final)) {
				if failure == nil {
					chunk = c
				}
				err = errors.Join(err, failure)
			}
			return got, chunk, final, err
		}
		if _, _, _, err := call(); !errors.Is(err, ErrInvalid) {
			t.Errorf("no response and no error: %v", err)
		}
		answer = &Message{Type: "x_response", Payload: counted{N: 7}}
		if got, chunk, final, err := call(); got.N != 7 || chunk.N != 1 || final.N != 7 || err != nil {
			t.Errorf("%v, %v, %v, %v", got, chunk, final, err)
		}
		f.connect("bob")
		f.say(from("bob", `{"type":"count_request","request_id":"1","payload":{"to":1}}`))
		payload := f.heard()["payload"].(map[string]any)
		if msg := payload["message"].(map[string]any); msg["payload"] != 9.0 {
			t.Errorf("the response is %v", msg)
		}
	})
}
