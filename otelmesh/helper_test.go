package otelmesh_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshtest"
	"github.com/chatixia-ai/mesh/otelmesh"
)

// propagator is what most programs have: W3C's trace context and baggage.
var propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

// A stage is a network of agents in memory, whose spans and metrics are collected here.
type stage struct {
	t      *testing.T
	net    *meshtest.Network
	spans  *tracetest.InMemoryExporter
	reader *metric.ManualReader
	meters *metric.MeterProvider
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, net: meshtest.New(t), spans: tracetest.NewInMemoryExporter(), reader: metric.NewManualReader()}
	s.meters = metric.NewMeterProvider(metric.WithReader(s.reader))
	return s
}

// join starts an agent that is traced.
func (s *stage) join(id string, handlers map[string]mesh.Handler, options ...otelmesh.Option) *mesh.Mesh {
	s.t.Helper()
	return s.net.Join(id, mesh.Config{Handlers: handlers, Interceptors: []mesh.Interceptor{otelmesh.Interceptor(s.options(id, options...)...)}})
}

// options are those with which an agent's spans and metrics come here.
func (s *stage) options(id string, more ...otelmesh.Option) []otelmesh.Option {
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans), sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", id))))
	return append([]otelmesh.Option{otelmesh.WithTracerProvider(tracers), otelmesh.WithMeterProvider(s.meters), otelmesh.WithPropagator(propagator)}, more...)
}

// ended returns the spans that have ended, once there are n, ordered by name and agent.
func (s *stage) ended(n int) []tracetest.SpanStub {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		spans := s.spans.GetSpans()
		if len(spans) == n {
			slices.SortFunc(spans, func(a, b tracetest.SpanStub) int { return strings.Compare(title(a), title(b)) })
			s.spans.Reset()
			return spans
		}
		if len(spans) > n || time.Now().After(end) {
			s.t.Fatalf("there are %d spans, want %d: %v", len(spans), n, titles(spans))
		}
	}
}

// title returns the agent, the kind and the name of a span.
func title(s tracetest.SpanStub) string {
	return s.Resource.Attributes()[0].Value.AsString() + ": " + s.SpanKind.String() + " " + s.Name
}

func titles(spans []tracetest.SpanStub) (list []string) {
	for _, s := range spans {
		list = append(list, title(s))
	}
	return list
}

// attr returns an attribute of a span; "" if it has none.
func attr(s tracetest.SpanStub, key string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// metrics returns what is measured: "name{key=value ...}", with the ends of the keys, and the value, of a histogram how many there are.
func (s *stage) metrics() map[string]float64 {
	s.t.Helper()
	var all metricdata.ResourceMetrics
	if err := s.reader.Collect(context.Background(), &all); err != nil {
		s.t.Fatal(err)
	}
	got := make(map[string]float64)
	note := func(name string, set attribute.Set, v float64) {
		var pairs []string
		for _, a := range set.ToSlice() {
			if a.Key != "messaging.system" {
				pairs = append(pairs, short(string(a.Key))+"="+a.Value.String())
			}
		}
		got[fmt.Sprintf("%s{%s}", name, strings.Join(pairs, " "))] = v
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					note(m.Name, p.Attributes, float64(p.Count))
				}
			default:
				s.t.Errorf("%s is of type %T", m.Name, data)
			}
		}
	}
	return got
}

// short returns the last two parts of a key.
func short(key string) string {
	parts := strings.Split(key, ".")
	return strings.Join(parts[max(len(parts)-2, 0):], ".")
}

// want checks some of the metrics.
func (s *stage) want(want map[string]float64) {
	s.t.Helper()
	got := s.metrics()
	for name, v := range want {
		if w, ok := got[name]; !ok || w != v {
			s.t.Errorf("%s is %v, want %v; there are %v", name, w, v, got)
		}
	}
}

type text struct {
	Text string `json:"text" mesh:"required"`
}

type words struct {
	Words int `json:"words"`
}

func countWords(_ context.Context, _ mesh.Peer, req text) (words, error) {
	return words{len(strings.Fields(req.Text))}, nil
}

func spell(_ context.Context, _ mesh.Peer, req text, emit func(string) error) (words, error) {
	list := strings.Fields(req.Text)
	for _, word := range list {
		if err := emit(word); err != nil {
			return words{}, err
		}
	}
	return words{len(list)}, nil
}

// handled counts the errors that go to OpenTelemetry's error handler, up to the end of the test.
func handled(t *testing.T) func() int64 {
	var n atomic.Int64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) { n.Add(1) }))
	t.Cleanup(func() { otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) })
	return n.Load
}
