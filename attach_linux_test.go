package mesh

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// The error of mode Attach about a socket of another user names that user, and a path that no other user can take.
func TestAttachToAnotherUsersSocket(t *testing.T) {
	const other = 65534
	if os.Getuid() != 0 {
		t.Skip("needs root to make a socket of another user")
	}
	runtime := t.TempDir()
	if err := os.Chmod(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	dir, err := os.MkdirTemp("/tmp", "attach-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sidecar.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := errors.Join(os.Chown(path, other, -1), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	_, err = New(bounded(t), Config{Mode: Attach, Socket: path})
	if !errors.Is(err, sock.ErrOwner) {
		t.Fatalf("New: %v, want %v", err, sock.ErrOwner)
	}
	for _, want := range []string{path, "uid " + strconv.Itoa(other), "pid " + strconv.Itoa(os.Getpid()), filepath.Join(runtime, "sidecar.sock")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}
