//go:build !linux && !darwin

package sock_test

import (
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

func TestUnsupported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_, dirErr := sock.NewDir()
	_, listenErr := sock.Listen(path)
	_, dialErr := sock.Dial(t.Context(), path)
	for name, err := range map[string]error{
		"NewDir": dirErr, "Listen": listenErr, "Dial": dialErr, "CheckPeer": sock.CheckPeer(a),
	} {
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), runtime.GOOS) {
			t.Errorf("%s: %v, want ErrUnsupported that names %s", name, err, runtime.GOOS)
		}
	}
}
