package otelmesh

import (
	"context"
	"net/netip"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/chatixia-ai/mesh"
)

// Observer returns an observer that counts what happens to a mesh:
//
//	mesh.links.begun       counter of links to peers that came up
//	mesh.links.ended       counter of those that were lost, by error.type: "peer_gone" or "sidecar_lost"
//	mesh.path.changes      counter of links that have moved to another path, by mesh.path, the new one
//	mesh.sidecar.restarts  counter, by error.type
//	mesh.messages.dropped  counter of messages of peers, by mesh.drop.reason
//
// None has the id of a peer, of which there may be any number in the course of time. How many links there are tells Watch: a mesh that
// is closed reports none of its links as ended.
func Observer(options ...Option) mesh.Observer {
	c := newConfig(options)
	meter := c.meter()
	begun := made(meter.Int64Counter("mesh.links.begun", metric.WithUnit("{link}"),
		metric.WithDescription("Links to peers that came up.")))
	ended := made(meter.Int64Counter("mesh.links.ended", metric.WithUnit("{link}"),
		metric.WithDescription("Links to peers that were lost.")))
	paths := made(meter.Int64Counter("mesh.path.changes", metric.WithUnit("{change}"),
		metric.WithDescription("Links that have moved to another path.")))
	restarts := made(meter.Int64Counter("mesh.sidecar.restarts", metric.WithUnit("{restart}"),
		metric.WithDescription("Sidecars that have come up in place of one that was lost.")))
	dropped := made(meter.Int64Counter("mesh.messages.dropped", metric.WithUnit("{message}"),
		metric.WithDescription("Messages of peers that were dropped.")))
	count := func(counter metric.Int64Counter, attr attribute.KeyValue) {
		counter.Add(context.Background(), 1, metric.WithAttributes(attr))
	}
	failure := func(err error) attribute.KeyValue {
		if code := sentinel(err); code != "" {
			return semconv.ErrorTypeKey.String(code)
		}
		return semconv.ErrorTypeOther
	}
	return mesh.Observer{
		LinkUp:      func(mesh.Peer) { begun.Add(context.Background(), 1) },
		LinkDown:    func(_ mesh.Peer, err error) { count(ended, failure(err)) },
		PathChanged: func(_ mesh.Peer, path mesh.Path, _, _ netip.AddrPort) { count(paths, keyPath.String(string(path))) },
		Restarted:   func(cause error) { count(restarts, failure(cause)) },
		Dropped:     func(_, _, reason string) { count(dropped, keyReason.String(reason)) },
	}
}
