package otelmesh

import (
	"context"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/chatixia-ai/mesh"
)

const (
	// maxEntry is the longest value in Meta that is looked at: baggage, the longest one that is standardised, may have as much.
	maxEntry = 8 << 10
	// maxEntries is how many names of Meta a propagator may see.
	maxEntries = 64
)

// A carrier is the Meta of a message to be sent. It is the caller's until something is added.
type carrier struct {
	msg   *mesh.Message
	owned bool
}

func (c *carrier) Get(name string) string { return c.msg.Meta[name] }
func (c *carrier) Keys() []string         { return slices.Collect(maps.Keys(c.msg.Meta)) }

func (c *carrier) Set(name, value string) {
	if !c.owned {
		c.msg.Meta, c.owned = maps.Clone(c.msg.Meta), true
		if c.msg.Meta == nil {
			c.msg.Meta = make(map[string]string, 2)
		}
	}
	c.msg.Meta[name] = value
}

// A received carrier is the Meta of a message that a peer has sent, of whatever size.
type received map[string]string

func (r received) Get(name string) string {
	v := r[name]
	if len(v) > maxEntry {
		return ""
	}
	if name == "baggage" && v != "" {
		// The propagator would tell OpenTelemetry's error handler, which logs, for each message.
		if _, err := baggage.Parse(v); err != nil {
			return ""
		}
	}
	return v
}

func (r received) Set(string, string) {} // nobody asks for it

func (r received) Keys() []string {
	names := make([]string, 0, min(len(r), maxEntries))
	for name := range r {
		if len(names) == maxEntries {
			break
		}
		names = append(names, name)
	}
	return names
}

// inject adds the trace of ctx to a message.
func inject(ctx context.Context, p propagation.TextMapPropagator, msg *mesh.Message) {
	p.Inject(ctx, &carrier{msg: msg})
}

// extract returns ctx with the trace that a message has come with, and with none if it has come with none: ctx itself descends from
// the one that the mesh was started with, whose span is not what the message is about.
func extract(ctx context.Context, p propagation.TextMapPropagator, meta map[string]string) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	}
	if baggage.FromContext(ctx).Len() > 0 {
		ctx = baggage.ContextWithoutBaggage(ctx)
	}
	if len(meta) == 0 {
		return ctx
	}
	return p.Extract(ctx, received(meta))
}
