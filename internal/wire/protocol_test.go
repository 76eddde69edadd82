package wire

import (
	"bufio"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Each example in docs/protocol.md is a fixture, word for word, so that the code agrees with it.
func TestProtocolExamples(t *testing.T) {
	fixtures := make(map[string]bool)
	for _, name := range []string{"link", "peerlink", "stream", "signaling"} {
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
				t.Errorf("docs/protocol.md has an example that is no fixture with `ok`:\n%s", line)
			}
		}
	}
	if n < 20 {
		t.Errorf("found %d examples in docs/protocol.md; is this test still reading it right?", n)
	}
}

// All types, error codes and features of the code are in docs/protocol.md.
func TestProtocolNames(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	var names []string
	for typ := TypeUnknown + 1; typ < typeCount; typ++ {
		names = append(names, typ.String())
	}
	for kind := PeerHello; kind <= PeerStreams; kind++ {
		names = append(names, kind.String())
	}
	names = append(names, constants(t, "errors.go", "Code")...)
	names = append(names, constants(t, "payload.go", "Feature")...)
	names = append(names, constants(t, filepath.Join("..", "signal", "message.go"), "")...)
	if len(names) < 45 {
		t.Errorf("found %d names in the code; is this test still reading it right?", len(names))
	}
	for _, name := range names {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/protocol.md does not mention `%s`", name)
		}
	}
}

// constants returns the values of a file's string constants whose names begin with prefix.
func constants(t *testing.T, path, prefix string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, prefix) || len(spec.Values) == 0 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	return values
}
