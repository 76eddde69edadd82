package wire

import (
	"slices"
	"testing"
)

func TestConventions(t *testing.T) {
	for typ, want := range map[string]struct {
		response string
		can      bool // be a response
		wants    bool // a response, with a request id
	}{
		"ping":           {"pong", false, true},
		"pong":           {"pong_response", true, false},
		"x_request":      {"x_response", false, true},
		"x_query":        {"x_response", false, true},
		"x_prompt":       {"x_response", false, true},
		"x_response":     {"x_response_response", true, false},
		"x_stream_chunk": {"x_stream_chunk_response", false, false},
		"x":              {"x_response", true, true},
		"_request":       {"_response", false, true},
		"request":        {"request_response", true, true},
		"x_request_y":    {"x_request_y_response", true, true},
	} {
		if got := ResponseType(typ); got != want.response {
			t.Errorf("the response to %s is %s, want %s", typ, got, want.response)
		}
		if got := CanRespond(typ); got != want.can {
			t.Errorf("%s can be a response: %t", typ, got)
		}
		if got := WantsResponse(typ, "1"); got != want.wants {
			t.Errorf("%s wants a response: %t", typ, got)
		}
		if WantsResponse(typ, "") {
			t.Errorf("%s wants a response without a request id", typ)
		}
	}
}

// Each caller has a list of its own.
func TestFeatures(t *testing.T) {
	want := []string{"error", "flow", "cancel", "drain", "identity", "ping", "streams", "stats", "cards"}
	for range 2 {
		got := Features()
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		got[0] = "changed"
	}
}
