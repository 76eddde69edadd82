//go:build !js

package rtc

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	defaultRecoveryTimeout = 60 * time.Second
	defaultConnectTimeout  = 30 * time.Second
	defaultQueueHigh       = 1 << 20
	defaultQueueLow        = 256 << 10
)

// Config configures a Node. The zero value works for peers on the same network.
type Config struct {
	Settings
	// Instance distinguishes this process from earlier ones with the same peer id. Default: random.
	Instance string
	// Limits bounds messages in both directions. Defaults: those of package wire.
	Limits wire.Limits
	// Identity decides who is at the other end of a link. Default: one without a key, of policy Off.
	Identity *identity.Identity
	// ICEServers are the STUN and TURN servers until [Node.ICEServers] is called.
	ICEServers []signal.ICEServer
	// RootCAs returns the authorities that are trusted with TURN servers that are reached by TLS. Nil means the system's.
	RootCAs func() (*x509.CertPool, error)
	// ConnectTimeout bounds each attempt to connect, and a call to Connect. Default 30 s.
	ConnectTimeout time.Duration
	// A lane of the queue to a peer is congested from when more than QueueHigh bytes are in it until no more than QueueLow
	// are. Beyond QueueHard, Send fails. Defaults: 1 MiB; 256 KiB, but at most half of QueueHigh; QueueHigh
	// and two messages of the largest size.
	QueueHigh, QueueLow, QueueHard int
	// Log receives what happens to peers. Message contents are never logged.
	Log zerolog.Logger

	// Socket is that of a sidecar's process, beside which there is room for another one; "" if there is none.
	Socket string

	boot string                  // the id of this host, "" if it has none
	card *atomic.Pointer[[]byte] // see Node.SetCard; nil until withDefaults

	timing timing
	// net, ipFilter, lookup and proxy replace the network, or parts of it, in tests.
	net      transport.Net
	now      func() time.Time // of what takes weeks
	ipFilter func(net.IP) bool
	lookup   func(ctx context.Context, network, host string) ([]netip.Addr, error)
	proxy    func(*http.Request) (*url.URL, error)
}

// timing holds the delays, which tests shorten.
type timing struct {
	backoffMin, backoffMax time.Duration // between attempts, doubled each time
	repairMin, repairMax   time.Duration // between the steps of a repair, likewise
	probe                  time.Duration // between probes of signaling while a link is interrupted
	checking               time.Duration // how long a restart that was answered is left alone, and may outlast RecoveryTimeout
	watch                  time.Duration // between looks at the paths of links
	silence                time.Duration // how long a path may carry checks, and nothing else, while something is to be acknowledged
	doubt                  time.Duration // the same after the other end has said that it has no path
	dead                   time.Duration // how long a peer that has left must have been silent to be dead
	hurry                  time.Duration // how long a peer whose link was given up is dialled with little delay
	dialPace               time.Duration // how long a dial counts towards maxDials
	offerPace              time.Duration // between a peer's offers that are taken up, after a burst
	lasting                time.Duration // how long a link must have been up for its end to count as the first failure
	refused                time.Duration // between two reports that a peer was refused
	renewMin               time.Duration // between restarts for new TURN credentials, at least
	longLine               time.Duration // how long a line may take, from when it last needed memory, while others wait
	identityWatch          time.Duration // between looks at what may end an identity
	glareHold              time.Duration // how long a base peer's offer is held for the answer to ours
	baseSilence            time.Duration // how long a base peer may respond to no check
	baseWait               time.Duration // from the end of a base peer's link to our next offer
	baseClosed             time.Duration // the same if that peer has closed its end itself
	ice, iceBase           checks        // iceBase with a peer that is, or may be, a base peer
}

// checks say how ICE looks after a path.
type checks struct {
	keepalive    time.Duration // between two checks
	disconnected time.Duration // silence until the path counts as lost
	failed       time.Duration // further silence until it is given up
}

var defaultTiming = timing{
	backoffMin: time.Second,
	backoffMax: 5 * time.Minute,
	repairMin:  time.Second,
	repairMax:  2 * time.Second,
	probe:      2 * time.Second,
	// Restarts that were answered follow each other at the pace at which the other end takes them up.
	checking: 5 * time.Second,
	dead:     5 * time.Second,
	hurry:    5 * time.Minute,
	watch:    500 * time.Millisecond,
	silence:  4 * time.Second,
	doubt:    1500 * time.Millisecond,
	dialPace: time.Second,
	// An offer with as many candidates as are allowed costs the better part of a second of one core.
	offerPace:     5 * time.Second,
	lasting:       10 * time.Second,
	refused:       time.Minute,
	renewMin:      time.Minute,
	longLine:      time.Minute,
	identityWatch: 5 * time.Second,
	glareHold:     5 * time.Second,
	// Before a base peer forgets us for having heard nothing, after 5 s.
	baseSilence: 3 * time.Second,
	// A base peer forgets us when any of its connections to us fails, 30 s after it was cut, even one that
	// is not the current one.
	baseWait: 31 * time.Second,
	// One that closes its connection forgets us right after it has told us.
	baseClosed: 2 * time.Second,
	// Once ICE has given a path up, only a restart helps, for which both ends need signaling; until then the path
	// is used again as soon as it is back.
	ice: checks{keepalive: 2 * time.Second, disconnected: 4 * time.Second, failed: 90 * time.Second},
	// More often, so that baseSilence means more than a lost packet.
	iceBase: checks{keepalive: time.Second, disconnected: 3 * time.Second, failed: 90 * time.Second},
}

func (c Config) withDefaults() Config {
	if c.Identity == nil {
		c.Identity, _ = identity.Open(identity.Settings{}) // reads no file, so it cannot fail
	}
	if c.proxy == nil {
		c.proxy = http.ProxyFromEnvironment
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.Instance == "" {
		c.Instance = randomID()
	}
	if c.Limits.MaxMessage <= 0 {
		c.Limits.MaxMessage = wire.DefaultMaxMessage
	}
	if c.Limits.MaxDepth <= 0 {
		c.Limits.MaxDepth = wire.DefaultMaxDepth
	}
	if c.Limits.MaxStreams <= 0 {
		c.Limits.MaxStreams = wire.DefaultMaxStreams
	}
	if c.RecoveryTimeout <= 0 {
		c.RecoveryTimeout = defaultRecoveryTimeout
	}
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = defaultConnectTimeout
	}
	if c.QueueHigh <= 0 {
		c.QueueHigh = defaultQueueHigh
	}
	if c.QueueLow <= 0 {
		c.QueueLow = min(defaultQueueLow, c.QueueHigh/2)
	}
	if c.QueueHard <= 0 {
		c.QueueHard = c.QueueHigh + 2*c.Limits.MaxMessage
	}
	if c.boot == "" && !c.NoLocal {
		c.boot = sock.Boot()
	}
	if c.card == nil {
		c.card = new(atomic.Pointer[[]byte])
	}
	if c.timing == (timing{}) {
		c.timing = defaultTiming
	}
	return c
}

// randomID returns a new id for a session or instance. It is no secret.
func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, since Go 1.24
	return hex.EncodeToString(b[:])
}
