package main

import (
	"slices"
	"testing"
	"testing/fstest"
)

// repository returns a repository with the given document and some other files.
func repository(document string) fstest.MapFS {
	root := fstest.MapFS{"docs/a.md": {Data: []byte(document)}}
	for _, name := range []string{
		"mesh.go", "flow.go", "mesh_test.go", "internal/link/queue.go", "internal/link/flow.go", "internal/link/doc_test.go",
		"ci/lint.sh", "docs/fixtures/link.jsonl",
	} {
		root[name] = &fstest.MapFile{}
	}
	root["docs/b.md"] = &fstest.MapFile{Data: []byte("# One `thing`: [x](y)!\n\n```\n# None\n```\n\n## Two\n\n## Two\n")}
	return root
}

func TestFiles(t *testing.T) {
	for name, c := range map[string]struct {
		document string
		want     []string
	}{
		"all named":         {"`mesh.go`, `flow.go`, `queue.go` and `internal/link/flow.go`.", nil},
		"in a fenced block": {"```\nmesh.go   x\nflow.go   y\ninternal/link/queue.go\ninternal/link/flow.go\n```\n", nil},
		"not named": {"`mesh.go`, `flow.go`", []string{
			"docs/a.md: does not name internal/link/flow.go by its path (another file has the same name)",
			"docs/a.md: does not name internal/link/queue.go",
		}},
		"parts of other names": {"`xmesh.go` `internal/link/flow.go` `queue.gox`", []string{
			"docs/a.md:1: `xmesh.go` does not exist",
			"docs/a.md: does not name flow.go by its path (another file has the same name)",
			"docs/a.md: does not name mesh.go",
			"docs/a.md: does not name internal/link/queue.go",
		}},
		"paths": {all + "`internal/`, `./internal/...`, `internal/*`, `internal/link.Queue`, `fixtures/link.jsonl`, `b.md`, `../mesh.go`, `doc_test.go`", nil},
		"not paths": {all + "`a b/c`, `/tmp/x`, `wss://host/ws`, `github.com/pion/webrtc`, `net/http`, `net/http.Client`, `.go`, `x.json`\n\n" +
			"```\n`no/path`\n```\n", nil},
		"wrong paths": {all + "\n`internal/lnk`, `gone.go`, `cmd/*`\n\n`../../mesh.go`", []string{
			"docs/a.md:2: `internal/lnk` does not exist",
			"docs/a.md:2: `gone.go` does not exist",
			"docs/a.md:2: `cmd/*` does not exist",
			"docs/a.md:4: `../../mesh.go` does not exist",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := checkFiles(repository(c.document), "docs/a.md", []string{".", "internal/link"})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	if _, err := checkFiles(repository(all), "docs/a.md", []string{"internal/gone"}); err == nil {
		t.Error("no error for a directory without Go files")
	}
	if _, err := checkFiles(repository(all), "docs/gone.md", []string{"."}); err == nil {
		t.Error("no error for a missing document")
	}
}

// all names every Go file of the repository that a document has to name.
const all = "`mesh.go` `flow.go` `queue.go` `internal/link/flow.go` "

func TestLinks(t *testing.T) {
	for name, c := range map[string]struct {
		document string
		want     []string
	}{
		"good":        {"# Here\n\n[`a`](b.md) ![b](../mesh.go) [c](b.md#one-thing-x \"title\") [d](b.md#two) [e](b.md#two-1) [f](#here) [g](../internal)\n\n[ref]: b.md\n", nil},
		"not checked": {"[a](https://example.org/x) [b](mailto:a@b) [c](//example.org) `[d](gone.md)` [e](../mesh.go#L1)\n\n```\n[f](gone.md)\n```\n", nil},
		"broken": {"[a](gone.md)\n[b](b.md#three) [c](#none) [d](b.md#none)\n[e](../../x) [f](/mesh.go)\n\n[ref]: gone.go\n", []string{
			"docs/a.md:1: link to gone.md: no such file",
			"docs/a.md:2: link to b.md#three: no such heading in docs/b.md",
			"docs/a.md:2: link to #none: no such heading in docs/a.md",
			"docs/a.md:2: link to b.md#none: no such heading in docs/b.md",
			"docs/a.md:3: link to ../../x: not a path inside of the repository",
			"docs/a.md:3: link to /mesh.go: not a path inside of the repository",
			"docs/a.md:5: link to gone.go: no such file",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := checkLinks(repository(c.document), []string{"docs/a.md"})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	if _, err := checkLinks(repository(""), []string{"docs/gone.md"}); err == nil {
		t.Error("no error for a missing document")
	}
}
