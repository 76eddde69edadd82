package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tableKeys are the names that others rely on.
var tableKeys = []string{
	"request_rtt_inprocess_vs_pion", "request_rtt_selfexec_vs_pion",
	"small_rate_inprocess_vs_pion", "small_rate_selfexec_vs_pion", "small_rate_inprocess_vs_libp2p_webrtc",
	"bulk_64k_vs_pion", "rtt_under_bulk_ms", "bulk_beside_requests_vs_alone", "bulk_1m_vs_pion",
	"stream_rate_inprocess_vs_pion", "stream_rate_selfexec_vs_pion", "stream_rate_inprocess_vs_gostream", "stream_rate_inprocess_vs_tcp",
	"stream_open_ms", "stream_open_inprocess_vs_gostream", "stream_open_selfexec_vs_gostream", "stream_open_inprocess_vs_tcp",
	"request_rtt_local_vs_pion", "request_rtt_local_selfexec_vs_pion", "request_rtt_selfexec_vs_pion_two_processes", "request_rtt_local_vs_nats",
	"request_rtt_local_vs_unix_socket",
	"small_rate_local_vs_nats", "bulk_local_vs_unix_socket", "rtt_under_bulk_local_ms", "close_idle_ms", "detect_dead_local_ms",
	"local_memory_per_link_vs_webrtc", "local_idle_cpu_vs_webrtc",
	"rtt_under_stream_ms", "streams_10000_us", "streams_10000_goroutines", "streams_10000_memory_kb",
	"join_vs_pion", "spawn_ready_ms",
	"heap_per_peer_vs_pion", "goroutines_per_peer_minus_pion",
	"forward_vs_encoding_json", "forward_allocs", "link_rate_vs_unix_socket", "broadcast_16_vs_send",
	"mesh_32_cpu_vs_pion", "idle_cpu_32_vs_pion",
}

// sample is a result in which each number of the plan is 1.
func sample(o options) *results {
	r := &results{values: map[string][]float64{}, repeated: map[string]int{"bulk_mesh_64k": 2}, kept: map[string]int{}}
	for _, g := range plan(o) {
		for _, s := range g.sides {
			for _, name := range s.gives {
				r.values[name] = []float64{1, 1, 1}
			}
		}
	}
	return r
}

func TestReportHasExactlyTheKeys(t *testing.T) {
	for _, quick := range []bool{false, true} {
		o := options{quick: quick}
		raw, err := json.Marshal(newReport(o, sample(o)))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		want := slices.Sorted(slices.Values(append([]string{"info"}, tableKeys...)))
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, want) {
			t.Errorf("quick %t: keys %v\nwant %v", quick, keys, want)
		}
		for _, name := range tableKeys {
			if string(got[name]) == "null" {
				t.Errorf("quick %t: nothing in the plan gives %s", quick, name)
			}
		}
	}
}

func TestNoNumberIsGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range plan(options{}) {
		for _, s := range g.sides {
			for _, name := range s.gives {
				if seen[name] {
					t.Errorf("two sides give %s", name)
				}
				seen[name] = true
			}
		}
	}
}

func TestReportOfNothing(t *testing.T) {
	o := options{}
	rep := newReport(o, &results{})
	raw, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte(`"bulk_64k_vs_pion":null`)) {
		t.Errorf("what was not measured is not null: %s", raw)
	}
	var out strings.Builder
	if err := rep.table(&out); err != nil || !strings.Contains(out.String(), "not measured") {
		t.Errorf("table: %v\n%s", err, out.String())
	}
}

func TestOutcome(t *testing.T) {
	numbers := map[string]float64{"a": 6, "b": 3, "c": 4}
	for _, c := range []struct {
		key     key
		value   float64
		verdict string
	}{
		{key{ours: "a", base: []string{"b"}, bound: atMost, target: 2}, 2, "ok"},
		{key{ours: "a", base: []string{"b"}, bound: atMost, target: 1.9}, 2, "MISSED"},
		{key{ours: "a", base: []string{"b"}, bound: atLeast, target: 2}, 2, "ok"},
		{key{ours: "a", base: []string{"b"}, bound: atLeast, target: 2.1}, 2, "MISSED"},
		{key{ours: "a", base: []string{"b", "c"}, bound: atLeast, target: 2}, 1.5, "MISSED"},
		{key{ours: "a", base: []string{"b"}, minus: true, bound: atMost, target: 3}, 3, "ok"},
		{key{ours: "a"}, 6, "–"},
	} {
		o := c.key.outcome(numbers)
		if o.value != c.value || o.verdict() != c.verdict {
			t.Errorf("%+v: %v %s, want %v %s", c.key, o.value, o.verdict(), c.value, c.verdict)
		}
	}
	for _, base := range []string{"missing", "b"} {
		o := key{ours: "missing", base: []string{base}, bound: atMost, target: 1}.outcome(numbers)
		if !math.IsNaN(o.value) || o.verdict() != "not measured" {
			t.Errorf("missing number: %v %s", o.value, o.verdict())
		}
	}
	// The best of several baselines counts, even if one of them is missing.
	if o := (key{ours: "a", base: []string{"missing", "b"}}).outcome(numbers); o.value != 2 {
		t.Errorf("value %v, want 2", o.value)
	}
}

func TestSelected(t *testing.T) {
	var names []string
	for _, g := range selected(options{only: regexp.MustCompile("^small_rate_inprocess_vs_pion$")}) {
		for _, s := range g.sides {
			names = append(names, s.name())
		}
	}
	if want := []string{"small_pion", "small_inprocess"}; !slices.Equal(names, want) {
		t.Errorf("selected %v, want %v", names, want)
	}
	if got, want := len(selected(options{})), len(plan(options{})); got != want {
		t.Errorf("%d groups without -run, want %d", got, want)
	}
}

func TestOptions(t *testing.T) {
	for _, args := range [][]string{{"-run", "("}, {"-rounds", "-1"}, {"extra"}, {"-nonsense"}} {
		var stderr bytes.Buffer
		if _, err := parseOptions(args, &stderr); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
