//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// loopbackMux returns a mux that listens on the loopback interface only, and its address.
func loopbackMux(t *testing.T) (m *mux, at *net.UDPAddr) {
	t.Helper()
	cfg := Config{Settings: Settings{UDPPort: AnyUDPPort}, Log: zerolog.Nop()}
	cfg.OnlyLoopback()
	a, err := newAPI(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	return a.mux, a.mux.GetListenAddresses()[0].(*net.UDPAddr)
}

func connOf(t *testing.T, m *mux, ufrag string) *muxConn {
	t.Helper()
	c, err := m.conn(ufrag, m.GetListenAddresses()[0], &doubler{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*muxConn)
}

// remoteSocket returns a peer's socket.
func remoteSocket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// checkFor returns a binding request to the ICE session with this ufrag.
func checkFor(t testing.TB, ufrag string, more ...stun.Setter) []byte {
	t.Helper()
	parts := []stun.Setter{stun.BindingRequest, stun.TransactionID, stun.NewUsername(ufrag + ":theirs")}
	m, err := stun.Build(append(parts, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func writeTo[B string | []byte](t *testing.T, c net.PacketConn, b B, to net.Addr) {
	t.Helper()
	if _, err := c.WriteTo([]byte(b), to); err != nil {
		t.Fatal(err)
	}
}

// next reads a packet of a connection.
func next(t *testing.T, c net.PacketConn) (b string, from net.Addr) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, maxDatagram)
		n, addr, err := c.ReadFrom(buf)
		b, from = string(buf[:n]), addr
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
		return b, from
	case <-time.After(testutil.Patience):
		t.Fatal("no packet")
	}
	return "", nil
}

func expect(t *testing.T, c net.PacketConn, want string, from *net.UDPConn) {
	t.Helper()
	if b, addr := next(t, c); b != want || addr.String() != from.LocalAddr().String() {
		t.Fatalf("%q from %v, want %q from %s", b, addr, want, from.LocalAddr())
	}
}

// heap returns how much memory is in use, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A flood of checks at a connection that nobody reads costs little memory. Another one gets its packets meanwhile, and
// the flooded one has room for those of its peer.
func TestMuxFlood(t *testing.T) {
	m, at := loopbackMux(t)
	flooded, other := connOf(t, m, "flooded"), connOf(t, m, "other")
	attacker, peer := remoteSocket(t), remoteSocket(t)
	flood, check := checkFor(t, "flooded", stun.NewSoftware(strings.Repeat("x", 700))), checkFor(t, "other")
	writeTo(t, flooded, "to its peer", peer.LocalAddr())
	before := heap()
	for range 400 {
		for range 50 { // which the system's buffer holds, so that none is lost before the mux reads it
			writeTo(t, attacker, flood, at)
		}
		writeTo(t, peer, check, at)
		expect(t, other, string(check), peer)
	}
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("20,000 packets of %d bytes take %d KiB", len(flood), grown>>10)
	}
	data := strings.Repeat("data", 300) // longer than a check, which might leave room for less
	writeTo(t, peer, data, at)
	for b := ""; b != data; {
		b, _ = next(t, flooded)
	}
}

// Checks go to the session that they name, other packets to the connection that writes to where they come from.
func TestMuxRoutes(t *testing.T) {
	m, at := loopbackMux(t)
	a, b := connOf(t, m, "a"), connOf(t, m, "b")
	x, y := remoteSocket(t), remoteSocket(t)
	checkA, checkB := string(checkFor(t, "a")), string(checkFor(t, "b"))
	// Nobody has written to x yet.
	for _, lost := range []string{"data", "", "\x00\x01", string(checkFor(t, "c")), checkA[:30], checkA} {
		writeTo(t, x, lost, at)
	}
	expect(t, a, checkA, x)
	writeTo(t, a, "1", x.LocalAddr())
	writeTo(t, b, "2", y.LocalAddr())
	writeTo(t, x, "data of x", at)
	writeTo(t, y, "data of y", at)
	expect(t, a, "data of x", x)
	expect(t, b, "data of y", y)
	// A new session between the same addresses, such as that of a peer that was started again.
	writeTo(t, x, checkB, at)
	expect(t, b, checkB, x)
	writeTo(t, b, "3", x.LocalAddr())
	writeTo(t, x, "more", at)
	expect(t, b, "more", x)
	writeTo(t, a, "4", x.LocalAddr()) // the old session is still in use: it has the reply
	writeTo(t, x, "reply", at)
	expect(t, a, "reply", x)
	writeTo(t, b, "5", x.LocalAddr())
	_ = a.Close() // which has x no longer
	writeTo(t, x, "rest", at)
	expect(t, b, "rest", x)
	// An address that has become free goes to the next one that writes there.
	_ = b.Close()
	c, checkC := connOf(t, m, "c"), string(checkFor(t, "c"))
	for _, lost := range []string{"data", checkA, checkB} {
		writeTo(t, x, lost, at)
	}
	writeTo(t, y, checkC, at)
	expect(t, c, checkC, y)
	writeTo(t, c, "6", x.LocalAddr())
	writeTo(t, x, "data", at)
	expect(t, c, "data", x)
}

// A peer that announces the address of another one as its own does not get what that one sends.
func TestMuxAnnouncedAddress(t *testing.T) {
	m, at := loopbackMux(t)
	honest, thief := connOf(t, m, "honest"), connOf(t, m, "thief")
	peer, check := remoteSocket(t), string(checkFor(t, "honest"))
	writeTo(t, thief, "a check", peer.LocalAddr()) // before there is a link
	writeTo(t, peer, check, at)
	expect(t, honest, check, peer)
	writeTo(t, honest, "response", peer.LocalAddr())
	writeTo(t, thief, "a check", peer.LocalAddr()) // and after that
	writeTo(t, peer, "data", at)
	expect(t, honest, "data", peer)
}

// The end of a connection, of its session and of the mux end a read, and what is written then is lost: to pion
// net.ErrClosed is a lost packet, io.ErrClosedPipe the end of the link.
func TestMuxClose(t *testing.T) {
	for name, end := range map[string]func(*mux, *muxConn){
		"connection": func(_ *mux, c *muxConn) { _ = c.Close() },
		"session":    func(m *mux, _ *muxConn) { m.RemoveConnByUfrag("u") },
		"both":       func(m *mux, c *muxConn) { m.RemoveConnByUfrag("u"); _ = c.Close() },
		"mux":        func(m *mux, _ *muxConn) { _ = m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			m, at := loopbackMux(t)
			c := connOf(t, m, "u")
			read := make(chan error, 1)
			go func() {
				_, _, err := c.ReadFromAddrPort(make([]byte, 10))
				read <- err
			}()
			end(m, c)
			select {
			case err := <-read:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("reading: %v", err)
				}
			case <-time.After(testutil.Patience):
				t.Error("it goes on reading")
				_ = c.Close()
			}
			_, err := c.WriteTo([]byte("x"), at)
			_, err2 := c.WriteToAddrPort([]byte("x"), at.AddrPort())
			for _, err := range []error{err, err2} {
				if !errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("writing: %v", err)
				}
			}
			if s := m.sockets[0]; len(s.conns)+len(s.owners) != 0 {
				t.Errorf("%d connections and %d addresses are left", len(s.conns), len(s.owners))
			}
		})
	}
}

