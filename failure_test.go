package mesh

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// What reports a failure: a string error that is not empty, by whatever agent.
func TestFailure(t *testing.T) {
	long := strings.Repeat("x", maxCode+1)
	for payload, want := range map[string]RemoteError{
		``:                                    {},
		`null`:                                {},
		`"error"`:                             {},
		`{"error":""}`:                        {},
		`{"error":null}`:                      {},
		`{"error":{"code":"busy"}}`:           {},
		`{"result":{"error":"x"}}`:            {},
		`{"ERROR":"x"}`:                       {},
		`{"error":"x"}`:                       {Text: "x"},
		`{"\u0065rror":"x"}`:                  {Text: "x"},
		`{"error":"busy"}`:                    {Text: "busy", Code: CodeBusy},
		`{"error":"busy","code":"own"}`:       {Text: "busy", Code: "own"},
		`{"error":"x","code":404}`:            {Text: "x"},
		`{"error":"x","code":"` + long + `"}`: {Text: "x"},
		`{"code":"no_handler","details":[1],"error":"x"}`: {Text: "x", Code: CodeNoHandler, Details: json.RawMessage(`[1]`)},
	} {
		msg := &Message{}
		if payload != "" {
			msg.Payload = json.RawMessage(payload)
		}
		err := msg.failure()
		if (err != nil) != (want.Text != "") {
			t.Errorf("%s: %v", payload, err)
			continue
		}
		var got *RemoteError
		if errors.As(err, &got) && (got.Text != want.Text || got.Code != want.Code || string(got.Details) != string(want.Details) || got.Reply != msg) {
			t.Errorf("%s: %+v", payload, got)
		}
	}
}
