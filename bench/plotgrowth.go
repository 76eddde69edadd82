package main

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A growth is one chart: a number of the fleets by their size.
type growth struct {
	title, number string
	unit          float64 // what the axis counts
}

var growths = []growth{
	{"Time until all are linked, s", "build_ms", 1e3},
	{"Memory per link, both ends, kB", "memory_per_link_kb", 1},
	{"Message from one to all, ms", "broadcast_us", 1e3},
}

// plotGrowth draws how cost grows with the number of agents, all linked to all.
func plotGrowth(path string, r *report) error {
	sizes := growthSizes(options{quick: r.info.Quick})
	var plots []*plot.Plot
	for _, g := range growths {
		p, err := g.chart(r.info.Numbers, sizes)
		if err != nil {
			return err
		}
		plots = append(plots, p)
	}
	return save(path, plots, vg.Points(1020), vg.Points(290))
}

// chart draws a line for the mesh and one for bare pion.
func (g growth) chart(numbers map[string]float64, sizes []int) (*plot.Plot, error) {
	return lineChart(g.title, "agents in one process", sizes, []line{
		{"mesh", growthPoints(numbers, "mesh", g.number, sizes, g.unit), meshColor, draw.CircleGlyph{}},
		{"bare pion", growthPoints(numbers, "pion", g.number, sizes, g.unit), pionColor, draw.BoxGlyph{}},
	})
}

func growthPoints(numbers map[string]float64, kind, number string, sizes []int, unit float64) plotter.XYs {
	var points plotter.XYs
	for _, n := range sizes {
		if v, ok := known(numbers, fmt.Sprintf("%s_%d_%s", kind, n, number)); ok {
			points = append(points, plotter.XY{X: float64(n), Y: v / unit})
		}
	}
	return points
}
