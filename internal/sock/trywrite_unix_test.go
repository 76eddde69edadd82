//go:build linux || darwin

package sock_test

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

func TestTryWriter(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	write := sock.TryWriter(a)
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than any socket holds
	sent := 0
	for n := write(text); n > 0; n = write(text[sent:]) {
		sent += n
	}
	if sent == 0 || sent == len(text) {
		t.Fatalf("%d of %d bytes were taken", sent, len(text))
	}
	got := make([]byte, sent)
	if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, text[:sent]) {
		t.Fatalf("something else arrived, %v", err)
	}
	if n := write(text[:10]); n != 10 {
		t.Errorf("%d bytes were taken once there was room", n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n := write(text[:10]); n != 0 {
		t.Errorf("%d bytes were taken by a socket that nobody holds", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if n := write(text[:10]); n != 0 {
		t.Errorf("%d bytes were taken by a closed socket", n)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if sock.TryWriter(near) != nil {
		t.Error("a pipe in memory has no descriptor to try")
	}
}