func TestMuxConn(t *testing.T) {
	m, at := loopbackMux(t)
	c := connOf(t, m, "u")
	if _, err := m.conn("u", at, &doubler{}); err == nil {
		t.Error("a second connection of one session")
	}
	if _, err := m.conn("v", &net.UDPAddr{IP: at.IP, Port: at.Port + 1}, &doubler{}); err == nil {
		t.Error("a connection at another address")
	}
	_ = c.Close()
	next := connOf(t, m, "u")
	_ = c.Close()
	if m.sockets[0].conns["u"] != next {
		t.Error("a connection that was closed twice took the next one away")
	}
	_ = m.Close()
	if _, err := m.conn("v", at, &doubler{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection of a closed mux: %v", err)
	}
	if err := m.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// Whoever checks from more addresses than are admitted fills nothing, and a connection has only so many addresses.
func TestMuxAddresses(t *testing.T) {
	m, at := loopbackMux(t)
	c, check := connOf(t, m, "u"), checkFor(t, "u")
	s := m.sockets[0]
	for port := range uint16(2 * maxSources) {
		s.deliver(check, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port+1))
	}
	for n := range maxSources + 1 {
		if n == maxSources {
			s.deliver(check, netip.MustParseAddrPort("127.0.0.1:1")) // which was admitted
		}
		_, from, err := c.ReadFromAddrPort(make([]byte, 100))
		if want := uint16(n%maxSources + 1); err != nil || from.Port() != want {
			t.Fatalf("a check from %v, want port %d; error %v", from, want, err)
		}
	}
	for n := range maxAddresses + 10 {
		writeTo(t, c, "x", &net.UDPAddr{IP: at.IP, Port: 10000 + n})
	}
	if len(c.addrs) != maxAddresses || len(s.owners) != maxAddresses {
		t.Errorf("%d and %d addresses", len(c.addrs), len(s.owners))
	}
}

// fakeNet has what interfaces it likes, and sockets that read what its channel has.
type fakeNet struct {
	transport.Net
	interfaces []*transport.Interface
	listened   []string
	fails      map[string]error // by address
	open       atomic.Int32     // sockets
	reads      chan fakeRead
}

// newFakeNet returns one whose sockets read nothing.
func newFakeNet() *fakeNet {
	n := &fakeNet{reads: make(chan fakeRead)}
	close(n.reads)
	return n
}

type fakeRead struct {
	b   []byte
	err error
}

func (n *fakeNet) Interfaces() ([]*transport.Interface, error) { return n.interfaces, nil }

func (n *fakeNet) ListenUDP(_ string, addr *net.UDPAddr) (transport.UDPConn, error) {
	if err := n.fails[addr.String()]; err != nil {
		return nil, err
	}
	n.listened = append(n.listened, addr.String())
	n.open.Add(1)
	return &fakeUDP{n: n, local: addr}, nil
}

type fakeUDP struct {
	transport.UDPConn
	n     *fakeNet
	local *net.UDPAddr
}

func (c *fakeUDP) ReadFrom(b []byte) (int, net.Addr, error) {
	r, ok := <-c.n.reads
	if !ok {
		return 0, nil, net.ErrClosed
	}
	return copy(b, r.b), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9}, r.err
}

