package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

type counted struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

type count struct {
	To   int    `json:"to" mesh:"required"`
	Size int    `json:"size,omitempty"`
	Text string `json:"text,omitempty"`
}

// counter counts up to a number, and says at the end how far it has come.
func counter(_ context.Context, _ Peer, req count, emit func(counted) error) (counted, error) {
	for i := range req.To {
		if err := emit(counted{i, strings.Repeat("x", req.Size)}); err != nil {
			return counted{}, err
		}
	}
	if req.Text != "" {
		return counted{}, errors.New(req.Text)
	}
	return counted{N: req.To}, nil
}

// testTyped: calls and handlers by types, responses at once and bit by bit.
func testTyped(t *testing.T, p *pair) {
	ctx := bounded(t)
	p.bob.on(t, "typed_request", Typed(func(_ context.Context, from Peer, req count) (counted, error) {
		return counted{req.To + 1, from.ID}, nil
	}))
	p.bob.on(t, "counted_request", TypedStream(counter))
	if got, err := Call[counted](ctx, p.alice.Mesh, "bob", "typed_request", count{To: 1}); err != nil || got != (counted{2, "alice"}) {
		t.Errorf("%+v, %v", got, err)
	}
	var remote *RemoteError
	for payload, want := range map[string]string{`{"to":1,"too":2}`: "payload.too", `{"to":"1"}`: "payload.to", `{}`: "payload.to"} {
		_, err := Call[counted](ctx, p.alice.Mesh, "bob", "typed_request", raw(payload))
		if !errors.Is(err, ErrInvalidArgument) || !errors.As(err, &remote) || string(remote.Details) != `{"field":"`+want+`"}` {
			t.Errorf("%s: %v", payload, err)
		}
	}
	if _, err := Call[int](ctx, p.alice.Mesh, "bob", "typed_request", count{To: 1}); !errors.Is(err, errBadResponse) {
		t.Errorf("a response that is no int: %v", err)
	}
	for _, n := range []int{0, 1, 1000} {
		var end counted
		i := 0
		for got, err := range CallStream[counted](ctx, p.alice.Mesh, "bob", "counted_request", count{To: n}, Final(&end)) {
			if err != nil || got.N != i {
				t.Fatalf("chunk %d is %+v, %v", i, got, err)
			}
			i++
		}
		if i != n || end.N != n {
			t.Errorf("%d chunks of %d, at the end %+v", i, n, end)
		}
	}
	// A plain request gets the response, and no chunk.
	if got, err := Call[counted](ctx, p.alice.Mesh, "bob", "counted_request", count{To: 100}); err != nil || got.N != 100 {
		t.Errorf("%+v, %v", got, err)
	}
	n := 0
	var failure error
	for _, err := range CallStream[counted](ctx, p.alice.Mesh, "bob", "counted_request", count{To: 3, Text: "out of fingers"}) {
		if failure = err; err == nil {
			n++
		}
	}
	if !errors.As(failure, &remote) || remote.Text != "out of fingers" || n != 3 {
		t.Errorf("%d chunks, and then %v", n, failure)
	}
	for _, err := range CallStream[counted](ctx, p.alice.Mesh, "bob", "unheard_of_request", nil) {
		if !errors.Is(err, ErrNoHandler) {
			t.Errorf("no handler: %v", err)
		}
	}
}

// testSlowLoop: a loop that is slow makes its peer wait, and no one else; leaving it ends the work.
func testSlowLoop(t *testing.T, p *pair) {
	const size = 64 << 10
	ended := make(chan error, 1)
	emitted := make(chan int, 1<<20)
	p.bob.on(t, "endless_request", TypedStream(func(ctx context.Context, from Peer, req count, emit func(counted) error) (counted, error) {
		for i := 0; ; i++ {
			if err := emit(counted{i, strings.Repeat("x", size)}); err != nil {
				ended <- errors.Join(err, context.Cause(ctx))
				return counted{}, err
			}
			emitted <- i
		}
	}))
	i, stopped := 0, 0
	for got, err := range CallStream[counted](t.Context(), p.alice.Mesh, "bob", "endless_request", count{}) {
		if err != nil || got.N != i {
			t.Fatalf("chunk %d: %+v, %v", i, got, err)
		}
		if i++; i == 1 {
			testutil.Eventually(t, "bob has to wait", func() bool { return p.bob.stopped("alice") >= wire.StopOrdered })
			if stopped = len(emitted); stopped > 64<<20/size {
				t.Errorf("he waits after %d chunks of %d bytes", stopped, size)
			}
			works(t, p.alice, p.bob)
			works(t, p.bob, p.alice)
		}
		if i > stopped+10 { // he goes on
			break
		}
	}
	if err := testutil.Take(t, "the end of bob's handler", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("it has ended with %v", err)
	}
	testutil.Eventually(t, "nothing is charged", func() bool {
		inbox := p.alice.peer("bob").inbox
		inbox.mu.Lock()
		defer inbox.mu.Unlock()
		return inbox.bytes == 0 && inbox.ordered == 0
	})
}

