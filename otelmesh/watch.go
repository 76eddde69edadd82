package otelmesh

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/chatixia-ai/mesh"
)

const (
	// patience is how long a reader waits for the numbers of a mesh.
	patience = time.Second
	// maxPeers is how many links have metrics of their own.
	maxPeers = 500
)

// Watch gives a meter provider the numbers of a mesh's links, from Mesh.Stats, which is asked when a reader of the provider
// collects and at no other time. stop ends that; a mesh that has been closed has no numbers, also without it. Watch a mesh once for
// each provider: numbers that are observed twice are added.
//
//	mesh.links              how many are up
//	mesh.peer.rtt           gauge, in seconds, once it is known
//	mesh.peer.messages      counter, by network.io.direction: "transmit" or "receive"
//	mesh.peer.io            counter of bytes, likewise
//	mesh.peer.queued        bytes of messages that wait in the sidecar
//	mesh.peer.requests      requests in work, by mesh.request.side: "handling" here, or "pending" at the peer
//	mesh.peer.streams       streams that are open
//	mesh.peer.outages       counter of those that the link has survived
//	mesh.peer.hold          gauge by mesh.hold.side, "held_back" here or "paused" there: 0 nothing, 1 ordered, 2 new work, 3 all
//	mesh.peer.link          1, by mesh.path
//	mesh.signaling.up       1 while signaling is connected, else 0
//	mesh.sidecar.dropped    counter of messages that the sidecar has dropped, which no Observer is told of
//
// All have mesh.agent.id, the id of this agent, and those of a peer mesh.peer.id. Only live links have numbers, and no more than the
// 500 that have been up longest, so that strangers who come and go do not add up. A counter goes on when a peer comes back between
// two collections.
//
// When the mesh does not tell its numbers within a second there are none in that collection; why is told to OpenTelemetry's
// error handler, except that a sidecar is being restarted or the mesh has ended.
func Watch(m *mesh.Mesh, options ...Option) (stop func() error, err error) {
	return watchStats(newConfig(options).meter(), m.Stats, m.ID)
}

func watchStats(meter metric.Meter, stats func(context.Context) (mesh.Stats, error), id func() string) (stop func() error, err error) {
	gauge := func(name, unit, text string) metric.Int64ObservableGauge {
		return made(meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text)))
	}
	sum := func(name, unit, text string) metric.Int64ObservableUpDownCounter {
		return made(meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text)))
	}
	counter := func(name, unit, text string) metric.Int64ObservableCounter {
		return made(meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text)))
	}
	w := &watch{
		stats: stats, id: id, totals: make(map[string]*total),
		rtt: made(meter.Float64ObservableGauge("mesh.peer.rtt", metric.WithUnit("s"),
			metric.WithDescription("Round trip time of a link, as ICE has measured it last."))),
		messages:  counter("mesh.peer.messages", "{message}", "Messages of a link."),
		io:        counter("mesh.peer.io", "By", "Bytes of a link's messages and streams."),
		outages:   counter("mesh.peer.outages", "{outage}", "Outages that a link has survived."),
		links:     sum("mesh.links", "{link}", "Links to peers that are up."),
		queued:    sum("mesh.peer.queued", "By", "Bytes of messages that wait in the sidecar."),
		requests:  sum("mesh.peer.requests", "{request}", "Requests in work."),
		streams:   sum("mesh.peer.streams", "{stream}", "Streams that are open."),
		hold:      gauge("mesh.peer.hold", "{level}", "What is held back: 0 nothing, 1 ordered messages, 2 new requests, 3 all."),
		link:      gauge("mesh.peer.link", "{link}", "1 for each link that is up, with its path."),
		signaling: gauge("mesh.signaling.up", "{connection}", "1 while signaling is connected."),
		dropped:   counter("mesh.sidecar.dropped", "{message}", "Messages that the sidecar has dropped."),
	}
	r, err := meter.RegisterCallback(w.collect, w.links, w.rtt, w.messages, w.io, w.outages, w.queued, w.requests, w.streams, w.hold, w.link, w.signaling, w.dropped)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// A watch has the instruments for the numbers of a mesh.
type watch struct {
	stats                            func(context.Context) (mesh.Stats, error)
	id                               func() string
	rtt                              metric.Float64ObservableGauge
	messages, io, outages, dropped   metric.Int64ObservableCounter
	links, queued, requests, streams metric.Int64ObservableUpDownCounter
	hold, link, signaling            metric.Int64ObservableGauge

	mu     sync.Mutex
	totals map[string]*total // of the peers in the last collection
	unable bool              // it was told that the sidecar has no numbers
}

