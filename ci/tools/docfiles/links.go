package main

import (
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// target matches the target of [text](target "title") and of [label]: target.
var target = regexp.MustCompile(`\]\(\s*<?([^\s<>)]+)|^ {0,3}\[[^\]]+\]:\s*<?([^\s<>]+)`)

func checkLinks(root fs.FS, documents []string) (problems []string, err error) {
	for _, document := range documents {
		text, err := fs.ReadFile(root, document)
		if err != nil {
			return problems, err
		}
		for _, line := range prose(string(text)) {
			// A link's text may be code, but code has no links.
			for _, m := range target.FindAllStringSubmatch(codeSpan.ReplaceAllString(line.text, ""), -1) {
				link := m[1] + m[2]
				if reason := broken(root, document, link); reason != "" {
					problems = append(problems, fmt.Sprintf("%s:%d: link to %s: %s", document, line.number, link, reason))
				}
			}
		}
	}
	return problems, nil
}

// broken returns why a link of a document leads nowhere, or "" if it does not or is no relative link.
func broken(root fs.FS, document, link string) string {
	u, err := url.Parse(link)
	if err != nil {
		return err.Error()
	}
	if u.IsAbs() || u.Host != "" {
		return ""
	}
	name := document
	if u.Path != "" {
		name = path.Join(path.Dir(document), u.Path)
	}
	if strings.HasPrefix(u.Path, "/") || !fs.ValidPath(name) {
		return "not a path inside of the repository"
	}
	if !exists(root, name) {
		return "no such file"
	}
	if u.Fragment == "" || path.Ext(name) != ".md" {
		return ""
	}
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return err.Error()
	}
	if !anchors(string(text))[u.Fragment] {
		return "no such heading in " + name
	}
	return ""
}
