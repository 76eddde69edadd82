package mesh

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Many callers at once cannot overflow a queue: what was accepted arrives. The
// message limit is small here, so the queues are, and the callers send several times
// what fits into them.
func TestManyCallers(t *testing.T) {
	const callers, size = 12, 1 << 20
	payload := json.RawMessage(`"` + strings.Repeat("x", size-200) + `"`)
	for _, mode := range modesHere()[:min(2, len(modesHere()))] {
		t.Run(mode.String(), func(t *testing.T) {
			if mode != InProcess {
				testutil.SkipUnlessFull(t, "many callers with a forked sidecar")
			}
			s := newStage(t, "")
			ctx := t.Context() // how long it takes is the machine's business
			var got testutil.Record[struct{}]
			join := func(id string) *Mesh {
				m, err := New(ctx, Config{
					Mode: mode, SignalingURL: s.url, APIKey: id, Limits: Limits{MaxMessage: size}, RequestTimeout: time.Hour,
					OnError: func(err error) { t.Errorf("%s: %v", id, err) },
					Handlers: map[string]Handler{
						"note": func(context.Context, *Message) (any, error) {
							got.Add(struct{}{})
							return nil, nil
						},
						"big_request": func(context.Context, *Message) (any, error) { return payload, nil },
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := m.Close(); err != nil {
						t.Error(err)
					}
				})
				return m
			}
			alice := join("alice")
			join("bob")
			if err := alice.WaitPeer(ctx, "bob"); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					if err := alice.Send(ctx, "bob", Message{Type: "note", Payload: payload}); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() {
					if err := alice.Broadcast(ctx, Message{Type: "note", Payload: payload}); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() {
					if _, err := alice.Request(ctx, "bob", Message{Type: "big_request"}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			got.Wait(t, "all messages", func(all []struct{}) bool { return len(all) == 2*callers })
		})
	}
}
