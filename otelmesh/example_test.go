package otelmesh_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/otelmesh"
	"github.com/chatixia-ai/mesh/signaling"
)

// newSignaling starts a signaling server for an example. In development mode the API key of an agent is its peer id.
func newSignaling() (url string, stop func()) {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(server)
	return "ws" + strings.TrimPrefix(web.URL, "http") + "/ws", func() {
		server.Close()
		web.Close()
	}
}

// Alice asks bob, who asks carol: that is one trace.
func Example() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	spans := tracetest.NewInMemoryExporter() // in place of one that sends them somewhere
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	tracing := otelmesh.Interceptor(otelmesh.WithTracerProvider(tracers), otelmesh.WithPropagator(propagator))
	agent := func(name string, handlers map[string]mesh.Handler) *mesh.Mesh {
		m, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: name, Handlers: handlers, Interceptors: []mesh.Interceptor{tracing}})
		if err != nil {
			log.Fatal(err)
		}
		return m
	}
	carol := agent("carol", map[string]mesh.Handler{"count_request": mesh.Typed(countWords)})
	defer carol.Close()
	bob := agent("bob", map[string]mesh.Handler{"plan_request": func(ctx context.Context, msg *mesh.Message) (any, error) {
		return mesh.Call[words](ctx, msg.Mesh(), "carol", "count_request", text{"to be or not to be"})
	}})
	defer bob.Close()
	alice := agent("alice", nil)
	defer alice.Close()
	if err := bob.WaitPeer(ctx, "carol"); err != nil {
		log.Fatal(err)
	}
	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	if _, err := mesh.Call[words](ctx, alice, "bob", "plan_request", nil); err != nil {
		log.Fatal(err)
	}

	printTree(spans.GetSpans(), trace.SpanID{}, "")
	// Output:
	// client request plan_request, peer bob
	//   server handle plan_request, peer alice
	//     client request count_request, peer carol
	//       server handle count_request, peer bob
}

func printTree(spans []tracetest.SpanStub, parent trace.SpanID, indent string) {
	for _, s := range spans {
		if s.Parent.SpanID() == parent {
			fmt.Printf("%s%s %s, peer %s\n", indent, s.SpanKind, s.Name, attr(s, "mesh.peer.id"))
			printTree(spans, s.SpanContext.SpanID(), indent+"  ")
		}
	}
}

// Prometheus collects what an agent measures, at a page of the agent's.
func Example_prometheus() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		log.Fatal(err)
	}
	meters := otelmesh.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(exporter)))
	page := promhttp.HandlerFor(registry, promhttp.HandlerOpts{}) // http.Handle("/metrics", page)

	bob, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "bob", Handlers: map[string]mesh.Handler{"count_request": mesh.Typed(countWords)}})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	alice, err := mesh.New(ctx, mesh.Config{
		SignalingURL: url, APIKey: "alice",
		Interceptors: []mesh.Interceptor{otelmesh.Interceptor(meters)},
		Observer:     otelmesh.Observer(meters),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	unwatch, err := otelmesh.Watch(alice, meters)
	if err != nil {
		log.Fatal(err)
	}
	defer unwatch()
	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	for _, req := range []any{text{"to be"}, text{"or not"}, map[string]int{"text": 7}} {
		_, _ = mesh.Call[words](ctx, alice, "bob", "count_request", req)
	}

	response := httptest.NewRecorder()
	page.ServeHTTP(response, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(response.Body.String()) {
		name, _, _ := strings.Cut(line, "{")
		if slices.Contains([]string{"mesh_links", "mesh_links_begun_total", "messaging_client_sent_messages_total"}, name) {
			fmt.Println(withoutScope(line))
		}
	}
	// Output:
	// mesh_links{mesh_agent_id="alice"} 1
	// mesh_links_begun_total{} 1
	// messaging_client_sent_messages_total{messaging_destination_name="count_request",messaging_operation_name="request",messaging_system="mesh"} 2
	// messaging_client_sent_messages_total{error_type="invalid_argument",messaging_destination_name="count_request",messaging_operation_name="request",messaging_system="mesh"} 1
}

// withoutScope returns a line without the labels that say which package has measured it.
func withoutScope(line string) string {
	name, labels, _ := strings.Cut(strings.TrimSpace(line), "{")
	labels, value, _ := strings.Cut(labels, "}")
	list := slices.DeleteFunc(strings.Split(labels, ","), func(l string) bool { return strings.HasPrefix(l, "otel_scope_") })
	return name + "{" + strings.Join(list, ",") + "}" + value
}
