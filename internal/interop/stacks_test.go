//go:build linux || darwin

package interop

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// stackDir returns where the packages of other WebRTC stacks are. It installs them if they are not there.
var stackDir = sync.OnceValues(func() (string, error) {
	cmd := exec.Command(filepath.Join(root, "ci", "stacks.sh"))
	var said testutil.LogBuffer
	cmd.Stderr = &said
	dir, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ci/stacks.sh: %w\n%s", err, &said)
	}
	return strings.TrimSpace(string(dir)), nil
})

// stacks are base peers on other implementations of WebRTC.
var stacks = []*kind{
	{name: "libdatachannel", needs: stackDir, start: startStack("node", "base.mjs", "node-datachannel")},
	{name: "werift", needs: stackDir, start: startStack("node", "base.mjs", "werift")},
	{name: "aiortc", needs: stackDir, start: startStack("venv/bin/python", "base.py")},
}

// startStack runs a program of the directory stacks. An interpreter with a slash in its name is one of the packages.
func startStack(interpreter, script string, args ...string) func(*testing.T, *stage, string) console {
	return func(t *testing.T, st *stage, id string) console {
		t.Helper()
		dir, err := stackDir()
		if err != nil {
			t.Fatal(err)
		}
		run := interpreter
		if strings.Contains(run, "/") {
			run = filepath.Join(dir, run)
		}
		environ := append(st.environ(id), "MESH_STACKS="+dir)
		return runScript(t, environ, run, filepath.Join("..", "internal", "interop", "stacks", script), append(args, id)...)
	}
}

// TestStacks: base peers on other WebRTC stacks offer to an agent of ours, which is on the mesh before them, and answer
// one that comes after them.
func TestStacks(t *testing.T) {
	testutil.SkipUnlessFull(t, "other WebRTC stacks, which take packages of npm and PyPI")
	ours := kindNamed("InProcess")
	for _, stack := range stacks {
		for name, kinds := range map[string][2]*kind{"offers": {ours, stack}, "answers": {stack, ours}} {
			t.Run(stack.name+" "+name, func(t *testing.T) {
				t.Parallel()
				c := &cell{t: t, stage: newStage(t)}
				c.a = c.enter(t, kinds[0], "ann")
				c.b = c.enter(t, kinds[1], "bob")
				c.play()
			})
		}
	}
}
