//go:build !js

package rtc

import (
	"net"
	"testing"
	"time"
)

func TestStalls(t *testing.T) {
	const look = 500 * time.Millisecond
	type step struct {
		acknowledged uint64
		waits        bool
		twice        bool
	}
	for _, x := range []struct {
		name  string
		trip  time.Duration
		steps []step
	}{
		{"nothing to send", 0, []step{{0, false, false}, {0, false, false}, {0, false, false}, {0, true, false}, {1, true, false}}},
		{"it goes on", 0, []step{{0, false, false}, {1, true, false}, {2, true, false}, {3, true, false}}},
		{"it stands still", 0, []step{{0, false, false}, {5, true, false}, {5, true, true}, {9, true, true}, {9, false, true}}},
		{"a long path", 300 * time.Millisecond, []step{
			{0, false, false}, {5, true, false}, {5, true, false}, {5, true, false}, {6, true, false}, {6, true, false}, {6, true, false}, {6, true, true},
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			var p progress
			trip := func() time.Duration { return x.trip }
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for i, s := range x.steps {
				if got := p.look(now, s.acknowledged, s.waits, trip); got != s.twice {
					t.Errorf("look %d: twice is %t, want %t", i, got, s.twice)
				}
				now = now.Add(look)
			}
			if p.look(now.Add(doubledFor), 100, true, trip) {
				t.Error("packets are sent twice long after a stall")
			}
		})
	}
}

// What is sent twice to a TURN server is the data, not the server's own protocol.
func TestDoubledToRelay(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	twice := &doubler{}
	d := doubledPackets{c, twice}
	defer d.Close()
	buf := make([]byte, 100)
	for _, x := range []struct {
		name   string
		packet []byte
		on     bool
		want   int
	}{
		{"a request", []byte{0, 3, 0, 0, 23}, true, 1},
		{"data on a channel", []byte{0x40, 0, 0, 1, 23}, true, 2},
		{"a handshake on a channel", []byte{0x40, 0, 0, 1, 22}, true, 1},
		{"an empty channel message", []byte{0x40, 0, 0, 0}, true, 1},
		{"a record", []byte{23}, true, 2},
		{"nothing", nil, true, 1},
		{"data over a good path", []byte{0x40, 0, 0, 1, 23}, false, 1},
	} {
		twice.on.Store(x.on)
		if _, err := d.WriteTo(x.packet, server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteTo([]byte("end"), server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		got := -1
		for n := 0; string(buf[:n]) != "end"; got++ {
			if n, _, err = server.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
		}
		if got != x.want {
			t.Errorf("%s arrives %d times, want %d", x.name, got, x.want)
		}
	}
}
