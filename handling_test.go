package mesh

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The work on a request ends when its asker no longer waits, whether a cancel comes or not.
func TestDeadlineTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		_, f := newFakeAgent(t, Config{Handlers: map[string]Handler{"x_request": func(ctx context.Context, _ *Message) (any, error) {
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return "too late", nil
		}}}, true)
		f.connect("bob")
		began := time.Now()
		f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"x_request","request_id":"r1","timeout_ms":5000}}}`)
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("ended with %v after %s", err, time.Since(began))
		}
		f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"ping","request_id":"r2"}}}`)
		if line := f.heard(); line["payload"].(map[string]any)["message"].(map[string]any)["request_id"] != "r2" {
			t.Errorf("the agent wrote %v", line)
		}
	})
}

// A request says how long its asker waits.
func TestRequestTellsItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{RequestTimeout: 7 * time.Second}, true)
		f.connect("bob")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Microsecond)
		defer cancel()
		for _, tt := range []struct {
			ctx  context.Context
			want float64
		}{{t.Context(), 7000}, {ctx, 2}} {
			done := ask(tt.ctx, m, "bob", Message{Type: "x_request"})
			message := f.heard()["payload"].(map[string]any)["message"].(map[string]any)
			if message["timeout_ms"] != tt.want {
				t.Errorf("the request is %v, want a timeout of %v ms", message, tt.want)
			}
			f.reply("bob", message["request_id"].(string))
			<-done
		}
	})
}

// A handler is run by a reader after it was quick some times, one request at a time, and not again for long after it was slow.
func TestQuickness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quickness
		requests := func(n int, took time.Duration) {
			for range n {
				began := time.Now()
				<-time.After(took)
				q.measure(began)
			}
		}
		may := func(want bool, when string) {
			t.Helper()
			got := q.begin()
			if got != want {
				t.Errorf("%s: %t", when, got)
			}
			if got {
				if q.begin() {
					t.Errorf("%s: twice at a time", when)
				}
				q.end()
			}
		}
		may(false, "at first")
		requests(quickEnough, quickHandler)
		may(true, "after quick ones")
		requests(quickMost, quickHandler)
		requests(1, 2*quickHandler)
		may(true, "after one that took a bit longer")
		requests(2, 2*quickHandler)
		may(false, "after several of those")
		requests(quickMost, quickHandler)
		requests(1, 2*slowHandler)
		requests(60, quickHandler)
		may(false, "after a slow one and 60 quick ones")
		requests(20, quickHandler)
		may(true, "after 20 more")
	})
}
