package main

import (
	"fmt"
	"math"
)

// A key is one line of the result: a number of the mesh compared with that of a
// baseline.
type key struct {
	name   string
	ours   string   // number of the mesh
	base   []string // numbers of the baseline, the largest of which counts; none: ours stands alone
	minus  bool     // ours minus base, not ours divided by base
	bound  bound
	target float64
	unit   string // of both numbers
}

type bound uint8

const (
	noBound bound = iota // for information
	atMost
	atLeast
)

// keys returns the table, in the order in which it is printed.
func keys(o options) []key {
	if o.wan {
		return wanKeys()
	}
	best := make([]string, len(pionBulkSizes))
	for i, size := range pionBulkSizes {
		best[i] = pionBulkName(size)
	}
	fleet := func(kind, what string) string { return fmt.Sprintf("%s_%d_%s", kind, o.agents(), what) }
	return []key{
		{name: "request_rtt_inprocess_vs_pion", ours: "rtt_inprocess_us", base: []string{"rtt_pion_us"}, bound: atMost, target: 1.2, unit: "µs"},
		{name: "request_rtt_selfexec_vs_pion", ours: "rtt_selfexec_us", base: []string{"rtt_pion_us"}, bound: atMost, target: 1.7, unit: "µs"},
		{name: "small_rate_inprocess_vs_pion", ours: "small_inprocess_per_s", base: []string{"small_pion_per_s"}, bound: atLeast, target: 1.3, unit: "msg/s"},
		{name: "small_rate_selfexec_vs_pion", ours: "small_selfexec_per_s", base: []string{"small_pion_per_s"}, bound: atLeast, target: 1, unit: "msg/s"},
		{name: "small_rate_inprocess_vs_libp2p_webrtc", ours: "small_inprocess_per_s", base: []string{"small_libp2p_webrtc_per_s"}, bound: atLeast, target: 1.4, unit: "msg/s"},
		{name: "bulk_64k_vs_pion", ours: "bulk_mesh_64k_mbps", base: best, bound: atLeast, target: 0.9, unit: "MB/s"},
		{name: "bulk_1m_vs_pion", ours: "bulk_mesh_1m_mbps", base: best, bound: atLeast, target: 0.9, unit: "MB/s"},
		{name: "rtt_under_bulk_ms", ours: "rtt_under_bulk_ms", bound: atMost, target: 15, unit: "ms"},
		{name: "bulk_beside_requests_vs_alone", ours: "rtt_under_bulk_bulk_mbps", base: []string{"rtt_under_bulk_bulk_alone_mbps"}, bound: atLeast, target: 0.9, unit: "MB/s"},
		{name: "stream_rate_inprocess_vs_pion", ours: "stream_inprocess_mbps", base: best, bound: atLeast, target: 0.8, unit: "MB/s"},
		{name: "stream_rate_selfexec_vs_pion", ours: "stream_selfexec_mbps", base: best, bound: atLeast, target: 0.6, unit: "MB/s"},
		{name: "stream_rate_inprocess_vs_gostream", ours: "stream_inprocess_mbps", base: []string{"stream_gostream_quic_mbps", "stream_gostream_tcp_mbps"}, unit: "MB/s"},
		{name: "stream_rate_inprocess_vs_tcp", ours: "stream_inprocess_mbps", base: []string{"stream_tcp_mbps"}, unit: "MB/s"},
		{name: "stream_open_ms", ours: "stream_open_inprocess_ms", unit: "ms"},
		{name: "stream_open_inprocess_vs_gostream", ours: "stream_open_inprocess_ms", base: []string{"stream_open_gostream_quic_ms"}, unit: "ms"},
		{name: "stream_open_selfexec_vs_gostream", ours: "stream_open_selfexec_ms", base: []string{"stream_open_gostream_quic_ms"}, unit: "ms"},
		{name: "stream_open_inprocess_vs_tcp", ours: "stream_open_inprocess_ms", base: []string{"stream_open_tcp_ms"}, unit: "ms"},
		{name: "rtt_under_stream_ms", ours: "rtt_under_stream_ms", bound: atMost, target: 25, unit: "ms"},
		{name: "streams_10000_us", ours: "streams_10000_us", unit: "µs"},
		{name: "streams_10000_goroutines", ours: "streams_10000_goroutines", bound: atMost, target: 0},
		{name: "streams_10000_memory_kb", ours: "streams_10000_memory_kb", unit: "kB"},
		{name: "request_rtt_local_vs_pion", ours: "rtt_local_us", base: []string{"rtt_pion_two_processes_us"}, bound: atMost, target: 0.3, unit: "µs"},
		{name: "request_rtt_local_selfexec_vs_pion", ours: "rtt_local_selfexec_us", base: []string{"rtt_pion_two_processes_us"}, bound: atMost, target: 0.7, unit: "µs"},
		{name: "request_rtt_selfexec_vs_pion_two_processes", ours: "rtt_selfexec_two_processes_us", base: []string{"rtt_pion_two_processes_us"}, bound: atMost, target: 1.4, unit: "µs"},
		{name: "request_rtt_local_vs_nats", ours: "rtt_local_us", base: []string{"rtt_nats_processes_us"}, bound: atMost, target: 0.5, unit: "µs"},
		{name: "request_rtt_local_vs_unix_socket", ours: "rtt_local_us", base: []string{"rtt_unix_socket_two_processes_us"}, unit: "µs"},
		{name: "small_rate_local_vs_nats", ours: "small_local_per_s", base: []string{"small_nats_processes_per_s"}, bound: atLeast, target: 0.6, unit: "msg/s"},
		{name: "bulk_local_vs_unix_socket", ours: "bulk_local_mbps", base: []string{"bulk_unix_socket_mbps"}, bound: atLeast, target: 0.5, unit: "MB/s"},
		{name: "rtt_under_bulk_local_ms", ours: "rtt_under_bulk_local_ms", bound: atMost, target: 5, unit: "ms"},
		{name: "close_idle_ms", ours: "close_idle_ms", bound: atMost, target: 5, unit: "ms"},
		{name: "detect_dead_local_ms", ours: "detect_dead_local_ms", bound: atMost, target: 50, unit: "ms"},
		{name: "join_vs_pion", ours: "join_mesh_ms", base: []string{"join_pion_ms"}, bound: atMost, target: 1.5, unit: "ms"},
		{name: "spawn_ready_ms", ours: "spawn_ready_ms", unit: "ms"},
		{name: "heap_per_peer_vs_pion", ours: fleet("mesh", "memory_per_link_kb"), base: []string{fleet("pion", "memory_per_link_kb")}, bound: atMost, target: 1.1, unit: "kB"},
		{name: "goroutines_per_peer_minus_pion", ours: fleet("mesh", "goroutines_per_end"), base: []string{fleet("pion", "goroutines_per_end")}, minus: true, bound: atMost, target: 2},
		{name: "local_memory_per_link_vs_webrtc", ours: fleet("local", "memory_per_link_kb"), base: []string{fleet("mesh", "memory_per_link_kb")}, unit: "kB"},
		{name: "local_idle_cpu_vs_webrtc", ours: fleet("local", "idle_cpu_percent"), base: []string{fleet("mesh", "idle_cpu_percent")}, unit: "% of a core"},
		{name: "forward_vs_encoding_json", ours: "forward_codec_ns", base: []string{"forward_encoding_json_ns"}, bound: atMost, target: 0.15, unit: "ns"},
		{name: "forward_allocs", ours: "forward_codec_allocs", bound: atMost, target: 0},
		{name: "link_rate_vs_unix_socket", ours: "link_codec_per_s", base: []string{"link_raw_per_s"}, bound: atLeast, target: 0.7, unit: "lines/s"},
		{name: "broadcast_16_vs_send", ours: "broadcast_16_us", base: []string{"send_16_us"}, bound: atMost, target: 0.15, unit: "µs CPU"},
		{name: "mesh_32_cpu_vs_pion", ours: fleet("mesh", "build_cpu_s"), base: []string{fleet("pion", "build_cpu_s")}, bound: atMost, target: 1.3, unit: "s CPU"},
		{name: "idle_cpu_32_vs_pion", ours: fleet("mesh", "idle_cpu_percent"), base: []string{fleet("pion", "idle_cpu_percent")}, bound: atMost, target: 1.1, unit: "% of a core"},
	}
}

// An outcome is the result for a key. Its numbers are NaN if they were not
// measured.
type outcome struct {
	key
	value      float64
	ours, base float64
}

func (k key) outcome(numbers map[string]float64) outcome {
	get := func(name string) float64 {
		if v, ok := numbers[name]; ok {
			return v
		}
		return math.NaN()
	}
	o := outcome{key: k, ours: get(k.ours), base: math.NaN()}
	for _, name := range k.base {
		if v := get(name); !(o.base >= v) {
			o.base = v
		}
	}
	switch {
	case len(k.base) == 0:
		o.value = o.ours
	case k.minus:
		o.value = o.ours - o.base
	default:
		o.value = o.ours / o.base
	}
	return o
}

// verdict returns "ok" or "MISSED", "–" without a target, or "not measured".
func (o outcome) verdict() string {
	switch {
	case math.IsNaN(o.value):
		return "not measured"
	case o.bound == noBound:
		return "–"
	case o.bound == atMost && o.value <= o.target, o.bound == atLeast && o.value >= o.target:
		return "ok"
	}
	return "MISSED"
}
