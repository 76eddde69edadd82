package main

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// A bar is one number in a chart.
type bar struct {
	label, number string
	color         color.Color
}

var rttBars = []bar{
	{"mesh, in process", "rtt_inprocess_us", meshColor},
	{"mesh, forked", "rtt_selfexec_us", meshColor},
	{"bare pion", "rtt_pion_us", pionColor},
	{"libp2p WebRTC", "rtt_libp2p_webrtc_us", otherColor},
	{"libp2p QUIC", "rtt_libp2p_quic_us", otherColor},
	{"NATS", "rtt_nats_us", otherColor},
}

var smallBars = []bar{
	{"mesh, in process", "small_inprocess_per_s", meshColor},
	{"mesh, forked", "small_selfexec_per_s", meshColor},
	{"bare pion", "small_pion_per_s", pionColor},
	{"libp2p WebRTC", "small_libp2p_webrtc_per_s", otherColor},
	{"libp2p QUIC", "small_libp2p_quic_per_s", otherColor},
	{"NATS", "small_nats_per_s", otherColor},
}

func bulkBars() []bar {
	bars := []bar{{"mesh, 64 KiB", "bulk_mesh_64k_mbps", meshColor}, {"mesh, 1 MiB", "bulk_mesh_1m_mbps", meshColor}}
	for _, size := range pionBulkSizes {
		bars = append(bars, bar{"pion, " + short(float64(size>>10)) + " KiB", pionBulkName(size), pionColor})
	}
	return bars
}

// A bars is a chart of round trips or rates.
type bars struct {
	title string
	unit  float64 // what the axis counts
	bars  []bar
}

func speedBars() []bars {
	return []bars{
		{"Round trip of 256 bytes, µs (less is better)", 1, rttBars},
		{"Messages of 256 bytes, 1,000/s (more is better)", 1e3, smallBars},
		{"Large messages, MB/s (more is better)", 1, bulkBars()},
	}
}

// hostBars are about processes of one host.
var hostBars = []bars{
	{"Round trip of 256 bytes, µs (less is better)", 1, []bar{
		{"mesh, in process", "rtt_local_us", meshColor},
		{"mesh, forked", "rtt_local_selfexec_us", meshColor},
		{"bare pion", "rtt_pion_two_processes_us", pionColor},
		{"NATS", "rtt_nats_processes_us", otherColor},
		{"Unix socket, checked", "rtt_unix_socket_two_processes_us", otherColor},
	}},
	{"Messages of 256 bytes, 1,000/s (more is better)", 1e3, []bar{
		{"mesh, in process", "small_local_per_s", meshColor},
		{"NATS", "small_nats_processes_per_s", otherColor},
	}},
	{"Messages of 64 KiB, MB/s (more is better)", 1, []bar{
		{"mesh, in process", "bulk_local_mbps", meshColor},
		{"Unix socket, checked", "bulk_unix_socket_mbps", otherColor},
	}},
}

// plotBars draws charts side by side.
func plotBars(path string, charts []bars, r *report) error {
	var plots []*plot.Plot
	for _, c := range charts {
		p, err := barChart(c.title, c.unit, c.bars, r.info.Numbers)
		if err != nil {
			return err
		}
		plots = append(plots, p)
	}
	return save(path, plots, vg.Points(1020), vg.Points(270))
}

// barChart draws horizontal bars, the first on top, with their numbers.
func barChart(title string, unit float64, bars []bar, numbers map[string]float64) (*plot.Plot, error) {
	p := newPlot(title)
	names := make([]string, len(bars))
	most := 0.0
	for i, b := range bars {
		row := float64(len(bars) - 1 - i)
		names[len(bars)-1-i] = b.label
		v, ok := known(numbers, b.number)
		if !ok {
			continue
		}
		v /= unit
		most = math.Max(most, v)
		chart, err := plotter.NewBarChart(plotter.Values{v}, vg.Points(17))
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.XMin, chart.Color, chart.LineStyle.Width = true, row, b.color, 0
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: v, Y: row}}, Labels: []string{short(v)}})
		if err != nil {
			return nil, err
		}
		label.TextStyle[0] = labelStyle(p)
		label.Offset.X = vg.Points(4)
		p.Add(chart, label)
	}
	p.NominalY(names...)
	p.Y.Padding = vg.Points(9)
	p.Y.Min, p.Y.Max = -0.5, float64(len(bars))-0.5
	p.X.Min, p.X.Max = 0, math.Max(most, 1e-9)*1.22 // room for the last number
	p.HideX()
	return p, nil
}