func (c *fakeUDP) WriteTo(b []byte, _ net.Addr) (int, error) { return len(b), nil }

func (c *fakeUDP) LocalAddr() net.Addr { return c.local }
func (c *fakeUDP) Close() error        { c.n.open.Add(-1); return nil }

// with adds an interface. Addresses are in CIDR notation.
func (n *fakeNet) with(name string, flags net.Flags, addrs ...string) {
	i := transport.NewInterface(net.Interface{Name: name, Flags: flags})
	for _, a := range addrs {
		ip, network, err := net.ParseCIDR(a)
		if err != nil {
			panic(err)
		}
		i.AddAddress(&net.IPNet{IP: ip, Mask: network.Mask})
	}
	n.interfaces = append(n.interfaces, i)
}

// The mux listens at the addresses of which pion makes host candidates.
func TestMuxListens(t *testing.T) {
	for _, noLoopback := range []bool{false, true} {
		for _, filter := range []func(net.IP) bool{nil, func(ip net.IP) bool { return ip.To4() == nil }} {
			t.Run(fmt.Sprintf("loopback %t filter %t", !noLoopback, filter != nil), func(t *testing.T) {
				n := &fakeNet{reads: make(chan fakeRead)}
				close(n.reads)
				n.with("lo", net.FlagUp|net.FlagLoopback, "127.0.0.1/8", "::1/128")
				n.with("dummy0", net.FlagUp, "127.0.0.2/32")
				n.with("eth0", net.FlagUp, "192.0.2.1/24", "2001:db8::1/64", "fe80::1/64", "fec0::1/64", "::192.0.2.1/96",
					"169.254.1.1/16")
				n.with("eth1", 0, "192.0.2.2/24")
				n.with("eth2", net.FlagUp)
				n.with("eth3", net.FlagUp, "fe80::1/64")
				opts := []ice.UDPMuxFromPortOption{
					ice.UDPMuxFromPortWithNet(n), ice.UDPMuxFromPortWithIPFilter(filter),
					ice.UDPMuxFromPortWithLogger((&pionLoggers{log: zerolog.Nop()}).NewLogger("")),
				}
				if !noLoopback {
					opts = append(opts, ice.UDPMuxFromPortWithLoopback())
				}
				theirs, err := ice.NewMultiUDPMuxFromPort(3478, opts...)
				if err != nil {
					t.Fatal(err)
				}
				_ = theirs.Close()
				want := n.listened
				n.listened = nil
				n.with("eth4", net.FlagUp, "192.0.2.1/24", "2001:db8::1/64") // which eth0 has
				cfg := Config{Settings: Settings{UDPPort: 3478, NoLoopback: noLoopback}, net: n, ipFilter: filter}
				ours, err := newMux(cfg, newHost(&cfg), &pionLoggers{})
				if err != nil {
					t.Fatal(err)
				}
				_ = ours.Close()
				slices.Sort(want)
				slices.Sort(n.listened)
				if len(want) < 3 || !slices.Equal(n.listened, want) {
					t.Errorf("listens at %q, pion at %q", n.listened, want)
				}
			})
		}
	}
}

