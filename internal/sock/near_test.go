//go:build linux || darwin

package sock_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A name leads to the door of a private directory where this user's are, and nowhere else.
func TestNear(t *testing.T) {
	parent := testutil.ShortDir(t)
	t.Setenv("TMPDIR", parent)
	t.Setenv("XDG_RUNTIME_DIR", "")
	d, err := sock.NewDir()
	if err != nil {
		t.Fatal(err)
	}
	if path, err := sock.Near(d.Name()); path != d.Door() || err != nil {
		t.Errorf("%s, %v; want %s", path, err, d.Door())
	}
	if got := sock.DirOf(d.Socket()); got == nil || got.Door() != d.Door() {
		t.Errorf("the directory of its socket is %v", got)
	}
	for name, mode := range map[string]os.FileMode{"mesh-1": 0o755, "other-1": 0o700, "mesh-x": 0o700, "mesh-": 0o700} {
		if err := os.Mkdir(filepath.Join(parent, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(parent, d.Name()), filepath.Join(parent, "mesh-2")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mesh-1", "other-1", "mesh-x", "mesh-", "mesh-2", "mesh-3", "", ".", "..", "/", "mesh-1/../" + d.Name(), parent, d.Name() + "/"} {
		if path, err := sock.Near(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q leads to %s, %v", name, path, err)
		}
	}
	sock.Tidy(d.Name()) // its process lives
	if _, err := sock.Near(d.Name()); err != nil {
		t.Error(err)
	}
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
	if sock.DirOf(filepath.Join(parent, "mesh-1", "s")) != nil || sock.DirOf(d.Socket()) != nil {
		t.Error("a directory that is none of ours")
	}
}
