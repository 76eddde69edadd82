//go:build !js

package rtc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// failedEvents are Events that keep what ConnectFailed says.
type failedEvents struct {
	Events
	err *wire.Error
}

func (e *failedEvents) ConnectFailed(_ string, err *wire.Error) { e.err = err }
func (e *failedEvents) Fault(error)                             {}

// Each reason for which Connect does not even try has a text of its own.
func TestConnectErrors(t *testing.T) {
	ev := &failedEvents{}
	n := &Node{ev: ev, self: "me", slots: make(map[string]*slot)}
	for i := range maxSlots {
		n.slots[fmt.Sprint("peer", i)] = &slot{}
	}
	for _, tt := range []struct {
		id   string
		code wire.Code
		want string
	}{
		{"", wire.CodeInvalidField, `peer "": the id is empty`},
		{"me", wire.CodeInvalidField, `peer "me": it is this agent itself`},
		{strings.Repeat("x", 1000), wire.CodeInvalidField, "the id has 1000 bytes, the limit is 256"},
		{"one more", wire.CodePeerUnavailable, `peer "one more": 4096 other peers are linked or being linked, which is the limit`},
	} {
		n.connect(tt.id)
		if ev.err == nil || ev.err.Code != tt.code || !strings.Contains(ev.err.Text, tt.want) || len(ev.err.Text) > 500 {
			t.Errorf("Connect(%.10q): %v, want %s: %s", tt.id, ev.err, tt.code, tt.want)
		}
	}
	n.ending = true
	if n.connect("a"); ev.err.Code != wire.CodePeerUnavailable || ev.err.Text != `peer "a": closed by us` {
		t.Errorf("when closing: %v", ev.err)
	}
}
