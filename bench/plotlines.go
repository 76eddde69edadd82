package main

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A line is a series of numbers in a chart. One without points is left out.
type line struct {
	label  string
	points plotter.XYs
	color  color.Color
	shape  draw.GlyphDrawer // nil: no marks
}

// lineChart draws lines over values of x, with the legend in the upper left corner.
func lineChart(title, x string, values []int, lines []line) (*plot.Plot, error) {
	p := newPlot(title)
	p.Add(grid())
	p.X.Label.Text = x
	p.X.Tick.Marker = wholeTicks(values)
	p.Y.Tick.Marker = plainTicks{}
	most := 0.0
	for _, line := range lines {
		if len(line.points) == 0 {
			continue
		}
		for _, xy := range line.points {
			most = math.Max(most, xy.Y)
		}
		l, s, err := plotter.NewLinePoints(line.points)
		if err != nil {
			return nil, err
		}
		l.Color, l.Width = line.color, vg.Points(2)
		p.Add(l)
		if line.shape == nil {
			p.Legend.Add(line.label, l)
			continue
		}
		s.Color, s.Shape, s.Radius = line.color, line.shape, vg.Points(3.5)
		p.Add(s)
		p.Legend.Add(line.label, l, s)
	}
	p.X.Min, p.X.Max = 0, float64(values[len(values)-1])
	p.Y.Min, p.Y.Max = 0, math.Max(most, 1e-9)*1.3 // room for the legend
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(8), vg.Points(-4)
	return p, nil
}