// followed returns a mux of a fakeNet.
func followed(t *testing.T, n *fakeNet, log zerolog.Logger) *mux {
	cfg := Config{Settings: Settings{UDPPort: 3478}, net: n, Log: log}
	m, err := newMux(cfg, newHost(&cfg), &pionLoggers{log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// has checks which addresses a mux offers.
func (m *mux) has(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, a := range m.GetListenAddresses() {
		got = append(got, a.(*net.UDPAddr).IP.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("offers %q, want %q", got, want)
	}
}

// The mux follows the addresses of the host, from none to none. Who has a connection at one that comes back in time
// still has it.
func TestMuxFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		m := followed(t, n, zerolog.Nop())
		m.has(t)
		eth, wlan := "192.0.2.1/24", "198.51.100.1/24"
		show := func(addrs ...string) {
			n.interfaces = nil
			n.with("eth0", net.FlagUp, addrs...)
			if err := m.follow(); err != nil {
				t.Error(err)
			}
		}
		show(eth)
		m.has(t, "192.0.2.1")
		c := connOf(t, m, "u")
		show(eth, wlan)
		m.has(t, "192.0.2.1", "198.51.100.1")
		show(wlan)
		m.has(t, "198.51.100.1")
		time.Sleep(goneFor - time.Second)
		if show(wlan); !m.unsettled() {
			t.Error("it would not look again")
		}
		show(eth, wlan)
		m.has(t, "192.0.2.1", "198.51.100.1")
		if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 9}); err != nil {
			t.Errorf("a connection at an address that came back: %v", err)
		}
		show()
		m.has(t)
		time.Sleep(goneFor)
		if show(); m.unsettled() {
			t.Error("it would look again for nothing")
		}
		if _, _, err := c.ReadFromAddrPort(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection at an address that is gone for good: %v", err)
		}
		if want := []string{"192.0.2.1:3478", "198.51.100.1:3478"}; !slices.Equal(n.listened, want) || n.open.Load() != 0 {
			t.Errorf("listened at %q, want %q; %d sockets are open", n.listened, want, n.open.Load())
		}
	})
}

// An address at which the mux cannot listen yet is left out, which the log says once, and tried again.
func TestMuxLeavesOut(t *testing.T) {
	var log testutil.LogBuffer
	n := newFakeNet()
	n.with("eth0", net.FlagUp, "192.0.2.1/24", "2001:db8::1/64")
	n.fails = map[string]error{"[2001:db8::1]:3478": &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}}
	m := followed(t, n, zerolog.New(&log))
	m.has(t, "192.0.2.1")
	for range 3 {
		_ = m.follow()
	}
	if !m.unsettled() || log.Count("2001:db8::1") != 1 {
		t.Errorf("unsettled: %t, log:\n%s", m.unsettled(), log.String())
	}
	n.fails = nil
	_ = m.follow()
	m.has(t, "192.0.2.1", "2001:db8::1")
	if m.unsettled() {
		t.Error("it would look again for nothing")
	}
}

// A port that is in use is an error at the start, and none of the sidecar's later on.
func TestMuxPortInUse(t *testing.T) {
	n := newFakeNet()
	n.with("eth0", net.FlagUp, "192.0.2.1/24", "2001:db8::1/64")
	var log testutil.LogBuffer
	cfg := Config{Settings: Settings{UDPPort: 3478}, net: n, Log: zerolog.New(&log)}
	n.fails = map[string]error{"192.0.2.1:3478": syscall.EADDRINUSE}
	if m, err := newMux(cfg, newHost(&cfg), &pionLoggers{log: zerolog.Nop()}); !errors.Is(err, syscall.EADDRINUSE) {
		_ = m.Close()
		t.Errorf("error %v", err)
	}
	if n.open.Load() != 0 {
		t.Errorf("%d sockets are open", n.open.Load())
	}
	if log.String() != "" {
		t.Errorf("what is an error is logged, too: %s", log.String())
	}
	n.interfaces = nil
	n.with("eth0", net.FlagUp, "2001:db8::1/64")
	m := followed(t, n, zerolog.New(&log))
	n.with("eth1", net.FlagUp, "192.0.2.1/24")
	if err := m.follow(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v", err)
	}
	m.has(t, "2001:db8::1")
	if log.Count("192.0.2.1") != 1 {
		t.Errorf("the log says:\n%s", log.String())
	}
}

