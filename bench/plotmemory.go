package main

import (
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// plotMemory draws memory.svg of a file that the row churn of internal/faults has written: what a process had while agents came and went.
func plotMemory(dir, file string) error {
	columns, err := readColumns(file)
	if err != nil {
		return fmt.Errorf("-memory: %w", err)
	}
	series := func(name string) (points plotter.XYs) {
		for i, at := range columns["seconds"] {
			points = append(points, plotter.XY{X: at / 60, Y: columns[name][i]})
		}
		return points
	}
	minutes := int(math.Ceil(slices.Max(columns["seconds"]) / 60))
	ticks := []int{0}
	for step := max(1, minutes/6); ticks[len(ticks)-1] < minutes; {
		ticks = append(ticks, ticks[len(ticks)-1]+step)
	}
	memory, err := lineChart("32 agents come and go: memory, MB", "minutes", ticks, []line{
		{"resident", series("rss_mb"), meshColor, nil}, {"heap", series("heap_mb"), pionColor, nil},
	})
	if err != nil {
		return err
	}
	goroutines, err := lineChart("Goroutines", "minutes", ticks, []line{{"all", series("goroutines"), meshColor, nil}})
	if err != nil {
		return err
	}
	return save(filepath.Join(dir, "memory.svg"), []*plot.Plot{memory, goroutines}, vg.Points(1020), vg.Points(290))
}

// readColumns reads the columns of numbers in a CSV file with a head.
func readColumns(file string) (map[string][]float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("%s has no rows", file)
	}
	columns := make(map[string][]float64)
	for _, row := range rows[1:] {
		for i, text := range row {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			columns[rows[0][i]] = append(columns[rows[0][i]], v)
		}
	}
	for _, name := range []string{"seconds", "rss_mb", "heap_mb", "goroutines"} {
		if columns[name] == nil {
			return nil, fmt.Errorf("%s has no column %s", file, name)
		}
	}
	return columns, nil
}
