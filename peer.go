package mesh

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const (
	// joinDelay is how long a silent agent keeps the sidecar off the mesh. An
	// agent that knows the extensions speaks at once; waiting for its hello means
	// that no message arrives before it is known how long a line may be.
	joinDelay = 250 * time.Millisecond
	// drainTimeout bounds a drain, goodbyeTimeout what is still sent for an
	// agent that vanished.
	drainTimeout   = 5 * time.Second
	goodbyeTimeout = time.Second
	// turnLifetime is how long ephemeral TURN credentials are valid; they are
	// renewed halfway.
	turnLifetime = 24 * time.Hour
)

// sampled is a logger for records that somebody else can cause without end: a
// hundred a second. What they count is in the records that remain.
func sampled(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: 100, Period: time.Second})
}

// features are the extensions of the link that both ends of this package know.
var features = []string{wire.FeatureError, wire.FeatureFlow, wire.FeatureCancel, wire.FeatureDrain}

var errUnauthorized = errors.New("mesh: the agent did not present the sidecar's token")

// A sidecar is the WebRTC side of one agent: it forwards between the link and
// the peer links, message bytes unchanged, and keeps no state about requests.
type sidecar struct {
	set    settings
	limits wire.Limits
	log    zerolog.Logger
	noise  zerolog.Logger // log, for what an agent or a peer can cause without end
	link   *link
	node   *rtc.Node
	client *signal.Client

	spoke    chan struct{}         // closed when the agent's first line was handled
	terms    atomic.Pointer[terms] // from the agent's hello; nil for a base-only agent
	draining atomic.Bool
	// congested counts the remotes that are.
	congested atomic.Int32
	work      sync.WaitGroup

	mu      sync.RWMutex
	remotes map[string]*remote // live peers by id
	status  signal.Status

	badLines, badPeerLines, dropped atomic.Int64 // counted in the log
}

// serveSidecar is the sidecar of the agent at the far end of l, until the agent is
// gone (nil), ctx ends, or the agent turns out not to know the token
// (errUnauthorized). When it returns, l and everything it started has ended.
func serveSidecar(ctx context.Context, l *link, set settings, log zerolog.Logger) error {
	s := &sidecar{
		set: set, limits: set.limits(), log: log, noise: sampled(log),
		link:    l,
		spoke:   make(chan struct{}),
		remotes: make(map[string]*remote),
		status:  signal.Status{State: signal.Connecting},
	}
	s.client = signal.New(set.signaling(log))
	node, err := rtc.New(rtc.Config{
		Limits: s.limits, ICEServers: s.iceServers(), RelayOnly: set.RelayOnly,
		UDPPort: set.UDPPort, UDPMux: set.UDPMux, Loopback: !set.NoLoopback, MDNS: set.MDNS,
		RecoveryTimeout: set.RecoveryTimeout, Log: log,
		QueueHigh: outboundHigh, QueueHard: outboundHigh + crossing(s.limits),
	}, s.client, s)
	if err != nil {
		s.link.close()
		return err
	}
	s.node = node
	return s.serve(ctx)
}

func (s *settings) signaling(log zerolog.Logger) signal.Config {
	return signal.Config{
		URL: s.SignalingURL, TokenURL: s.TokenURL, APIKey: s.APIKey,
		FetchICE: len(s.ICEServers) == 0, Log: log,
	}
}

// checkCredentials returns once the signaling server has accepted the API key,
// or with an error that wraps ErrRefused; until it can be asked, it tries again.
func checkCredentials(ctx context.Context, set settings) error {
	return signal.New(set.signaling(zerolog.Nop())).CheckCredentials(ctx)
}

