package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMemoryChart draws what was sampled, and says what is wrong with a file.
func TestMemoryChart(t *testing.T) {
	const head = "seconds,rss_mb,heap_mb,goroutines\n"
	for text, wrong := range map[string]string{
		head + "0.0,10.5,2.1,30\n61.0,11,3,31\n": "",
		head:                                     "has no rows",
		head + "a,1,2,3\n":                       "invalid syntax",
		"seconds,rss_mb\n0,1\n":                  "has no column heap_mb",
		head + "1,2\n":                           "wrong number of fields",
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "m.csv")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		err := run(t.Context(), []string{"-memory", file, "-plot", dir}, io.Discard, io.Discard)
		if wrong == "" {
			if err == nil {
				_, err = os.Stat(filepath.Join(dir, "memory.svg"))
			}
			if err != nil {
				t.Error(err)
			}
		} else if err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestCharts draws complete results and none.
func TestCharts(t *testing.T) {
	wan, loopback := options{quick: true, wan: true}, options{quick: true}
	for _, x := range []struct {
		name  string
		o     options
		r     *results
		files []string
	}{
		{"complete", loopback, sample(loopback), []string{"host.svg", "speed.svg", "growth.svg"}},
		{"nothing", loopback, &results{}, []string{"host.svg", "speed.svg", "growth.svg"}},
		{"complete, over distance", wan, sample(wan), []string{"distance.svg"}},
		{"nothing, over distance", wan, &results{}, []string{"distance.svg"}},
	} {
		dir := filepath.Join(t.TempDir(), "charts") // is made
		if err := plotAll(dir, newReport(x.o, x.r)); err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		for _, file := range x.files {
			raw, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			dec := xml.NewDecoder(bytes.NewReader(raw))
			for err == nil {
				_, err = dec.Token()
			}
			if err != io.EOF {
				t.Errorf("%s: %s is not XML: %v", x.name, file, err)
			}
			if bytes.Contains(raw, []byte("NaN")) {
				t.Errorf("%s: %s has coordinates that are no numbers", x.name, file)
			}
		}
	}
}
