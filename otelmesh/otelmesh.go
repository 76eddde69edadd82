// Package otelmesh tells OpenTelemetry what a mesh does: traces and durations of what is sent, asked and handled, by an interceptor;
// links that come and go, by an observer; the numbers of each link, by Watch.
//
//	m, err := mesh.New(ctx, mesh.Config{
//		Interceptors: []mesh.Interceptor{otelmesh.Interceptor()},
//		Observer:     otelmesh.Observer(),
//	})
//	stop, err := otelmesh.Watch(m)
//
// Names follow the semantic conventions for messaging where there is one; what they have no name for begins with "mesh.".
package otelmesh

import (
	"strings"
	"sync"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name of the instrumentation.
const scope = "github.com/chatixia-ai/mesh/otelmesh"

// Keys of attributes for which the conventions have none.
const (
	keyAgent     = attribute.Key("mesh.agent.id")         // this agent, in the metrics of Watch
	keyPeer      = attribute.Key("mesh.peer.id")          // in spans, and in the metrics of Watch
	keyPath      = attribute.Key("mesh.path")             // "direct", "relayed" or "local"
	keyReason    = attribute.Key("mesh.drop.reason")      // a constant mesh.Drop...
	keyChunks    = attribute.Key("mesh.stream.chunks")    // how many chunks a streamed reply had, in spans
	keyAbandoned = attribute.Key("mesh.stream.abandoned") // that its asker has left the loop, in spans
	keyWork      = attribute.Key("mesh.request.side")     // "handling" or "pending"
	keyHold      = attribute.Key("mesh.hold.side")        // "held_back" or "paused"
)

// attrSystem is the attribute that all spans and metrics of messages have.
var attrSystem = semconv.MessagingSystemKey.String("mesh")

// An Option is an option of Interceptor, Observer and Watch.
type Option func(*config)

type config struct {
	tracers     trace.TracerProvider
	meters      metric.MeterProvider
	propagator  propagation.TextMapPropagator
	types, code *names
}

// WithTracerProvider sets where spans go; by default to the global provider.
func WithTracerProvider(p trace.TracerProvider) Option { return func(c *config) { c.tracers = p } }

// WithMeterProvider sets where metrics go; by default to the global provider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(c *config) { c.meters = p } }

// WithPropagator sets how the context of a trace travels in Message.Meta; by default as the global propagator says, which
// does nothing until the program sets one. One that does nothing keeps the traces of peers apart from those of this agent.
func WithPropagator(p propagation.TextMapPropagator) Option {
	return func(c *config) { c.propagator = p }
}

// WithNames names message types, and codes of failures, that metrics are to tell apart although peers choose them: types that come
// to the handler of "", and codes with which peers respond. See Interceptor.
func WithNames(names ...string) Option {
	return func(c *config) {
		c.types.add(names)
		c.code.add(names)
	}
}

func newConfig(options []Option) *config {
	c := &config{
		tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider(), propagator: otel.GetTextMapPropagator(),
		types: newNames(maxTypes), code: newNames(maxCodes, knownCodes...),
	}
	for _, set := range options {
		set(c)
	}
	return c
}

func (c *config) meter() metric.Meter {
	return c.meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
}

// made returns an instrument. What is wrong with its name, which is a mistake of this package, goes where OpenTelemetry's errors go;
// the instrument then does nothing.
func made[I any](instrument I, err error) I {
	if err != nil {
		otel.Handle(err)
	}
	return instrument
}

const (
	// maxTypes is how many message types of this program metrics tell apart, and maxCodes how many codes of its handlers' failures.
	maxTypes, maxCodes = 128, 64
	// maxName is the length in bytes of the longest name in a metric, and of what a peer chooses in a span.
	maxName = 128
	// maxText is how much of the text of an error is in a span.
	maxText = 256
	// other stands for all names that are not told apart.
	other = "_OTHER"
)

// names are the values that an attribute of metrics may have: a bounded number.
type names struct {
	mu    sync.RWMutex
	known map[string]bool
	room  int // for names that this program comes up with
}

func newNames(room int, known ...string) *names {
	n := &names{known: make(map[string]bool), room: room}
	n.add(known)
	return n
}

func (n *names) add(list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range list {
		n.known[name] = true
	}
}

// has reports whether a name is known.
func (n *names) has(name string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.known[name]
}

// foreign returns a name that a peer has chosen, if it is known.
func (n *names) foreign(name string) string {
	if n.has(name) {
		return name
	}
	return other
}

// own returns a name that this program has chosen, as long as there is room.
func (n *names) own(name string) string {
	if n.has(name) {
		return name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.room == 0 || !usable(name) {
		return other
	}
	if !n.known[name] {
		n.room--
		n.known[name] = true
	}
	return name
}

// usable reports whether a name may be in a metric.
func usable(name string) bool { return name != "" && len(name) <= maxName && utf8.ValidString(name) }

// cut returns the first n bytes of a text, without half a character.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
