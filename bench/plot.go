package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The colours of the charts: the mesh, what it is built on, everything else.
// They are told apart by colour-blind readers, and in grey.
var (
	meshColor  = color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}
	pionColor  = color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}
	otherColor = color.RGBA{R: 0xb0, G: 0xb0, B: 0xb0, A: 0xff}
	gridColor  = color.RGBA{R: 0xe4, G: 0xe4, B: 0xe4, A: 0xff}
)

// plotAll writes host.svg, speed.svg and growth.svg, or distance.svg for -wan.
func plotAll(dir string, r *report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if r.info.WAN {
		return plotDistance(filepath.Join(dir, "distance.svg"), r)
	}
	for name, charts := range map[string][]bars{"host.svg": hostBars, "speed.svg": speedBars()} {
		if err := plotBars(filepath.Join(dir, name), charts, r); err != nil {
			return err
		}
	}
	return plotGrowth(filepath.Join(dir, "growth.svg"), r)
}

// newPlot returns an empty chart in our style.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(8)
	p.Title.TextStyle.Font.Size = vg.Points(13)
	p.Title.TextStyle.Font.Variant = "Sans"
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font.Size = vg.Points(11)
		axis.Label.TextStyle.Font.Variant = "Sans"
		axis.Tick.Label.Font.Size = vg.Points(11)
		axis.Tick.Label.Font.Variant = "Sans"
	}
	p.Legend.TextStyle.Font.Size = vg.Points(11)
	p.Legend.TextStyle.Font.Variant = "Sans"
	return p
}

// labelStyle is that of the numbers at the bars.
func labelStyle(p *plot.Plot) text.Style {
	s := p.X.Tick.Label
	s.XAlign, s.YAlign = text.XLeft, text.YCenter
	return s
}

// save writes the charts side by side.
func save(path string, plots []*plot.Plot, width, height vg.Length) error {
	canvas := vgsvg.New(width, height)
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{Rows: 1, Cols: len(plots), PadX: vg.Points(26), PadTop: vg.Points(12), PadBottom: vg.Points(12), PadLeft: vg.Points(12), PadRight: vg.Points(18)}
	for i, c := range plot.Align([][]*plot.Plot{plots}, tiles, dc)[0] {
		plots[i].Draw(c)
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// The library names one font, and a browser that lacks it would take one with
	// serifs. Arial has the same widths.
	const font = "font-family:Liberation Sans"
	fixed := bytes.ReplaceAll(svg.Bytes(), []byte(font), []byte(font+",Arial,Helvetica,sans-serif"))
	return os.WriteFile(path, fixed, 0o644)
}

// wholeTicks are marks at the values and nowhere else.
func wholeTicks(values []int) plot.ConstantTicks {
	ticks := make(plot.ConstantTicks, len(values))
	for i, v := range values {
		ticks[i] = plot.Tick{Value: float64(v), Label: fmt.Sprint(v)}
	}
	return ticks
}

// plainTicks are the library's, without zeros behind the point.
type plainTicks struct{ plot.DefaultTicks }

func (t plainTicks) Ticks(low, high float64) []plot.Tick {
	ticks := t.DefaultTicks.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = fmt.Sprint(round3(ticks[i].Value))
		}
	}
	return ticks
}

// known leaves out what was not measured.
func known(numbers map[string]float64, name string) (float64, bool) {
	v, ok := numbers[name]
	return v, ok && !math.IsNaN(v)
}

func grid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = gridColor, gridColor
	return g
}
