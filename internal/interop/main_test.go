//go:build linux || darwin

package interop

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh"
)

const (
	// role makes the test binary act as another program.
	role = "MESH_INTEROP_ROLE"
	// iceTimeout, such as "2s", shortens the time after which a base sidecar notices that a peer has gone. The
	// original takes 5 s and then another 25 s.
	iceTimeout = "MESH_INTEROP_ICE_TIMEOUT"
	// originalSidecar is the path of a sidecar of chatixia-mesh to use in place of our base sidecar.
	originalSidecar = "MESH_INTEROP_ORIGINAL"
	// hostileStream makes a base sidecar claim to know stream framing, and send whatever a test wants.
	hostileStream = "MESH_INTEROP_HOSTILE"
)

func TestMain(m *testing.M) {
	if os.Getenv(role) == "base-sidecar" {
		if err := baseSidecarMain(); err != nil {
			fmt.Fprintln(os.Stderr, "base sidecar:", err)
			os.Exit(1)
		}
		return
	}
	if mesh.SidecarMain() {
		return
	}
	tmp, err := os.MkdirTemp("", "t")
	if err == nil {
		err = os.Setenv("TMPDIR", tmp)
	}
	if err == nil {
		err = os.Unsetenv("XDG_RUNTIME_DIR")
	}
	if err == nil {
		// With the race detector programs sleep for a second at their end, which sidecars need not.
		err = os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The tests mostly wait for programs to start, and for their end to be noticed.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(runner{m}, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

// A runner ends what the tests share before goleak looks for leaks.
type runner struct{ *testing.M }

func (r runner) Run() int {
	code := r.M.Run()
	if err := closeBrowser(); err != nil {
		fmt.Fprintln(os.Stderr, "closing the browser:", err)
		code = 1
	}
	return code
}
