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
	o := options{quick: true}
	for name, r := range map[string]*results{"complete": sample(o), "nothing": {}} {
		dir := filepath.Join(t.TempDir(), "charts") // is made
		if err := plotAll(dir, newReport(o, r)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, file := range []string{"speed.svg", "growth.svg"} {
			raw, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			dec := xml.NewDecoder(bytes.NewReader(raw))
			for err == nil {
				_, err = dec.Token()
			}
			if err != io.EOF {
				t.Errorf("%s: %s is not XML: %v", name, file, err)
			}
			if bytes.Contains(raw, []byte("NaN")) {
				t.Errorf("%s: %s has coordinates that are no numbers", name, file)
			}
		}
	}
}
