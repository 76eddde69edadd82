//go:build linux || darwin

package rtc

import (
	"io"
	"net"
	"testing"
)

// pipes returns a channel, and the other end of its socket.
func pipes(t *testing.T) (*localChannel, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	return newLocalChannel(near), far
}

// An attempt that is given up leaves no socket, and none can come later; one that was decided on is not given up.
func TestGiveUp(t *testing.T) {
	started := 0
	start := func() { started++ }
	begun := func(streams bool) *move {
		m := &move{ready: make(chan struct{})}
		m.expect(streams)
		return m
	}
	first, far := pipes(t)
	second, _ := pipes(t)

	m := begun(true)
	if !m.take(localStreams, first, start) || m.decided.Load() || started != 1 {
		t.Fatal("the first of two sockets is not kept, or decides")
	}
	if !m.giveUp() {
		t.Error("it cannot be given up before it is decided")
	}
	if b, err := io.ReadAll(far); err != nil || len(b) != localHeader {
		t.Errorf("the socket that was kept: %d bytes, %v; want a farewell and the end", len(b), err)
	}
	if m.take(localMessages, second, start) || started != 1 {
		t.Error("a socket is taken after all")
	}

	m = begun(false)
	if m.take(localStreams, second, start) {
		t.Error("a socket for streams comes first where those are not to move")
	}
	if !m.take(localMessages, second, start) || m.giveUp() || !m.decided.Load() {
		t.Error("it is given up after it was decided")
	}
	if again, _ := pipes(t); m.take(localMessages, again, start) {
		t.Error("a second socket for the same purpose")
	}
	if third, _ := pipes(t); !m.take(localStreams, third, start) {
		t.Error("no socket for streams that begin later")
	}
}