func (s *sidecar) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, s.link.close)
	defer stop()
	s.work.Go(s.link.writeLoop)
	s.work.Go(func() { s.join(ctx) })
	if s.set.TURNSecret != "" {
		s.work.Go(func() { s.renewTURN(ctx) })
	}

	err := s.read(ctx)

	// One second for all of it: most often the agent's peers die with it.
	goodbye, done := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer done()
	if flushErr := s.node.Flush(goodbye); flushErr != nil && err == nil {
		s.log.Warn().Err(flushErr).Msg("the agent left before everything was sent")
	}
	_ = s.link.flush(goodbye) // the last word to an agent that is not let in
	cancel()
	_ = s.node.Close(goodbye) // what it could not send was logged just now
	s.link.close()
	s.work.Wait()
	return err
}

// join enters the mesh once the agent is there.
func (s *sidecar) join(ctx context.Context) {
	silence := time.NewTimer(joinDelay)
	defer silence.Stop()
	quiet := silence.C
	if s.set.Token != "" {
		quiet = nil // nothing happens for an agent that is not known yet
	}
	select {
	case <-s.spoke:
	case <-quiet:
	case <-ctx.Done():
		return
	}
	if err := s.client.Run(ctx, s); err != nil && ctx.Err() == nil {
		s.log.Error().Err(err).Msg("signaling ended")
	}
}

func (s *sidecar) remote(id []byte) *remote {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.remotes[string(id)]
}

func (s *sidecar) peers() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := make([]string, 0, len(s.remotes))
	for id := range s.remotes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// event writes a line of the base protocol.
func (s *sidecar) event(to account, add func([]byte) []byte) {
	// The link refuses only when it is closed, and then nobody listens, or when
	// the agent has not read for a very long time. An agent that misses events
	// would be wrong about its peers for good, so that is the end.
	if err := s.link.writeNow(to, add); errors.Is(err, errLinkOverflow) {
		s.log.Error().Err(err).Msg("the agent does not read: its link is closed")
		s.link.close()
	}
}

// tell writes a line of an extension, if the agent knows it.
func (s *sidecar) tell(feature string, add func([]byte) []byte) {
	if s.knows(feature) {
		s.event(nil, add)
	}
}

func (s *sidecar) tellStatus() {
	s.mu.RLock()
	st := s.status
	s.mu.RUnlock()
	e := wire.Signaling{State: string(st.State), PeerID: st.PeerID}
	if st.Err != nil {
		e.Error = st.Err.Error()
	}
	s.tell(wire.FeatureError, func(b []byte) []byte { return wire.AppendSignaling(b, e) })
}

func (s *sidecar) tellError(e wire.ErrorEvent) {
	s.tell(wire.FeatureError, func(b []byte) []byte { return wire.AppendError(b, e) })
}

// What the peer links report (rtc.Events).

// PeerConnected announces a live peer to the agent.
func (s *sidecar) PeerConnected(p *rtc.Peer) {
	r := &remote{sidecar: s, peer: p, told: flow{reading: true}}
	s.mu.Lock()
	s.remotes[p.ID()] = r
	s.mu.Unlock()
	s.log.Info().Str("peer", p.ID()).Bool("extended", p.Extended()).Msg("peer connected")
	s.event(nil, func(b []byte) []byte { return wire.AppendPeerConnected(b, p.ID()) })
}

// PeerDisconnected announces its end.
func (s *sidecar) PeerDisconnected(p *rtc.Peer, reason error) {
	s.mu.Lock()
	r := s.remotes[p.ID()]
	delete(s.remotes, p.ID())
	s.mu.Unlock()
	if r != nil {
		r.end()
	}
	s.log.Info().Str("peer", p.ID()).AnErr("reason", reason).Msg("peer disconnected")
	s.event(nil, func(b []byte) []byte { return wire.AppendPeerDisconnected(b, p.ID()) })
}

