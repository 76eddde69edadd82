package sidecar

import (
	"strings"
	"testing"
)

// Who has got a message finds it counted.
func TestReceivedIsCountedFirst(t *testing.T) {
	v := newVictim(t)
	bob := v.meet("bob")
	bob.inline = true
	told, line := 0, `{"type":"x","payload":"counted"}`
	v.reads(func(said string) {
		if !strings.Contains(said, "counted") {
			return
		}
		told++
		if st := v.peerOf(bob).stats(); st.MessagesReceived != told || st.BytesReceived != told*len(line) {
			t.Errorf("the agent has message %d, and %d of %d bytes are counted", told, st.MessagesReceived, st.BytesReceived)
		}
	})
	for range 3 {
		bob.says(line)
		v.taken(bob)
	}
}

// Whoever reads what was written to a stream finds it counted at the end that has written it.
func TestWrittenIsCountedFirst(t *testing.T) {
	v := newVictim(t)
	p := v.peerOf(v.meet("bob"))
	ours, theirs := pipe()
	st, written := v.counted(p, ours), make(chan error)
	go func() { _, err := st.Write([]byte("ab")); written <- err }()
	for read, half := range []string{"a", "b"} {
		b := make([]byte, 1)
		if _, err := theirs.Read(b); err != nil || string(b) != half {
			t.Fatalf("read %q, %v", b, err)
		}
		if n := p.stats().BytesSent; n <= read {
			t.Errorf("%d bytes were read, %d are counted", read+1, n)
		}
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