// A total goes on where a link has ended and the next one begins.
type total struct {
	since        time.Time
	before, last counts // of the links before this one, and of this one
}

// counts are those numbers of a link that only grow.
type counts struct{ sent, received, out, in, outages int64 }

func (c counts) plus(d counts) counts {
	return counts{c.sent + d.sent, c.received + d.received, c.out + d.out, c.in + d.in, c.outages + d.outages}
}

// collect is called when a reader collects. It returns no error: that would keep a reader from exporting what others have measured.
func (w *watch) collect(ctx context.Context, to metric.Observer) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	st, err := w.stats(ctx)
	if err != nil {
		w.failed(err)
		return nil
	}
	agent := keyAgent.String(w.id())
	self := metric.WithAttributeSet(attribute.NewSet(agent))
	to.ObserveInt64(w.signaling, truth(st.Signaling.State == mesh.SignalingConnected), self)
	to.ObserveInt64(w.dropped, int64(st.Dropped[mesh.DropSidecar]), self)
	to.ObserveInt64(w.links, int64(len(st.Peers)), self)
	if len(st.Peers) > maxPeers {
		slices.SortStableFunc(st.Peers, func(a, b mesh.PeerStats) int { return a.Since.Compare(b.Since) })
		st.Peers = st.Peers[:maxPeers]
	}
	sums := w.sums(st.Peers)
	for i := range st.Peers {
		w.observe(to, agent, &st.Peers[i], sums[i])
	}
	return nil
}

// failed tells why there are no numbers.
func (w *watch) failed(err error) {
	for _, expected := range []error{mesh.ErrSidecarLost, mesh.ErrClosed, mesh.ErrReplaced, mesh.ErrIDInUse, mesh.ErrCrashLoop} {
		if errors.Is(err, expected) {
			return
		}
	}
	if errors.Is(err, errors.ErrUnsupported) {
		w.mu.Lock()
		told := w.unable
		w.unable = true
		w.mu.Unlock()
		if told {
			return
		}
	}
	otel.Handle(err)
}

// sums returns what has been counted for each peer, its earlier links included, and forgets those that are not among them.
func (w *watch) sums(peers []mesh.PeerStats) []counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	live := make(map[string]*total, len(peers))
	sums := make([]counts, len(peers))
	for i := range peers {
		p := &peers[i]
		t := w.totals[p.ID]
		if t == nil {
			t = &total{since: p.Since}
		}
		if !t.since.Equal(p.Since) {
			t.since, t.before, t.last = p.Since, t.before.plus(t.last), counts{}
		}
		t.last = counts{int64(p.MessagesSent), int64(p.MessagesReceived), int64(p.BytesSent), int64(p.BytesReceived), int64(p.Outages)}
		live[p.ID], sums[i] = t, t.before.plus(t.last)
	}
	w.totals = live
	return sums
}

func (w *watch) observe(to metric.Observer, agent attribute.KeyValue, p *mesh.PeerStats, n counts) {
	peer := keyPeer.String(cut(p.ID, maxName))
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, agent, peer)...))
	}
	out, in := with(semconv.NetworkIODirectionTransmit), with(semconv.NetworkIODirectionReceive)
	alone := with()
	if p.RTT > 0 {
		to.ObserveFloat64(w.rtt, p.RTT.Seconds(), alone)
	}
	to.ObserveInt64(w.messages, n.sent, out)
	to.ObserveInt64(w.messages, n.received, in)
	to.ObserveInt64(w.io, n.out, out)
	to.ObserveInt64(w.io, n.in, in)
	to.ObserveInt64(w.outages, n.outages, alone)
	to.ObserveInt64(w.queued, int64(p.BytesQueued), alone)
	to.ObserveInt64(w.streams, int64(p.Streams), alone)
	to.ObserveInt64(w.requests, int64(p.Handling), with(keyWork.String("handling")))
	to.ObserveInt64(w.requests, int64(p.Pending), with(keyWork.String("pending")))
	to.ObserveInt64(w.hold, level(p.HeldBack), with(keyHold.String("held_back")))
	to.ObserveInt64(w.hold, level(p.Paused), with(keyHold.String("paused")))
	to.ObserveInt64(w.link, 1, with(keyPath.String(cmp.Or(string(p.Path), "unknown"))))
}

// level returns a Hold as a number that grows with what is held back.
func level(h mesh.Hold) int64 {
	return int64(1 + slices.Index([]mesh.Hold{mesh.HoldOrdered, mesh.HoldNewWork, mesh.HoldAll}, h))
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
