package mesh

import (
	"context"
	"runtime"
	"testing"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A handler that ends its goroutine, as t.Fatal in the handler of a test does, fails
// its request, and holds up no other work.
func TestHandlerGoexit(t *testing.T) {
	quit := func(context.Context, *Message) (any, error) {
		runtime.Goexit()
		return nil, nil
	}
	after := make(chan string, 2)
	_, f := newFakeAgent(t, Config{Handlers: map[string]Handler{
		"quit": quit,
		"after": func(_ context.Context, msg *Message) (any, error) {
			after <- msg.Type
			return nil, nil
		},
	}}, true)
	f.connect("bob")
	f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"quit"}}}`)
	f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"after"}}}`)
	testutil.Take(t, "the message behind it", after)
	f.say(`{"type":"message","payload":{"from_peer":"bob","message":{"type":"quit","request_id":"r1"}}}`)
	sent := f.heard()
	for sent["type"] != "send" {
		sent = f.heard()
	}
	payload, _ := sent["payload"].(map[string]any)
	message, _ := payload["message"].(map[string]any)
	if message["request_id"] != "r1" {
		t.Errorf("the response is %v", sent)
	}
}
