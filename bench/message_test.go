package main

import (
	"encoding/json"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestMessagesHaveTheirSize(t *testing.T) {
	for _, size := range []int{64, 200, 255, 256, 257, 300, 400, 64 << 10, 1 << 20} {
		msg, err := fullMessage(size, wire.MessageFields{Type: "bench"})
		if err != nil {
			t.Fatal(err)
		}
		if len(msg) != size || !json.Valid(msg) {
			t.Errorf("%d bytes instead of %d: %.100s", len(msg), size, msg)
		}
	}
	if _, err := fullMessage(10, wire.MessageFields{Type: "bench"}); err == nil {
		t.Error("a message of 10 bytes cannot be")
	}
}

func TestForwardersAgree(t *testing.T) {
	f := &forwarding{forwarder: &codecForwarder{}}
	if err := f.setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	codec, std := f.forwarder.(*codecForwarder), newJSONForwarder()
	if err := std.forward(f.line); err != nil {
		t.Fatal(err)
	}
	if string(codec.out) != std.out.String() {
		t.Errorf("codec %s\nencoding/json %s", codec.out, std.out.String())
	}
	line, msg, err := linkLine()
	if err != nil || len(line) != smallSize || !json.Valid(msg) {
		t.Errorf("link line of %d bytes: %v %s", len(line), err, line)
	}
}