// PeerLine forwards what a peer sent. The peer's name comes from its link,
// never from the message.
func (s *sidecar) PeerLine(p *rtc.Peer, l *wire.PeerLine) {
	s.mu.RLock()
	r := s.remotes[p.ID()]
	s.mu.RUnlock()
	if r == nil {
		return
	}
	switch l.Kind {
	case wire.PeerMessage:
		s.forward(r, &l.Message)
	case wire.PeerCancel:
		s.tell(wire.FeatureCancel, func(b []byte) []byte { return wire.AppendCancelEvent(b, p.ID(), string(l.RequestID)) })
	case wire.PeerPause, wire.PeerResume:
		r.setRefused(l.Kind == wire.PeerPause)
	}
}

// forward gives the agent a message, unless it is one that the agent does not read.
func (s *sidecar) forward(r *remote, m *wire.Message) {
	id, t := r.peer.ID(), s.terms.Load()
	var unread error
	s.event(r, func(b []byte) []byte {
		n := len(b)
		b = wire.AppendMessage(b, id, m.Raw)
		if unread = t.check(m.Raw, len(b)-n); unread != nil {
			b = b[:n]
		}
		return b
	})
	if unread != nil {
		s.noise.Warn().Str("peer", id).Int("bytes", len(m.Raw)).Int64("dropped", s.dropped.Add(1)).AnErr("reason", unread).
			Msg("message dropped: the agent does not read it")
	}
	r.arrived(m)
}

// PeerRejected logs and counts what a peer sent and no agent will see.
func (s *sidecar) PeerRejected(p *rtc.Peer, err error) {
	s.noise.Warn().Str("peer", p.ID()).Int64("count", s.badPeerLines.Add(1)).Err(err).Msg("line from a peer rejected")
}

// PeerCongested follows the queue towards a peer.
func (s *sidecar) PeerCongested(p *rtc.Peer, congested bool) {
	s.mu.RLock()
	r := s.remotes[p.ID()]
	s.mu.RUnlock()
	if r != nil {
		r.setCongested(congested)
	}
}

// ConnectFailed answers a connect that led nowhere.
func (s *sidecar) ConnectFailed(id string, err *wire.Error) {
	s.log.Info().Str("peer", id).Err(err).Msg("connect failed")
	s.tellError(wire.ErrorEvent{Code: err.Code, Message: err.Text, Command: wire.TypeConnect.String(), TargetPeer: id})
}

// What the signaling client reports (signal.Handler).

// Registered passes on who is there.
func (s *sidecar) Registered(self string, peers []string) { s.node.Registered(self, peers) }

// Receive passes on an offer, an answer, a candidate or an error.
func (s *sidecar) Receive(m signal.Message) { s.node.Receive(m) }

// Disconnected tells that nothing can be negotiated for now.
func (s *sidecar) Disconnected() { s.node.Disconnected() }

// ICEServers passes on the servers that the signaling server recommends.
func (s *sidecar) ICEServers(servers []signal.ICEServer) {
	s.node.ICEServers(slices.Concat(servers, s.set.ExtraICEServers))
}

// Status tells the agent how the signaling connection fares.
func (s *sidecar) Status(st signal.Status) {
	s.mu.Lock()
	s.status = st
	s.mu.Unlock()
	s.log.Info().Str("state", string(st.State)).Str("peer_id", st.PeerID).AnErr("reason", st.Err).Msg("signaling")
	s.tellStatus()
}

// iceServers fills in ephemeral TURN credentials where a secret was configured.
func (s *sidecar) iceServers() []signal.ICEServer {
	if s.set.TURNSecret == "" {
		return slices.Concat(s.set.ICEServers, s.set.ExtraICEServers)
	}
	user, password := signal.TURNCredentials(s.set.TURNSecret, time.Now().Add(turnLifetime))
	servers := slices.Concat(s.set.ICEServers, s.set.ExtraICEServers)
	for i := range s.set.ICEServers {
		if servers[i].Username == "" {
			servers[i].Username, servers[i].Credential = user, password
		}
	}
	return servers
}

func (s *sidecar) renewTURN(ctx context.Context) {
	t := time.NewTicker(turnLifetime / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.node.ICEServers(s.iceServers())
		case <-ctx.Done():
			return
		}
	}
}
