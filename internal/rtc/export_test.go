//go:build !js

package rtc

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Quick makes waits short enough for tests. baseWait and glareHold keep their proportion to each other.
func (c *Config) Quick() {
	c.timing = defaultTiming
	c.timing.backoffMin = 50 * time.Millisecond
	c.timing.backoffMax = 200 * time.Millisecond
	c.timing.offerPace = 20 * time.Millisecond
	c.timing.lasting = time.Second
	c.timing.refused = 0
	c.timing.renewMin = 100 * time.Millisecond
	c.timing.identityWatch = 50 * time.Millisecond
	c.timing.repairMin = 100 * time.Millisecond
	c.timing.repairMax = 400 * time.Millisecond
	c.timing.probe = 400 * time.Millisecond
	c.timing.checking = time.Second
	c.timing.dead = 1500 * time.Millisecond
	c.timing.watch = 100 * time.Millisecond
	c.timing.silence = 3 * time.Second
	c.timing.glareHold = 300 * time.Millisecond
	c.timing.baseWait = 1500 * time.Millisecond
	c.timing.baseClosed = 100 * time.Millisecond
	c.timing.baseSilence = time.Second
	c.timing.ice = checks{keepalive: 200 * time.Millisecond, disconnected: time.Second, failed: 2 * time.Second}
	c.timing.iceBase = c.timing.ice
}

// Dead sets how long a peer that has left must have been silent.
func (c *Config) Dead(d time.Duration) { c.timing.dead = d }

// ICEKeepalive sets the time between two checks of a path.
func (c *Config) ICEKeepalive(d time.Duration) {
	c.timing.ice.keepalive, c.timing.iceBase.keepalive = d, d
}

// SteadyKeepalive sets the same, for peers that are known to be no base peers.
func (c *Config) SteadyKeepalive(d time.Duration) { c.timing.ice.keepalive = d }

// Keepalive returns the time between two checks of the path to a peer.
func (n *Node) Keepalive(peer string) time.Duration {
	return inLoop(n, peer, func(sl *slot) time.Duration { return sl.cur.checks.keepalive })
}

// Answered reports whether the offer to a peer has been answered.
func (n *Node) Answered(peer string) bool {
	return inLoop(n, peer, func(sl *slot) bool { return sl != nil && sl.cur != nil && sl.cur.answered })
}

// Watch sets the time between looks at the paths.
func (c *Config) Watch(d time.Duration) { c.timing.watch = d }

// ICEFailed sets how long ICE looks for a path that is gone.
func (c *Config) ICEFailed(d time.Duration) { c.timing.ice.failed, c.timing.iceBase.failed = d, d }

// ICEDisconnected sets how long a path may be silent.
func (c *Config) ICEDisconnected(d time.Duration) {
	c.timing.ice.disconnected, c.timing.iceBase.disconnected = d, d
}

// Checking sets how long a restart that was answered is left alone.
func (c *Config) Checking(d time.Duration) { c.timing.checking = d }

// NetworkChanged says that the host's addresses may have changed.
func (n *Node) NetworkChanged() { n.box.post(n.networkChanged) }

// BaseWait sets how long a base peer that went silent is left alone.
func (c *Config) BaseWait(d time.Duration) { c.timing.baseWait = d }

// BaseClocks sets what concerns base peers to a fifth of the true delays.
func (c *Config) BaseClocks() {
	c.timing.baseSilence = defaultTiming.baseSilence / 5
	c.timing.baseWait = defaultTiming.baseWait / 5
	c.timing.baseClosed = defaultTiming.baseClosed / 5
	base := defaultTiming.iceBase
	c.timing.iceBase = checks{keepalive: base.keepalive / 5, disconnected: base.disconnected / 5, failed: base.failed / 5}
	c.timing.watch = defaultTiming.watch / 5
}

// GlareHold sets how long a base peer's offer waits for the answer to ours.
func (c *Config) GlareHold(d time.Duration) { c.timing.glareHold = d }

// DialPace sets how long a dial counts that has come to nothing.
func (c *Config) DialPace(d time.Duration) { c.timing.dialPace = d }

// OfferPace sets the pace at which further offers of a peer are taken up.
func (c *Config) OfferPace(d time.Duration) { c.timing.offerPace = d }

// Refused sets the time between two reports that a peer was refused.
func (c *Config) Refused(d time.Duration) { c.timing.refused = d }

// LongLine sets how long a line may take while others wait for its memory.
func (c *Config) LongLine(d time.Duration) { c.timing.longLine = d }

// RenewMin sets the time between restarts for new TURN credentials.
func (c *Config) RenewMin(d time.Duration) { c.timing.renewMin = d }

// Now sets the clock of what takes weeks.
func (c *Config) Now(now func() time.Time) { c.now = now }

