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
