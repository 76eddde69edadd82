//go:build !js

package rtc

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/pace"
)

const (
	// stallLeast is how long nothing must have been acknowledged for a stall: half of the time after which SCTP repeats what was
	// repeated already. It is stallTrips round trips at least, since an acknowledgement may take as long as those.
	stallLeast = 500 * time.Millisecond
	stallTrips = 4
	// doubledFor is for how long after a stall packets are sent twice.
	doubledFor = 30 * time.Second
)

// doubledRate bounds how many packets are sent a second time: 40 a second, which is 48 kB/s. What goes faster than that needs
// no help, or comes to another stall.
var doubledRate = pace.Rate{Burst: 32, Every: 25 * time.Millisecond}

// A doubler has packets sent twice over a path that loses so many that repetitions get lost, too. SCTP repeats those only after
// a second (RTO.Min in RFC 9260, 16, which pion has fixed), and begins with one packet each time: where every fifth packet is lost, that
// leaves 10 kB/s, and calls of seconds. The other end's DTLS drops the second of two packets as a replay (RFC 6347, 4.1.2.6), and SCTP
// would.
type doubler struct {
	on atomic.Bool

	mu     sync.Mutex
	bucket pace.Bucket
}

// again reports whether a packet is to be sent once more.
func (d *doubler) again(b []byte) bool {
	if !d.on.Load() || !isData(b) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bucket.Take(time.Now(), doubledRate) == 0
}

// isData reports whether a packet is a DTLS record of application data (RFC 6347, 4.1), by itself or in a message for a TURN server
// (ChannelData in RFC 8656, 12.4).
func isData(b []byte) bool {
	const channelData, header, applicationData = 0b01, 4, 23
	if len(b) > header && b[0]>>6 == channelData {
		b = b[header:]
	}
	return len(b) > 0 && b[0] == applicationData
}

// doubledUDP is a socket for the packets of one session, and doubledPackets one for packets to a TURN server.
type doubledUDP struct {
	fastUDP
	twice *doubler
}

func (c doubledUDP) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.twice.again(b) {
		_, _ = c.fastUDP.WriteToAddrPort(b, to)
	}
	return c.fastUDP.WriteToAddrPort(b, to)
}

type doubledPackets struct {
	net.PacketConn
	twice *doubler
}

func (c doubledPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.twice.again(b) {
		_, _ = c.PacketConn.WriteTo(b, to)
	}
	return c.PacketConn.WriteTo(b, to)
}

// doublingMux is a mux for one session.
type doublingMux struct {
	*mux
	twice *doubler
}

func (m doublingMux) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	return m.conn(ufrag, addr, m.twice)
}

// progress is what is known of what a peer acknowledges.
type progress struct {
	acknowledged uint64    // bytes, at the last look
	waits        bool      // more was to be acknowledged then
	at           time.Time // when one of these was news
	stalledAt    time.Time
}

// look takes how many bytes have been acknowledged, and reports whether there is, or was a short while ago, a stall. Nothing is
// expected if waits is false.
func (p *progress) look(now time.Time, acknowledged uint64, waits bool, roundTrip func() time.Duration) bool {
	if waits != p.waits || acknowledged != p.acknowledged {
		p.acknowledged, p.waits, p.at = acknowledged, waits, now
	} else if waits && now.Sub(p.at) >= max(stallLeast, stallTrips*roundTrip()) {
		p.stalledAt = now
	}
	return !p.stalledAt.IsZero() && now.Sub(p.stalledAt) < doubledFor
}

// watchProgress has packets sent twice while there are stalls. An outage is none.
func (s *session) watchProgress(now time.Time) {
	waiting, acknowledged := s.peer.transit.count()
	s.twice.on.Store(s.progress.look(now, acknowledged, waiting > 0 && !s.recovering, s.roundTrip))
}