// MaxDials is how many dials count at a time.
const MaxDials = maxDials

// UseNet replaces the network.
func (c *Config) UseNet(n transport.Net) { c.net = n }

// Lookup replaces the name server.
func (c *Config) Lookup(f func(ctx context.Context, network, host string) ([]netip.Addr, error)) {
	c.lookup = f
}

// Proxy replaces the proxy of the environment.
func (c *Config) Proxy(f func(*http.Request) (*url.URL, error)) { c.proxy = f }

// OnlyLoopback keeps other networks of the test machine out.
func (c *Config) OnlyLoopback() {
	c.NoLocal = true // which is no network
	c.ipFilter = func(ip net.IP) bool { return ip.IsLoopback() }
}

// AllNetworks lets them in again.
func (c *Config) AllNetworks() { c.ipFilter = nil }

// inLoop returns what f says about a peer's slot, which may be nil.
func inLoop[T any](n *Node, id string, f func(*slot) T) T {
	result := make(chan T)
	n.box.post(func() { result <- f(n.slots[id]) })
	return <-result
}

// TakeLineMemory takes all the memory for long lines, as the lines of other peers may.
func (n *Node) TakeLineMemory() {
	n.lines.mu.Lock()
	defer n.lines.mu.Unlock()
	n.lines.used = n.lines.max
}

// PathTo returns the addresses of the pair that ICE has selected, "" if it is not connected.
func (n *Node) PathTo(id string) string {
	return inLoop(n, id, func(sl *slot) string {
		if sl == nil || sl.cur == nil || sl.cur.ice != webrtc.ICEConnectionStateConnected {
			return "" // pion's transport must not be asked before
		}
		pair, err := sl.cur.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
		if err != nil || pair == nil {
			return ""
		}
		return pair.Local.Address + " " + pair.Remote.Address
	})
}

// Repair plays the end of a repair: prove has something arrive while ICE is still checking, as far as the loop knows, and nothing comes
// when it no longer is. Nor did pion count what arrived, if uncounted. It reports whether the link is restored then.
func (n *Node) Repair(id string, uncounted bool, prove func()) bool {
	watch := func(state webrtc.ICEConnectionState) bool {
		return inLoop(n, id, func(sl *slot) bool {
			sl.cur.ice = state
			sl.cur.watchPath()
			return !sl.cur.recovering
		})
	}
	inLoop(n, id, func(sl *slot) bool {
		sl.cur.noteArrivals(time.Now())
		for sl.cur.arrivals.last >= webrtc.StatsTimestamp(time.Now().UnixMilli()) { // pion counts time in milliseconds
		}
		sl.cur.interrupted()
		sl.cur.doubtful = true
		return true
	})
	prove()
	before := watch(webrtc.ICEConnectionStateChecking)
	inLoop(n, id, func(sl *slot) bool {
		if uncounted {
			sl.cur.arrivals.at = time.Time{}
		}
		return true
	})
	return !before && watch(webrtc.ICEConnectionStateConnected)
}

// Parked returns how many superseded connections to a peer are kept.
func (n *Node) Parked(id string) int {
	return inLoop(n, id, func(sl *slot) int {
		if sl == nil {
			return 0
		}
		return len(sl.parked)
	})
}

// RemoteCandidates returns how many candidates of a peer ICE has, those that the peer did not announce included.
func (n *Node) RemoteCandidates(id string) int {
	return inLoop(n, id, func(sl *slot) (count int) {
		for _, s := range sl.cur.pc.GetStats() {
			if c, ok := s.(webrtc.ICECandidateStats); ok && c.Type == webrtc.StatsTypeRemoteCandidate {
				count++
			}
		}
		return count
	})
}

// ICEURLs returns how many URLs of STUN and TURN servers the next link asks.
func (n *Node) ICEURLs() int {
	return inLoop(n, "", func(*slot) (count int) {
		for _, s := range n.api.servers {
			count += len(s.URLs)
		}
		return count
	})
}

// ListensAt reports whether the shared UDP port is offered at an address.
func (n *Node) ListensAt(ip string) bool {
	return slices.ContainsFunc(n.api.mux.GetListenAddresses(), func(a net.Addr) bool {
		return a.(*net.UDPAddr).IP.Equal(net.ParseIP(ip))
	})
}

// LocalAddress returns the address of this host that the link to a peer uses.
func (n *Node) LocalAddress(id string) string {
	return inLoop(n, id, func(sl *slot) string {
		if sl == nil || sl.cur == nil {
			return ""
		}
		pair, err := sl.cur.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
		if err != nil || pair == nil {
			return ""
		}
		return pair.Local.Address
	})
}