// A mux that is closed opens nothing.
func TestMuxFollowsNoLonger(t *testing.T) {
	n := newFakeNet()
	m := followed(t, n, zerolog.Nop())
	_ = m.Close()
	n.with("eth0", net.FlagUp, "192.0.2.1/24")
	if err := m.follow(); !errors.Is(err, net.ErrClosed) || n.open.Load() != 0 {
		t.Errorf("%d sockets are open; error %v", n.open.Load(), err)
	}
}

// A socket that fails to read is read again.
func TestMuxReadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{reads: make(chan fakeRead)}
		n.with("eth0", net.FlagUp, "192.0.2.1/24")
		m := followed(t, n, zerolog.Nop())
		c, check := connOf(t, m, "u"), checkFor(t, "u")
		n.reads <- fakeRead{nil, errors.New("once")}
		n.reads <- fakeRead{check, nil}
		if got, _, err := c.ReadFrom(make([]byte, 100)); got != len(check) || err != nil {
			t.Errorf("%d bytes, %v", got, err)
		}
		n.reads <- fakeRead{nil, errors.New("again")}
		_ = m.Close() // while the reader pauses
	})
}

// Close waits for the readers.
func TestMuxCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{reads: make(chan fakeRead)}
		n.with("eth0", net.FlagUp, "192.0.2.1/24")
		m := followed(t, n, zerolog.Nop())
		closed := make(chan struct{})
		go func() {
			_ = m.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("a reader is still there")
		default:
		}
		close(n.reads)
		<-closed
	})
}

// FuzzMux has four senders, and each of the first three is the peer of a connection, in another form of its address. A
// connection gets what its peer sends, and the checks that name it, and nothing else.
func FuzzMux(f *testing.F) {
	check := checkFor(f, "b")
	for _, packet := range [][]byte{nil, {0, 1}, {20, 254, 253}, check, check[:25], append(slices.Clone(check), 1, 2, 3)} {
		for sender := range uint8(4) {
			f.Add(packet, sender)
		}
	}
	n := &fakeNet{reads: make(chan fakeRead)}
	udp, _ := n.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)})
	addrs := func(all ...string) (parsed []netip.AddrPort) {
		for _, a := range all {
			parsed = append(parsed, netip.MustParseAddrPort(a))
		}
		return parsed
	}
	senders := addrs("192.0.2.2:9", "[::ffff:192.0.2.3]:9", "[fe80::4%eth0]:9", "192.0.2.5:9")
	peers := addrs("[::ffff:192.0.2.2]:9", "192.0.2.3:9", "[fe80::4]:9")
	f.Fuzz(func(t *testing.T, packet []byte, sender uint8) {
		s := newMuxSocket(udp, nil)
		from := senders[int(sender)%len(senders)]
		var conns []*muxConn
		for i, ufrag := range []string{"a", "b", ""} {
			c, _ := s.open(ufrag, &doubler{})
			conns = append(conns, c.(*muxConn))
			_, _ = conns[i].WriteToAddrPort(nil, peers[i])
		}
		s.deliver(packet, from)
		taken := 0
		for i, c := range conns {
			got := c.packets.size > 0
			if !isCheck(packet) && got != (from == senders[i]) {
				t.Errorf("%q got a packet from %v: %t", c.ufrag, from, got)
			}
			if !got {
				continue
			}
			taken++
			b := make([]byte, len(packet)+1)
			n, addr, err := c.ReadFromAddrPort(b)
			if err != nil || string(b[:n]) != string(packet) || addr != from || c.packets.size != 0 {
				t.Errorf("%q got %d of %d bytes from %v, %v", c.ufrag, n, len(packet), addr, err)
			}
		}
		if taken > 1 {
			t.Errorf("%d connections got it", taken)
		}
	})
}
