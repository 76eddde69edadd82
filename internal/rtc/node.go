//go:build !js

// A browser brings its own WebRTC: of the API that this package uses, pion offers next to nothing there.

// Package rtc keeps the peer links to other sidecars: it connects over WebRTC, with offers, answers and
// candidates that a signaling server relays, repairs the links, and carries lines over them.
//
// It is the only package that knows pion.
//
// All decisions are made in one goroutine, the node's loop, which works through a mailbox that signaling,
// timers and pion's callbacks post to. Each link has a reader and a writer of its own, so that messages never
// pass the loop. A negotiation decides what an offer or answer means, a session carries it out on one
// PeerConnection, a slot is what is known of one peer id, and a Peer is a link that carries messages.
package rtc

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/pace"
	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// maxSlots bounds the peers that are known at a time.
	maxSlots = 4096
	// maxAttempts bounds the links that are being made at a time, by either side. Dials beyond it are
	// queued, offers are dropped.
	maxAttempts = 256
	// maxClosing bounds the connections that are being closed: beyond it offers are dropped, since each
	// may end one.
	maxClosing = 256
	// maxParked bounds the superseded sessions with one base peer. Ending one makes it forget us.
	maxParked = 16
	// maxMail bounds the memory of queued messages from signaling, in bytes, and maxMailFrom that of one peer's.
	// mailCost is what one costs besides its payload.
	maxMail     = 16 << 20
	maxMailFrom = 1 << 20
	mailCost    = 512
	// maxICEURLs bounds the URLs of STUN and TURN servers: each link asks all of them.
	maxICEURLs = 32
	// maxIDLength bounds the ids that come from outside.
	maxIDLength = 256
	// maxSilence is how many offers in a row a peer may leave unanswered before we wait for its own.
	maxSilence = 6
)

// Signaler sends messages to the signaling server. Its methods must not block.
type Signaler interface {
	Send(signal.Message) error
	// Probe says that the connection is needed now, and calls alive when the server has responded.
	Probe(alive func())
}

// Node holds the links of one sidecar. Its methods may be called from any goroutine.
//
// Registered, Receive, Disconnected and ICEServers are methods of a signal.Handler, to be called in the order
// of the events. None of them blocks.
type Node struct {
	cfg Config
	log zerolog.Logger
	// outside is the log of what others can cause at will.
	outside *logs.Outside
	sig     Signaler
	ev      Events
	api     *api
	box     *mailbox
	mail    mail
	lines   *lineMemory
	door    door
	relief  relief.Watch   // of the readers
	wg      sync.WaitGroup // the loop, closers of connections, readers and writers

	endWatch  context.CancelFunc // ends watchIdentities and watchHost
	closeOnce sync.Once
	closed    chan struct{}
	closeErr  error

	peersMu sync.Mutex
	peers   map[*Peer]struct{} // those whose reader runs

	// Owned by the loop.
	self    string // our peer id, as signaling knows it
	online  bool   // signaling is connected and we are registered
	ending  bool   // Close was called: no new links
	stopped bool   // the loop is to end
	slots   map[string]*slot
	closing int // connections being closed

	heardAt, registeredAt time.Time   // of signaling: it has responded, and registered us
	probing               *time.Timer // until the next probe
	watching              *time.Timer // until the next look at the paths

	dials dials
	// refusals bounds how often Events is told of refused identities that nobody asked for.
	refusals pace.Bucket
	addrs    []netip.Addr // at which other hosts may reach this one, at the last change
	// faults bounds how often it is told of files that links could not be made without.
	faults pace.Bucket
}

