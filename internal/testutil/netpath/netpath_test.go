package netpath_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// An end sends numbered packets to the other and notes what arrives.
type end struct {
	conn *net.UDPConn
	got  testutil.Record[int]
}

func open(t *testing.T, c netpath.Conditions) (*netpath.Path, [2]*end) {
	t.Helper()
	p, err := netpath.New(c, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	var ends [2]*end
	for i := range ends {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		e := &end{conn: conn}
		p.Join(i, conn.LocalAddr().(*net.UDPAddr).AddrPort())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.read(t, p.Addr(1-i))
		}()
		t.Cleanup(func() { _ = conn.Close(); <-done })
		ends[i] = e
	}
	return p, ends
}

// read checks that everything comes from the address at which the path shows the other end.
func (e *end) read(t *testing.T, other netip.AddrPort) {
	b := make([]byte, 2048)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if from != other || n < 4 {
			t.Errorf("%d bytes from %v, want them from %v", n, from, other)
			return
		}
		e.got.Add(int(binary.BigEndian.Uint32(b)))
	}
}

func (e *end) send(t *testing.T, to netip.AddrPort, n, size int) {
	t.Helper()
	for i := range n {
		b := make([]byte, size)
		binary.BigEndian.PutUint32(b, uint32(i))
		if _, err := e.conn.WriteToUDPAddrPort(b, to); err != nil {
			t.Fatal(err)
		}
	}
}

// passed blocks until the path has taken n packets of end 0, and end 1 has all that were not dropped, some of them twice.
func passed(t *testing.T, p *netpath.Path, to *end, n int) (got []int, lost, dropped int) {
	t.Helper()
	testutil.Eventually(t, "the path", func() bool {
		var taken int
		taken, lost, dropped = p.Counts(0)
		return taken == n && to.got.Len() == n-lost-dropped+p.Doubled(0)
	})
	return to.got.All(), lost, dropped
}

func TestPath(t *testing.T) {
	for name, tt := range map[string]struct {
		netpath.Conditions
		lost, dropped, doubled, ordered bool
	}{
		"nothing":   {ordered: true},
		"delay":     {Conditions: netpath.Conditions{Delay: 5 * time.Millisecond}, ordered: true},
		"line":      {Conditions: netpath.Conditions{Delay: time.Millisecond, Rate: 1e8}, ordered: true},
		"queue":     {Conditions: netpath.Conditions{Rate: 1e6, Queue: 10 * 528}, dropped: true, ordered: true},
		"loss":      {Conditions: netpath.Conditions{Loss: 0.2}, lost: true, ordered: true},
		"reordered": {Conditions: netpath.Conditions{Delay: 5 * time.Millisecond, Reorder: 0.3}},
		"doubled":   {Conditions: netpath.Conditions{Duplicate: 0.3}, doubled: true, ordered: true},
		"both":      {Conditions: netpath.Conditions{Delay: 5 * time.Millisecond, Reorder: 0.3, Duplicate: 0.3}, doubled: true},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 60 // fit into the receive buffer of a socket
			p, ends := open(t, tt.Conditions)
			ends[0].send(t, p.Addr(1), n, 500)
			got, lost, dropped := passed(t, p, ends[1], n)
			if (lost > 0) != tt.lost || (dropped > 0) != tt.dropped {
				t.Errorf("%d lost and %d dropped", lost, dropped)
			}
			if slices.IsSorted(got) != tt.ordered {
				t.Errorf("arrived in this order: %v", got)
			}
			slices.Sort(got)
			if twice := len(got) - len(slices.Compact(got)); twice != p.Doubled(0) || (twice > 0) != tt.doubled {
				t.Errorf("%d arrived twice, %d were to", twice, p.Doubled(0))
			}
			ends[1].send(t, p.Addr(0), 1, 500) // the way back
			testutil.Eventually(t, "a packet back, or its loss", func() bool {
				taken, lost, _ := p.Counts(1)
				return taken == 1 && ends[0].got.Len()+lost == 1+p.Doubled(1)
			})
		})
	}
}

// Each direction has conditions of its own.
func TestSetOne(t *testing.T) {
	p, ends := open(t, netpath.Conditions{})
	p.SetOne(0, netpath.Conditions{Loss: 1})
	ends[0].send(t, p.Addr(1), 10, 100)
	ends[1].send(t, p.Addr(0), 10, 100)
	if got, lost, _ := passed(t, p, ends[1], 10); len(got) != 0 || lost != 10 {
		t.Errorf("got %v over the direction that is cut, %d lost", got, lost)
	}
	testutil.Eventually(t, "what goes the other way", func() bool { return ends[0].got.Len() == 10 })
	p.SetOne(0, netpath.Conditions{})
	ends[0].send(t, p.Addr(1), 10, 100)
	if got, lost, _ := passed(t, p, ends[1], 20); len(got) != 10 || lost != 10 {
		t.Errorf("got %v afterwards, %d lost", got, lost)
	}
}

// The conditions change while a path is in use. What strangers send goes nowhere.
func TestCut(t *testing.T) {
	p, ends := open(t, netpath.Conditions{})
	p.Set(netpath.Conditions{Loss: 1})
	ends[0].send(t, p.Addr(1), 10, 100)
	if got, lost, _ := passed(t, p, ends[1], 10); len(got) != 0 || lost != 10 {
		t.Errorf("got %v, %d lost", got, lost)
	}
	p.Set(netpath.Conditions{})
	stranger := &end{}
	var err error
	if stranger.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	defer stranger.conn.Close()
	stranger.send(t, p.Addr(1), 1, 100)
	ends[0].send(t, p.Addr(1), 1, 100)
	if got, _, _ := passed(t, p, ends[1], 11); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
