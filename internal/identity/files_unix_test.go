//go:build unix

package identity_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// files are the files that settings name: how to make a good one, and how to read it. others is whether others may
// read it.
var files = map[string]struct {
	text   func(t *testing.T) string
	read   func(path string) error
	others bool
}{
	"key": {
		text: func(*testing.T) string { return openSSLKey },
		read: func(path string) error { _, err := identity.ReadKey(path); return err },
	},
	"statement": {
		text: func(t *testing.T) string { return statementText(t, "alice") },
		read: func(path string) error { _, err := identity.ReadStatement(path); return err }, others: true,
	},
	"revoked": {
		text: func(*testing.T) string { _, k := seeded(1); return k.String() + "\n" },
		read: func(path string) error {
			_, err := identity.Open(identity.Settings{RevokedFile: path})
			return err
		}, others: true,
	},
	"known": {
		text: func(*testing.T) string {
			_, k := seeded(1)
			return "# known peers of mesh \"\"\nbob " + k.String() + "\n"
		},
		read: func(path string) error { _, err := identity.OpenKnownPeers(path, ""); return err }, others: true,
	},
	"claims": {
		text: func(*testing.T) string { return "\"\" \"alice\"\n" },
		read: func(path string) error {
			key := strings.TrimSuffix(path, ".ids")
			if err := os.WriteFile(key, []byte(openSSLKey), 0o600); err != nil {
				return err
			}
			id, err := identity.Open(identity.Settings{KeyFile: key})
			if err != nil {
				return err
			}
			return id.Claim("alice")
		}, others: true,
	},
}

// A file that another user could have written, or has read where only this one may, is refused, as is what is no file.
func TestFilesOfOthers(t *testing.T) {
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			fresh := func() string {
				path := filepath.Join(t.TempDir(), "file.ids")
				write(t, path, file.text(t), 0o600)
				return path
			}
			wantError(t, file.read(fresh()))
			for _, mode := range []os.FileMode{0o602, 0o620, 0o666, 0o604, 0o640, 0o644} {
				path := fresh()
				write(t, path, file.text(t), mode)
				if err := file.read(path); mode&0o022 == 0 && file.others {
					wantError(t, err)
				} else {
					wantError(t, err, path, "chmod 6")
				}
			}
			link := filepath.Join(t.TempDir(), "link.ids")
			if err := os.Symlink(fresh(), link); err != nil {
				t.Fatal(err)
			}
			wantError(t, file.read(link)) // it is the file that counts

			fifo := filepath.Join(t.TempDir(), "fifo.ids")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			wantError(t, file.read(fifo), fifo, "not a regular file")
			dir := filepath.Join(t.TempDir(), "dir.ids")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			wantError(t, file.read(dir), dir, "not a regular file")

			huge := fresh()
			if err := os.Truncate(huge, 1<<40); err != nil { // it takes no room
				t.Fatal(err)
			}
			wantError(t, file.read(huge), huge, "bytes")

			if os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			given := fresh()
			if err := os.Chown(given, 12345, 12345); err != nil {
				t.Fatal(err)
			}
			wantError(t, file.read(given), given, "uid 12345", "uid 0")
		})
	}
}

// Agents that come to one file of known peers by different symbolic links share it, from the moment at which it is made,
// and the links stay.
func TestKnownByLinks(t *testing.T) {
	_, keyA := seeded(1)
	_, keyB := seeded(2)
	dir, far := t.TempDir(), t.TempDir()
	file := filepath.Join(far, "known")
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	for from, to := range map[string]string{one: file, two: "one"} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	a, b := openKnown(t, two, ""), openKnown(t, one, "")
	wantError(t, a.Pin("alice", keyA))
	wantError(t, b.Pin("bob", keyB))
	wantError(t, a.Pin("bob", keyA), "changed")
	wantError(t, openKnown(t, file, "").Pin("alice", keyB), "changed")
	if list := names(t, far); !slices.Equal(list, []string{"known", "known.lock"}) {
		t.Errorf("beside the file there is %q", list)
	}
	if list := names(t, dir); !slices.Equal(list, []string{"one", "two"}) {
		t.Errorf("beside the links there is %q", list)
	}
}

// A new statement takes the place of the file to which a link leads.
func TestStatementByLink(t *testing.T) {
	root, _ := seeded(9)
	_, key := seeded(1)
	dir := t.TempDir()
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "member")
	if err := os.Symlink("member", link); err != nil {
		t.Fatal(err)
	}
	for _, until := range []time.Time{later, later.Add(time.Hour)} {
		st := identity.NewStatement(root, "demo", "alice", key, until)
		wantError(t, st.WriteFile(link))
		if got, err := identity.ReadStatement(file); got != st || err != nil {
			t.Errorf("the file has %v, %v", got, err)
		}
	}
}

// No file is made where a link leads that is of another user, or that leads nowhere.
func TestBadLinks(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	_, err := identity.OpenKnownPeers(loop, "")
	wantError(t, err, loop)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a link away")
	}
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "known")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	_, err = identity.OpenKnownPeers(link, "")
	wantError(t, err, link, "uid 12345")
	if _, err := os.Lstat(file); err == nil {
		t.Error("the file was made")
	}
}