// New returns a node, which connects to no peer before Registered is called. Close it. An error is about the
// setting that is wrong, or about this host's network.
func New(cfg Config, sig Signaler, ev Events) (*Node, error) {
	cfg = cfg.withDefaults()
	a, err := newAPI(cfg)
	if err != nil {
		return nil, fmt.Errorf("rtc: %w", err)
	}
	n := &Node{
		cfg: cfg, log: cfg.Log,
		outside: logs.NewOutside(cfg.Log, logs.AgentBurst),
		sig:     sig, ev: ev, api: a, box: newMailbox(),
		lines:  newLineMemory(&cfg),
		closed: make(chan struct{}),
		peers:  make(map[*Peer]struct{}),
		door:   door{socket: cfg.Socket},
		slots:  make(map[string]*slot),
	}
	if addrs, _, err := a.net.addrs(); err == nil { // else all of them will be news
		n.addrs = reach(addrs)
	}
	n.wg.Go(n.loop)
	ctx, cancel := context.WithCancel(context.Background())
	n.endWatch = cancel
	if cfg.Identity.Watches() {
		n.wg.Go(func() { n.watchIdentities(ctx) })
	}
	if _, ok := a.net.Net.(system); ok {
		n.wg.Go(func() { n.watchHost(ctx) })
	}
	return n, nil
}

// fromSignaling is the source of what the signaling server causes.
const fromSignaling = "signaling"

func (n *Node) loop() {
	for !n.stopped {
		for _, f := range n.box.take() {
			if !n.stopped {
				f()
			}
		}
	}
	n.box.close()
}

// Connect asks for a link to a peer, and does not block. If none is up within Config.ConnectTimeout, or the
// attempt fails for a reason that time does not mend, Events.ConnectFailed is called. If there is a link,
// nothing happens.
func (n *Node) Connect(id string) {
	n.box.post(func() { n.connect(id) })
}

// Registered is called when signaling has connected and registered us as self, with the other peers that
// are registered.
func (n *Node) Registered(self string, l signal.PeersPayload) {
	n.box.post(func() { n.registered(self, l) })
}

// Disconnected is called when signaling has lost its connection. Links are not affected.
func (n *Node) Disconnected() {
	n.box.post(func() { n.online = false })
}

// ICEServers replaces the ICE servers, for links and ICE restarts that begin after it. Relayed links whose credentials
// expire soon are restarted.
func (n *Node) ICEServers(servers []signal.ICEServer) {
	n.box.post(func() {
		var usable []webrtc.ICEServer
		urls := 0
		for _, s := range servers {
			server, err := n.api.server(s)
			if urls += len(s.URLs); err == nil && urls > maxICEURLs {
				err = fmt.Errorf("over %d URLs", maxICEURLs)
			}
			if err != nil {
				n.outside.Warn(fromSignaling).Str("reason", logs.Cut(err.Error())).Msg("ICE server not usable; leaving it out")
				continue
			}
			usable = append(usable, server)
		}
		n.api.servers = usable
		n.api.turn.use(usable)
		for _, sl := range n.slots {
			if sl.cur != nil {
				sl.cur.renew()
			}
		}
	})
}

// Close flushes until ctx ends, ends all links, which their peers notice at once, and returns when all
// goroutines have ended. Its error names the peers that do not have all that was sent to them. A further call
// returns when the first does, with the same error.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() {
		defer close(n.closed)
		n.box.post(func() { n.ending = true })
		n.closeErr = n.Flush(ctx)
		n.box.post(n.stop)
		n.endWatch()
		n.lines.close()
		n.door.close()
		n.wg.Wait()
		n.relief.Close()
		n.api.close()
	})
	<-n.closed
	return n.closeErr
}

// start starts a peer's reader and writer.
func (n *Node) start(p *Peer) {
	n.peersMu.Lock()
	n.peers[p] = struct{}{}
	n.peersMu.Unlock()
	n.wg.Go(func() {
		p.write()
		p.endStreams()
	})
	n.wg.Add(1)
	r := p.newReader(&n.relief, func() {
		n.peersMu.Lock()
		delete(n.peers, p)
		n.peersMu.Unlock()
		n.wg.Done()
	})
	go r.run() // until it says that it has ended
}

// stop ends all sessions and then the loop.
func (n *Node) stop() {
	n.stopped = true
	stopTimer(n.dials.wakeUp)
	stopTimer(n.probing)
	stopTimer(n.watching)
	n.api.hurry()
	for _, sl := range n.slots {
		if sl.connecting {
			n.connectFailed(sl, wire.CodePeerUnavailable, ErrClosed)
		}
		n.drop(sl, ErrClosed)
		sl.stop()
	}
	clear(n.slots)
}
