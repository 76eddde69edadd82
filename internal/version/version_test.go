package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	vcs := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc123"}, {Key: "vcs.modified", Value: "true"}}
	clean := []debug.BuildSetting{{Key: "vcs.revision", Value: "abc123"}, {Key: "vcs.modified", Value: "false"}}
	for _, c := range []struct {
		version  string
		settings []debug.BuildSetting
		want     string
	}{
		{"v1.2.3", nil, "tool v1.2.3 (go1.25.0)"},
		{"v1.2.3", vcs, "tool v1.2.3 (go1.25.0)"},
		{"(devel)", vcs, "tool (devel) abc123 modified (go1.25.0)"},
		{"(devel)", clean, "tool (devel) abc123 (go1.25.0)"},
		{"", nil, "tool (devel) (go1.25.0)"},
	} {
		info := &debug.BuildInfo{GoVersion: "go1.25.0", Main: debug.Module{Version: c.version}, Settings: c.settings}
		if got := describe("tool", info); got != c.want {
			t.Errorf("version %q: %q, want %q", c.version, got, c.want)
		}
	}
}

func TestString(t *testing.T) {
	if got := String("tool"); !strings.HasPrefix(got, "tool ") || !strings.Contains(got, runtime.Version()) {
		t.Errorf("%q", got)
	}
}