// Short returns how many links to a peer in a row have ended at once.
func (n *Node) Short(id string) int {
	return inLoop(n, id, func(sl *slot) int { return sl.short })
}

// Known reports whether anything is kept about a peer.
func (n *Node) Known(id string) bool {
	return inLoop(n, id, func(sl *slot) bool { return sl != nil })
}

// ICE returns the state of the ICE agent of the session with a peer.
func (n *Node) ICE(id string) string {
	return inLoop(n, id, func(sl *slot) string {
		if sl == nil || sl.cur == nil {
			return ""
		}
		return sl.cur.ice.String()
	})
}

// Doubles reports whether packets to a peer are sent twice.
func (n *Node) Doubles(id string) bool {
	return inLoop(n, id, func(sl *slot) bool { return sl != nil && sl.cur != nil && sl.cur.twice.on.Load() })
}

// Recovering reports whether the link to a peer is interrupted.
func (n *Node) Recovering(id string) bool {
	return inLoop(n, id, func(sl *slot) bool { return sl != nil && sl.cur != nil && sl.cur.recovering })
}

// AllowStreams sets how many streams to the peer there may be, whatever its hello said.
func (p *Peer) AllowStreams(n int) { p.streams.allow(n) }

// InjectStreams writes to the channel for streams past the multiplexer.
func (p *Peer) InjectStreams(b []byte) { _, _ = p.streams.channel.dc.WriteDataChannel(b, false) }

// FarEndGone reports whether the far end is known to have closed the link.
func (p *Peer) FarEndGone() bool {
	p.reading.mu.Lock()
	defer p.reading.mu.Unlock()
	return p.reading.gone
}

// MostDoubled returns how many packets may be sent twice in a time, by the fastest.
func MostDoubled(d time.Duration) int64 {
	return int64(doubledRate.Burst) + int64(d/doubledRate.Every) + 1
}

// Boot sets the id of the host.
func (c *Config) Boot(id string) { c.boot = id }

// BreakSockets closes the sockets to a peer, as the end of this process would, and reports whether there are any.
func (n *Node) BreakSockets(peer string) bool {
	return inLoop(n, peer, func(sl *slot) bool {
		m := &sl.cur.peer.move
		m.mu.Lock()
		defer m.mu.Unlock()
		for i := range m.ways {
			if c := m.ways[i].channel; c != nil {
				c.close()
			}
		}
		return m.ways[localMessages].channel != nil
	})
}

// WantStreams has the channel for streams made.
func (p *Peer) WantStreams() { p.wantStreams() }

// Connection calls f in the loop with the PeerConnection to a peer. It may be called in Events.
func (n *Node) Connection(peer string, f func(*webrtc.PeerConnection)) {
	n.box.post(func() { f(n.slots[peer].cur.pc) })
}

// doorLink is the link of a Door's tickets.
var doorLink = identity.Link{Offerer: true, Own: "a", Other: "b", OwnSession: "1", OtherSession: "2"}

// RogueStreams makes a channel for streams, whichever end this is.
func (n *Node) RogueStreams(peer string) error {
	return inLoop(n, peer, func(sl *slot) error {
		_, err := sl.cur.pc.CreateDataChannel(streamsLabel, nil)
		return err
	})
}

// Offerer reports whether this end has made the offer.
func (n *Node) Offerer(peer string) bool {
	return inLoop(n, peer, func(sl *slot) bool { return sl.cur.offerer })
}

// Offers reports whether this end of a link has made the offer. It may be called in Events.
func (*Node) Offers(p *Peer) bool { return p.binding.Offerer }

// KeepConnection leaves the PeerConnection open, as if word of its end were lost. It may be called in Events, before a move.
func (n *Node) KeepConnection(peer string) {
	n.box.post(func() { n.slots[peer].cur.onHost.left = true })
}

// A Door is a door.
type Door struct{ d door }

func NewDoor() *Door { return new(Door) }

func (d *Door) Issue(come func(byte, net.Conn, func()) bool) (*wire.Local, error) {
	_, where, err := d.d.issue(doorLink, come)
	return where, err
}

func (d *Door) Close() { d.d.close() }

// VisitAs is Visit by the end of another link.
func VisitAs(ctx context.Context, own string, where *wire.Local) (net.Conn, error) {
	link := doorLink
	link.Own = own
	return visit(ctx, link, where, 0)
}

func Visit(ctx context.Context, where *wire.Local, purpose byte) (net.Conn, error) {
	return visit(ctx, doorLink, where, purpose)
}

// SeatVacant reports whether the reader waits for something to read, and there is no guest in its place.
func (p *Peer) SeatVacant() bool {
	p.seat.mu.Lock()
	defer p.seat.mu.Unlock()
	return p.seat.vacant
}
