//go:build !js

package rtc

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

// Packets come out as they went in, in their order, within the memory that they may take.
func TestPackets(t *testing.T) {
	type packet struct {
		b    []byte
		from netip.AddrPort
	}
	var p packets
	p.init()
	rnd := rand.New(rand.NewPCG(1, 2))
	froms := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:65535"),
		netip.MustParseAddrPort("[fe80::1%eth0]:2"),
		netip.MustParseAddrPort("[fe80::1%an interface with a name longer than those of most systems are]:2"),
	}
	var want []packet
	dropped := 0
	for round := range 20_000 {
		if rnd.IntN(5) < 4-round/5000 { // it fills, then empties
			b := make([]byte, rnd.IntN(1500))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			before := p.size
			p.put(b, froms[round%len(froms)], maxWaiting)
			if p.size > before {
				want = append(want, packet{b, froms[round%len(froms)]})
			} else {
				dropped++
			}
		} else if len(want) > 0 {
			b := make([]byte, 1000)
			n, from, err := p.take(b)
			if first := want[0]; err != nil || from != first.from || !bytes.Equal(b[:n], first.b[:min(1000, len(first.b))]) {
				t.Fatalf("%d bytes from %v, %v; want %d from %v", n, from, err, len(first.b), first.from)
			}
			want = want[1:]
		}
		if p.size > maxWaiting || len(p.ring) > maxWaiting {
			t.Fatalf("%d bytes wait in %d", p.size, len(p.ring))
		}
	}
	if dropped == 0 || len(p.ring) != maxWaiting {
		t.Errorf("%d packets were dropped, from %d bytes", dropped, len(p.ring))
	}
	p.close()
	p.put([]byte("x"), froms[0], maxWaiting)
	if _, _, err := p.take(make([]byte, 1)); !errors.Is(err, net.ErrClosed) || p.ring != nil {
		t.Errorf("closed: %v, %d bytes", err, len(p.ring))
	}
}
