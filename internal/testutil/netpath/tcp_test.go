package netpath_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// A response takes two round trips: that of TCP's handshake, and its own. The end of a stream arrives, too.
func TestTCPPath(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c) // until the client has ended its direction
			_ = c.Close()
		}
	}()
	const delay = 30 * time.Millisecond
	p, err := netpath.NewTCP(server.Addr().String(), delay)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 5)
	for i, least := range []time.Duration{4 * delay, 6 * delay} {
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
		if took := time.Since(start); took < least {
			t.Errorf("response %d after %v, want %v at least", i, took, least)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); n != 0 || err != io.EOF {
		t.Errorf("at the end %d bytes and %v", n, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// Close ends connections that are in use.
func TestTCPPathClose(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	p, err := netpath.NewTCP(server.Addr().String(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}
