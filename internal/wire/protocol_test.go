package wire

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The examples in docs/protocol.md are fixtures, word for word, so that they
// cannot say what the code does not do.
func TestProtocolExamples(t *testing.T) {
	fixtures := make(map[string]bool)
	for _, name := range []string{"link", "peerlink", "signaling"} {
		f, err := os.Open(filepath.Join("..", "..", "docs", "fixtures", name+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var c struct{ Line, Expect string }
			if err := json.Unmarshal(s.Bytes(), &c); err != nil {
				t.Fatal(err)
			}
			if c.Expect == "ok" {
				fixtures[c.Line] = true
			}
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, block := range strings.Split(string(doc), "```") {
		lines, ok := strings.CutPrefix(block, "jsonl\n")
		if i%2 == 0 || !ok {
			continue
		}
		for line := range strings.Lines(lines) {
			n++
			if !fixtures[strings.TrimSuffix(line, "\n")] {
				t.Errorf("docs/protocol.md shows what is no accepted fixture:\n%s", line)
			}
		}
	}
	if n < 20 {
		t.Errorf("found %d examples in docs/protocol.md; is this test still reading it right?", n)
	}
}
