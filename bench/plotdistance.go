package main

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// plotDistance draws which share of a line of 100 Mbit/s a transfer gets, by round trip time and loss.
func plotDistance(path string, r *report) error {
	var plots []*plot.Plot
	for _, loss := range wanLosses {
		points := func(who string) plotter.XYs {
			var points plotter.XYs
			for _, rtt := range wanRTTs {
				if v, ok := known(r.info.Numbers, fmt.Sprintf("%s_%s_share", wanName(rtt, loss), who)); ok {
					points = append(points, plotter.XY{X: float64(rtt), Y: 100 * v})
				}
			}
			return points
		}
		p, err := lineChart("% of a line of 100 Mbit/s, "+loss.title, "round trip time, ms", wanRTTs, []line{
			{"mesh", points("mesh"), meshColor, draw.CircleGlyph{}},
			{"bare pion", points("pion"), pionColor, draw.BoxGlyph{}},
			{"quic-go", points("quic"), otherColor, draw.TriangleGlyph{}},
		})
		if err != nil {
			return err
		}
		plots = append(plots, p)
	}
	return save(path, plots, vg.Points(1020), vg.Points(290))
}
