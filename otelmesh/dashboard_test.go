package otelmesh

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/chatixia-ai/mesh"
)

// exported returns everything that this package can measure, as Prometheus gets it: the names of the series, with their labels.
func exported(t *testing.T) map[string]map[string]bool {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	meters := WithMeterProvider(metric.NewMeterProvider(metric.WithReader(exporter)))

	in := Interceptor(meters)
	no := mesh.NewError("no", "no", nil)
	for _, err := range []error{nil, no} {
		_, _ = in.Call(func(context.Context, string, mesh.Message) (*mesh.Message, error) { return &mesh.Message{}, err })(t.Context(), "bob", mesh.Message{Type: "x_request"})
		_ = in.Send(func(context.Context, string, mesh.Message) error { return err })(t.Context(), "bob", mesh.Message{Type: "x"})
		_, _ = in.Handle(func(context.Context, *mesh.Message) (any, error) { return nil, err })(t.Context(), &mesh.Message{Type: "x"})
		one := func(yield func(*mesh.Message, error) bool) { yield(&mesh.Message{}, err) }
		for range in.Stream(func(context.Context, string, mesh.Message) iter.Seq2[*mesh.Message, error] { return one })(t.Context(), "bob", mesh.Message{Type: "x_request"}) {
		}
	}
	o := Observer(meters)
	o.LinkUp(mesh.Peer{})
	o.LinkDown(mesh.Peer{}, mesh.ErrPeerGone)
	o.PathChanged(mesh.Peer{}, mesh.PathRelayed, netip.AddrPort{}, netip.AddrPort{})
	o.Restarted(errors.New("exit status 2"))
	o.Dropped("bob", "x", mesh.DropBusy)
	st := mesh.Stats{Peers: []mesh.PeerStats{{Peer: mesh.Peer{ID: "bob"}, Path: mesh.PathDirect, RTT: time.Millisecond}}}
	_, err = watchStats(newConfig([]Option{meters}).meter(), func(context.Context) (mesh.Stats, error) { return st, nil }, func() string { return "alice" })
	if err != nil {
		t.Fatal(err)
	}

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]map[string]bool)
	for _, f := range families {
		labels := make(map[string]bool)
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
			if m.GetHistogram() != nil {
				bucket := map[string]bool{"le": true}
				for name := range labels {
					bucket[name] = true
				}
				series[f.GetName()+"_bucket"], series[f.GetName()+"_count"], series[f.GetName()+"_sum"] = bucket, labels, labels
			}
		}
		series[f.GetName()] = labels
	}
	return series
}

// The dashboard shows what is exported, under its names and labels, and all of it.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Templating struct{ List []struct{ Query string } }
		Panels     []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	series := exported(t)
	used := make(map[string]bool)
	name := regexp.MustCompile(`\b(?:mesh|messaging)_\w+`)
	label := regexp.MustCompile(`\b(?:mesh|messaging|network|error)_\w+|\ble\b`)
	check := func(title, expr, legend string) {
		labels := make(map[string]bool)
		var found int
		for _, n := range name.FindAllString(expr, -1) {
			if series[n] == nil {
				continue // a label, or nothing that is exported
			}
			found++
			used[n] = true
			for l := range series[n] {
				labels[l] = true
			}
		}
		if found != 1 {
			t.Errorf("%s: %d metrics of %q are exported", title, found, expr)
		}
		for _, l := range label.FindAllString(expr+" "+legend, -1) {
			if series[l] == nil && !labels[l] {
				t.Errorf("%s: %q is no label of what %q shows", title, l, expr)
			}
		}
	}
	queries := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries++
			check(p.Title, target.Expr, target.LegendFormat)
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Query != "prometheus" {
			check("a variable", v.Query, "")
		}
	}
	if queries < 20 {
		t.Errorf("there are %d queries", queries)
	}
	for n := range series {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(n, "_bucket"), "_count"), "_sum")
		if !used[n] && !used[base+"_bucket"] && !used[base+"_count"] && strings.HasPrefix(n, "mes") {
			t.Errorf("nothing shows %s", n)
		}
	}
}
