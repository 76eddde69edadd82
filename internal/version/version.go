// Package version describes the build of a command.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// String returns name with the version of the main module and of Go, as in "chatixia-signaling v1.2.3
// (go1.25.0)". A build without a version has "(devel)" and, if known, the revision of the source.
func String(name string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{GoVersion: runtime.Version()}
	}
	return describe(name, info)
}

func describe(name string, info *debug.BuildInfo) string {
	words := []string{name, info.Main.Version}
	if words[1] == "" {
		words[1] = "(devel)"
	}
	if words[1] == "(devel)" {
		words = append(words, revision(info)...)
	}
	return strings.Join(append(words, "("+info.GoVersion+")"), " ")
}

// revision returns the revision of the source, and "modified" if the source differed from it.
func revision(info *debug.BuildInfo) (words []string) {
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			words = append(words, s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			words = append(words, "modified")
		}
	}
	return words
}
