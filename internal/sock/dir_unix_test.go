//go:build linux || darwin

package sock_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// What processes leave behind that are killed is removed by the next one; that of processes that live, and what only looks
// like it, is not.
func TestNewDirRemovesAbandoned(t *testing.T) {
	parent := testutil.ShortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", parent)
	start := func() (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperEnv+"=leave")
		return cmd, startHelper(t, cmd)
	}
	_, alive := start()
	killed, abandoned := start()
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	mkdir := func(name string, files ...string) string {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	kept := []string{
		alive, mkdir("mesh-empty"), filepath.Join(mkdir("mesh-busy", "lock", "data"), "data"), filepath.Join(mkdir("other", "lock"), "lock"),
	}
	linked := filepath.Join(parent, "mesh-link")
	if err := os.Symlink(mkdir("target", "lock"), linked); err != nil {
		t.Fatal(err)
	}
	kept = append(kept, linked, filepath.Join(parent, "target", "lock"))

	d, err := sock.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Dir(abandoned)); !os.IsNotExist(err) {
		t.Errorf("what the killed process has left is still there: %v", err)
	}
	for _, path := range kept {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	// The process that listens can remove it as well, and nothing else.
	for _, path := range append(kept[1:], filepath.Join(parent, "target", "s")) {
		if err := sock.RemoveDir(path); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); filepath.Base(path) != "s" && err != nil {
			t.Error(err)
		}
	}
	if err := sock.RemoveDir(alive); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Dir(alive)); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	for range 2 { // a second time does no harm
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Dir(d.Socket())); !os.IsNotExist(err) {
		t.Errorf("a removed one is still there: %v", err)
	}
}

// A process that has no file descriptor left can still clean up.
func TestDirRemoveWithoutDescriptors(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", testutil.ShortDir(t))
	d, err := sock.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	l, err := sock.Listen(d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	restore := testutil.NoMoreDescriptors(t)
	err = d.Remove()
	restore()
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Dir(d.Socket())); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
