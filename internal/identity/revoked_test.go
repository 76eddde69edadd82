package identity_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
)

func TestRevoked(t *testing.T) {
	pathA, keyA := newKey(t)
	pathB, keyB := newKey(t)
	a, b := open(t, identity.Settings{KeyFile: pathA}), open(t, identity.Settings{KeyFile: pathB})
	file := filepath.Join(t.TempDir(), "revoked")
	write(t, file, "# nobody\r\n\r\n  \t\n", 0o600)
	judge := open(t, identity.Settings{RevokedFile: file})
	proof, err := meet(a, judge, "alice", "judge")
	wantError(t, err)

	write(t, file, "# left the company\n\n  "+keyA.String()+"  # alice\r\n", 0o600)
	wantError(t, judge.Check(proof)) // not read again by itself
	_, err = judge.Reload()
	wantError(t, err)
	wantError(t, judge.Check(proof), "revoked")
	_, err = meet(a, judge, "alice", "judge")
	wantError(t, err, "revoked")
	_, err = meet(b, judge, "bob", "judge")
	wantError(t, err)

	// What is damaged or gone revokes what it revoked before, and is reported.
	for _, text := range []string{"hello\n", keyB.String() + "\n" + keyA.String()[:40], keyB.String() + " " + keyA.String() + "\n", "\x00\x00"} {
		write(t, file, text, 0o600)
		_, err = judge.Reload()
		wantError(t, err, file, "line ")
		wantError(t, judge.Check(proof), "revoked")
		_, err = meet(a, judge, "alice", "judge")
		wantError(t, err, "revoked")
		_, err = meet(b, judge, "bob", "judge")
		wantError(t, err)
		_, err = identity.Open(identity.Settings{RevokedFile: file})
		wantError(t, err, "RevokedFile", file)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, err = judge.Reload()
	wantError(t, err, file)
	wantError(t, judge.Check(proof), "revoked")
	_, err = identity.Open(identity.Settings{RevokedFile: file})
	wantError(t, err, "RevokedFile", file)

	write(t, file, keyB.String(), 0o600)
	_, err = meet(b, judge, "bob", "judge") // read again before it decides
	wantError(t, err, "revoked")
	wantError(t, judge.Check(proof))
}

// A file that changes within a tick of the file system's clock keeps its time, and here its size, too.
func TestRevokedAtTheSameTime(t *testing.T) {
	_, keyA := newKey(t)
	pathB, keyB := newKey(t)
	b := open(t, identity.Settings{KeyFile: pathB})
	file := filepath.Join(t.TempDir(), "revoked")
	write(t, file, keyA.String(), 0o600)
	tick := time.Now()
	if err := os.Chtimes(file, tick, tick); err != nil {
		t.Fatal(err)
	}
	judge := open(t, identity.Settings{RevokedFile: file})
	write(t, file, keyB.String(), 0o600)
	if err := os.Chtimes(file, tick, tick); err != nil {
		t.Fatal(err)
	}
	_, err := meet(b, judge, "bob", "judge")
	wantError(t, err, "revoked")
}
