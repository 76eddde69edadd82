package main

import (
	"fmt"
	"image/color"
	"math"

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
	p := newPlot(g.title)
	p.Add(grid())
	p.X.Label.Text = "agents in one process"
	p.X.Tick.Marker = wholeTicks(sizes)
	p.Y.Tick.Marker = plainTicks{}
	most := 0.0
	for _, line := range []struct {
		kind, label string
		color       color.Color
		shape       draw.GlyphDrawer
	}{
		{"mesh", "mesh", meshColor, draw.CircleGlyph{}},
		{"pion", "bare pion", pionColor, draw.BoxGlyph{}},
	} {
		points := growthPoints(numbers, line.kind, g.number, sizes, g.unit)
		if len(points) == 0 {
			continue
		}
		for _, xy := range points {
			most = math.Max(most, xy.Y)
		}
		l, s, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		l.Color, l.Width = line.color, vg.Points(2)
		s.Color, s.Shape, s.Radius = line.color, line.shape, vg.Points(3.5)
		p.Add(l, s)
		p.Legend.Add(line.label, l, s)
	}
	p.X.Min, p.X.Max = 0, float64(sizes[len(sizes)-1])
	p.Y.Min, p.Y.Max = 0, math.Max(most, 1e-9)*1.3 // room for the legend
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(8), vg.Points(-4)
	return p, nil
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
