//go:build linux || darwin

package sock_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// socketPair returns both ends of a connection over a Unix socket.
func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(testutil.ShortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	if err := errors.Join(a.SetDeadline(time.Now().Add(10*time.Second)), b.SetDeadline(time.Now().Add(10*time.Second))); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestDirectTryWrite(t *testing.T) {
	a, b := socketPair(t)
	write := sock.NewDirect(a).TryWrite
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than any socket holds
	sent := 0
	for n := write(text); n > 0; n = write(text[sent:]) {
		sent += n
	}
	if sent == 0 || sent == len(text) {
		t.Fatalf("%d of %d bytes were taken", sent, len(text))
	}
	got := make([]byte, sent)
	if _, err := io.ReadFull(sock.NewDirect(b), got); err != nil || !bytes.Equal(got, text[:sent]) {
		t.Fatalf("something else arrived, %v", err)
	}
	if n := write(text[:10]); n != 10 {
		t.Errorf("%d bytes were taken once there was room", n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n := write(text[:10]); n != 0 {
		t.Errorf("%d bytes were taken by a socket whose other end is closed", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if n := write(text[:10]); n != 0 {
		t.Errorf("%d bytes were taken by a closed socket", n)
	}
}

func TestDirectRead(t *testing.T) {
	a, b := socketPair(t)
	d := sock.NewDirect(b)
	var buf [10]byte
	read := func(what string, want error) {
		t.Helper()
		if n, err := d.Read(buf[:]); n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d bytes, error %v; want %v", what, n, err, want)
		}
	}
	if n, err := d.Read(nil); n != 0 || err != nil {
		t.Errorf("into no room: %d, %v", n, err)
	}
	if err := b.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	read("deadline", os.ErrDeadlineExceeded)
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() { // it blocks
		n, err := d.Read(buf[:])
		got <- fmt.Sprintf("%s %v", buf[:n], err)
	}()
	if _, err := a.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "text <nil>" {
		t.Errorf("read %s", s)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	read("end", io.EOF)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	read("closed", net.ErrClosed)
}

// The other end is closed with text unread. Only Linux is known to distinguish that from an ordinary end;
// elsewhere it is enough that the reading ends.
func TestDirectReset(t *testing.T) {
	a, b := socketPair(t)
	if _, err := b.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, sock.NewDirect(b))
	if runtime.GOOS == "linux" && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v, want %v", err, syscall.ECONNRESET)
	}
}

func TestDirectNoDescriptor(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if sock.NewDirect(near) != nil {
		t.Error("a pipe in memory has no descriptor")
	}
}
