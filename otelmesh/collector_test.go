package otelmesh_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshtest"
	"github.com/chatixia-ai/mesh/otelmesh"
)

// The collector of OpenTelemetry, in a process of its own, gets the spans of both agents by OTLP, each with its parent. It is built
// from internal/collector, which takes a minute the first time.
func TestCollector(t *testing.T) {
	if os.Getenv("MESH_TEST_FULL") == "" {
		t.Skip("it builds a collector; run with MESH_TEST_FULL=1")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := startCollector(ctx, t)

	n := meshtest.New(t)
	agent := func(id string, handlers map[string]mesh.Handler) (*mesh.Mesh, *sdktrace.TracerProvider) {
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpoint(c.address), otlptracehttp.WithInsecure())
		if err != nil {
			t.Fatal(err)
		}
		tracers := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", id))))
		in := otelmesh.Interceptor(otelmesh.WithTracerProvider(tracers), otelmesh.WithPropagator(propagator))
		return n.Join(id, mesh.Config{Handlers: handlers, Interceptors: []mesh.Interceptor{in}}), tracers
	}
	_, bobs := agent("bob", map[string]mesh.Handler{"count_request": mesh.Typed(countWords)})
	alice, alices := agent("alice", nil)
	if _, err := mesh.Call[words](ctx, alice, "bob", "count_request", text{"to be"}); err != nil {
		t.Fatal(err)
	}
	if _, err := mesh.Call[words](ctx, alice, "bob", "count_request", 7); err == nil {
		t.Error("no error")
	}
	for _, tracers := range []*sdktrace.TracerProvider{alices, bobs} {
		if err := tracers.Shutdown(ctx); err != nil { // which sends what is left
			t.Error(err)
		}
	}
	got := c.end()
	spans := make(map[string][]map[string]string) // by agent
	for _, one := range regexp.MustCompile(`(?s)service\.name: Str\(\w+\).*?(ResourceSpans|$)`).FindAllString(got, -1) {
		service := regexp.MustCompile(`Str\((\w+)\)`).FindStringSubmatch(one)[1]
		for _, text := range strings.Split(one, "\nSpan #")[1:] {
			span := make(map[string]string)
			for _, m := range regexp.MustCompile(`(?m)^ +(?:-> )?([\w. ]+?) *: (.*)$`).FindAllStringSubmatch(text, -1) {
				span[m[1]] = m[2]
			}
			spans[service] = append(spans[service], span)
		}
	}
	if len(spans["alice"]) != 2 || len(spans["bob"]) != 2 {
		t.Fatalf("the collector has got %v:\n%s", spans, got)
	}
	for i, want := range []struct{ code, status string }{{"", "Unset"}, {"Str(invalid_argument)", "Error"}} {
		asks, handles := spans["alice"][i], spans["bob"][i]
		if asks["Name"] != "request count_request" || asks["Kind"] != "Client" || asks["Parent ID"] != "" ||
			handles["Name"] != "handle count_request" || handles["Kind"] != "Server" || handles["Parent ID"] != asks["ID"] || handles["Trace ID"] != asks["Trace ID"] {
			t.Errorf("the collector has got %v of alice and %v of bob", asks, handles)
		}
		for _, span := range []map[string]string{asks, handles} {
			if span["Status code"] != want.status || span["error.type"] != want.code || span["messaging.system"] != "Str(mesh)" {
				t.Errorf("the collector has got %v, want the code %q", span, want.code)
			}
		}
	}
}

// A collector is one that runs, and writes what it gets.
type collector struct {
	address string // where it receives OTLP by HTTP
	cmd     *exec.Cmd
	output  bytes.Buffer
}

func startCollector(ctx context.Context, t *testing.T) *collector {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "collector.exe") // as Windows wants it
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, ".")
	build.Dir = filepath.Join("internal", "collector")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the collector cannot be built: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.CommandContext(ctx, bin, "--config", fmt.Sprintf(`yaml:{
		receivers: {otlp: {protocols: {http: {endpoint: "%s"}}}},
		exporters: {debug: {verbosity: detailed}},
		service: {telemetry: {metrics: {level: none}}, pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
	}`, c.address))
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", c.address)
		if err == nil {
			_ = conn.Close()
			return c
		}
		if time.Now().After(end) {
			t.Fatalf("the collector does not come up: %v\n%s", err, c.end())
		}
	}
}

// end ends the collector and returns what it has written. It has responded to what was sent once that was written.
func (c *collector) end() string {
	_ = c.cmd.Process.Kill() // an error if it has ended
	_ = c.cmd.Wait()
	return c.output.String()
}
