package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestCharts draws complete results and none.
func TestCharts(t *testing.T) {
	wan, loopback := options{quick: true, wan: true}, options{quick: true}
	for _, x := range []struct {
		name  string
		o     options
		r     *results
		files []string
	}{
		{"complete", loopback, sample(loopback), []string{"speed.svg", "growth.svg"}},
		{"nothing", loopback, &results{}, []string{"speed.svg", "growth.svg"}},
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
