//go:build !js

package rtc

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Small frames leave in one slice, in order; none is cut.
func TestStreamSlices(t *testing.T) {
	p := &Peer{done: make(chan struct{}), out: &outbox{wake: make(chan struct{}, 1)}}
	c := &streamChannel{peer: p, taken: make(chan struct{}, 1), closed: make(chan struct{})}
	c.progress.L = &c.mu
	var want []byte
	for id := range uint32(3) {
		b := frame(frameData, 0, id, 1)
		want = append(want, b...)
		if n, err := c.Write(b); n != len(b) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	large := make([]byte, wire.SliceSize)
	if c.put(large) {
		t.Error("a slice is too long")
	}
	if got := takeAll(t, c); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !c.put(large) {
		t.Error("no room after a slice was taken")
	}
	if got := takeAll(t, c); !bytes.Equal(got, large) {
		t.Errorf("got %d bytes, want %d", len(got), len(large))
	}
	if some, err := c.take(nil); some || err != nil {
		t.Errorf("%t, %v", some, err)
	}
	close(c.closed)
	if _, err := c.Write(want); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func takeAll(t *testing.T, c *streamChannel) (b []byte) {
	t.Helper()
	some, err := c.take(func(slice []byte) error {
		b = bytes.Clone(slice)
		return nil
	})
	if !some || err != nil {
		t.Errorf("%t, %v", some, err)
	}
	return b
}