// Chunks that no call wants are for the handler of their type, if there is one, and never a response.
func TestChunksWithoutCallStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled testutil.Record[string]
		note := func(_ context.Context, msg *Message) (any, error) {
			handled.Add(msg.Type)
			return nil, nil
		}
		m, f := newFakeAgent(t, Config{Handlers: map[string]Handler{"x_stream_chunk": note, "": note}}, true)
		f.connect("bob")
		synctest.Wait()
		done := ask(t.Context(), m, "bob", Message{Type: "x_request"})
		id := f.request()
		f.chunk("bob", id, "1")
		f.say(from("bob", `{"type":"y_stream_chunk","request_id":"`+id+`"}`)) // which the handler of everything else does not get
		f.reply("bob", id)
		if got := <-done; got.err != nil || got.reply.Type != "x_response" {
			t.Errorf("%+v", got)
		}
		n := 0
		go func() {
			id := f.request()
			f.chunk("bob", id, `{"n":1}`)
			f.reply("bob", id)
		}()
		for _, err := range CallStream[counted](t.Context(), m, "bob", "x_request", nil) {
			if n++; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if got := handled.All(); n != 1 || len(got) != 1 || got[0] != "x_stream_chunk" {
			t.Errorf("%d chunks; handled: %q", n, got)
		}
	})
}

func raw(s string) any { return jsonText(s) }

type jsonText string

func (s jsonText) MarshalJSON() ([]byte, error) { return []byte(s), nil }

// A stream of replies ends in each of these ways, after what has come before.
func TestCallStreamEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		cause func(m *Mesh, f *fakeSidecar, id string)
		want  error
		after time.Duration
	}{
		"nothing more": {func(*Mesh, *fakeSidecar, string) {}, context.DeadlineExceeded, 30 * time.Second},
		"peer gone": {func(_ *Mesh, f *fakeSidecar, _ string) {
			f.say(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`)
		}, ErrPeerGone, 0},
		"sidecar gone":            {func(_ *Mesh, f *fakeSidecar, _ string) { f.hangUp() }, ErrSidecarLost, 0},
		"mesh closed":             {func(m *Mesh, _ *fakeSidecar, _ string) { m.Close() }, ErrClosed, 0},
		"a chunk of another type": {func(_ *Mesh, f *fakeSidecar, id string) { f.chunk("bob", id, `"x"`) }, errBadResponse, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newFakeAgent(t, Config{}, true)
				f.connect("bob")
				synctest.Wait()
				var id string
				go func() {
					id = f.request()
					time.Sleep(20 * time.Second) // each chunk may take so long
					f.chunk("bob", id, `{"n":0}`)
					f.chunk("carol", id, `{"n":7}`)
					time.Sleep(20 * time.Second)
					f.chunk("bob", id, `{"n":1}`)
					time.Sleep(0)
					tt.cause(m, f, id)
				}()
				var got []string
				began := time.Now()
				for c, err := range CallStream[counted](t.Context(), m, "bob", "x_request", nil) {
					if err == nil {
						got = append(got, fmt.Sprint(c.N))
					} else if !errors.Is(err, tt.want) || time.Since(began) != 40*time.Second+tt.after {
						t.Errorf("it ended with %v after %s", err, time.Since(began))
					}
				}
				if text := strings.Join(got, " "); text != "0 1" {
					t.Errorf("chunks %s", text)
				}
			})
		})
	}
}
