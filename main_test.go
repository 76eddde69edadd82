package mesh

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// helperEnv makes the test binary act as another program: the name of one of helpers.
const helperEnv = "MESH_TEST_HELPER"

// programs is where the programs are that tests build.
var programs string

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		helpers[name]()
		return
	}
	if SidecarMain() {
		return
	}
	flag.Parse()
	// Tests that run side by side wait most of their time: for ICE to notice something, or for what is done at a pace.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var err error
	programs, err = os.MkdirTemp("", "p")
	var tmp string
	if err == nil { // everything that the mesh puts into a temporary directory is to be gone at the end
		tmp, err = os.MkdirTemp("", "t")
	}
	if err == nil {
		err = os.Setenv("TMPDIR", tmp)
	}
	if err == nil {
		err = os.Unsetenv("XDG_RUNTIME_DIR")
	}
	if err == nil {
		// Programs with the race detector wait for a second at their end, which
		// sidecars and agents that tests start need not.
		err = os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		for _, left := range leftovers(tmp) {
			fmt.Fprintln(os.Stderr, "left behind by the tests:", left)
			code = 1
		}
		_ = os.RemoveAll(tmp)
		_ = os.RemoveAll(programs)
		os.Exit(code)
	}))
}

// leftovers lists the files in the temporary directory, and child processes.
func leftovers(tmp string) []string {
	var left []string
	entries, err := os.ReadDir(tmp)
	if err != nil {
		left = append(left, err.Error())
	}
	for _, e := range entries {
		left = append(left, "file "+e.Name())
	}
	if child := leftChild(); child != "" {
		left = append(left, child)
	}
	return left
}
