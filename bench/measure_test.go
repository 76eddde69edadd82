package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
)

// scripted is a side whose rounds end as told.
type scripted struct {
	name    string
	log     *[]string
	stalled func(round int) bool
	err     error
	rounds  int
}

func (s *scripted) setup(context.Context) error { return nil }
func (s *scripted) close()                      { *s.log = append(*s.log, "close "+s.name) }

func (s *scripted) round(context.Context) (reading, error) {
	*s.log = append(*s.log, s.name)
	s.rounds++
	if s.err != nil {
		return nil, s.err
	}
	r := reading{s.name: float64(s.rounds)}
	if s.stalled != nil && s.stalled(s.rounds) {
		return r, errStalled
	}
	return r, nil
}

func newResults() *results {
	return &results{values: map[string][]float64{}, repeated: map[string]int{}, kept: map[string]int{}}
}

func TestRoundsTakeTurns(t *testing.T) {
	var log []string
	g := group{rounds: 3, sides: []side{
		{[]string{"a"}, &scripted{name: "a", log: &log}}, {[]string{"b"}, &scripted{name: "b", log: &log}},
	}}
	r := newResults()
	if err := r.group(t.Context(), options{}, g); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "b", "a", "a", "b", "close b", "close a"}; !slices.Equal(log, want) {
		t.Errorf("order %v, want %v", log, want)
	}
	if got := r.numbers()["a"]; got != 2 {
		t.Errorf("median %v, want 2", got)
	}
}

func TestStalledRoundIsRepeated(t *testing.T) {
	var log []string
	g := group{rounds: 2, sides: []side{
		{[]string{"a"}, &scripted{name: "a", log: &log, stalled: func(n int) bool { return n == 1 }}},
	}}
	r := newResults()
	if err := r.group(t.Context(), options{}, g); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.values["a"], []float64{2, 3}) || r.repeated["a"] != 1 || r.kept["a"] != 0 {
		t.Errorf("values %v, repeated %v, kept %v", r.values, r.repeated, r.kept)
	}
}

func TestSideThatAlwaysStallsCounts(t *testing.T) {
	var log []string
	g := group{rounds: 1, sides: []side{
		{[]string{"a"}, &scripted{name: "a", log: &log, stalled: func(int) bool { return true }}},
	}}
	r := newResults()
	if err := r.group(t.Context(), options{}, g); err != nil {
		t.Fatal(err)
	}
	if len(r.values["a"]) != 1 || r.repeated["a"] != repeats || r.kept["a"] != 1 {
		t.Errorf("values %v, repeated %v, kept %v", r.values, r.repeated, r.kept)
	}
}

func TestFailureNamesTheSide(t *testing.T) {
	var log []string
	boom := errors.New("boom")
	g := group{rounds: 1, sides: []side{{[]string{"a_us"}, &scripted{name: "a_us", log: &log, err: boom}}}}
	err := newResults().group(t.Context(), options{}, g)
	if !errors.Is(err, boom) || err.Error() != "a: boom" {
		t.Errorf("error %v", err)
	}
	if !slices.Contains(log, "close a_us") {
		t.Error("the side was not closed")
	}
}

func TestUnknownNameIsRefused(t *testing.T) {
	o, err := parseOptions([]string{"-run", "nothing_like_this"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := measure(t.Context(), o, io.Discard); err == nil {
		t.Error("no error")
	}
}
