package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// A report is what is printed: the keys, and everything behind them.
type report struct {
	outcomes []outcome
	info     info
}

// info is what the keys are based on, and the circumstances of the run.
type info struct {
	Quick    bool               `json:"quick"`
	WAN      bool               `json:"wan"`
	Agents   int                `json:"agents"` // of the large mesh
	Machine  machine            `json:"machine"`
	Seconds  float64            `json:"seconds"` // of the whole run
	Rounds   map[string]int     `json:"rounds"`
	Repeated map[string]int     `json:"rounds_repeated"` // for a stall
	Kept     map[string]int     `json:"stalled_rounds_kept"`
	Numbers  map[string]float64 `json:"numbers"` // medians, by name with unit
	Targets  map[string]string  `json:"targets"`
}

func newReport(o options, r *results) *report {
	numbers := r.numbers()
	rep := &report{info: info{
		Quick: o.quick, WAN: o.wan, Agents: o.agents(), Machine: thisMachine(), Seconds: round3(r.seconds),
		Rounds: map[string]int{}, Repeated: r.repeated, Kept: r.kept,
		Numbers: map[string]float64{}, Targets: map[string]string{},
	}}
	for name, v := range numbers {
		rep.info.Numbers[name] = round3(v)
		rep.info.Rounds[name] = len(r.values[name])
	}
	for _, k := range keys(o) {
		out := k.outcome(numbers)
		rep.outcomes = append(rep.outcomes, out)
		if k.bound != noBound {
			rep.info.Targets[k.name] = k.goal() + ": " + out.verdict()
		}
	}
	return rep
}

// MarshalJSON writes the keys in the order of the table, null where nothing was
// measured, and "info" behind them.
func (r *report) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, o := range r.outcomes {
		value := "null"
		if !math.IsNaN(o.value) && !math.IsInf(o.value, 0) {
			value = fmt.Sprint(round3(o.value))
		}
		fmt.Fprintf(&b, "%q:%s,", o.name, value)
	}
	details, err := json.Marshal(r.info)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, `"info":%s}`, details)
	return b.Bytes(), nil
}

// table writes the report as text.
func (r *report) table(w io.Writer) error {
	fmt.Fprintln(w, r.info.Machine)
	if r.info.Quick {
		fmt.Fprintf(w, "quick: short rounds, and %d agents in the rows of 32\n", r.info.Agents)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "key\tvalue\ttarget\t\tmesh\tbaseline\t")
	for _, o := range r.outcomes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.name, short(o.value), o.goal(), o.verdict(), short(o.ours), short(o.base), o.unit)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nAll numbers, medians of the rounds:")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, name := range slices.Sorted(maps.Keys(r.info.Numbers)) {
		fmt.Fprintf(t, "%s\t%s\t\n", name, short(r.info.Numbers[name]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nRounds repeated for a stall: %s. Stalled rounds that count: %s. Took %.0f s.\n",
		stalls(r.info.Repeated), stalls(r.info.Kept), r.info.Seconds)
	return err
}

func (k key) goal() string {
	switch k.bound {
	case atMost:
		return fmt.Sprintf("≤ %v", k.target)
	case atLeast:
		return fmt.Sprintf("≥ %v", k.target)
	}
	return "–"
}

// short returns a number with three significant digits.
func short(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case v == math.Trunc(v) && a < 1e4:
		return fmt.Sprintf("%.0f", v)
	case a >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.1f k", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// round3 keeps three decimals: more would be noise.
func round3(v float64) float64 { return math.Round(v*1000) / 1000 }
