package testutil

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// netnsVar is the environment variable that marks a process with a network of its own.
const netnsVar = "MESH_TEST_NETNS"

// InOwnNetwork runs body in another process of the test's binary, with a network of its own (network_namespaces(7)) in
// which only lo is up. It skips the test where such a process is not allowed, or has no ip command. The test must be
// no subtest.
func InOwnNetwork(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(netnsVar) != "" {
		IP(t, "link", "set", "lo", "up")
		body(t)
		return
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip command")
	}
	flags := syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		flags.Cloneflags |= syscall.CLONE_NEWUSER
		flags.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		flags.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	}
	probe := exec.Command("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
	probe.SysProcAttr = &flags
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("a network namespace with interfaces is not allowed here: %v %s", err, out)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.timeout=5m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), netnsVar+"=1")
	cmd.SysProcAttr = &flags
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in its own network: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// IP runs the ip command.
func IP(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v %s", strings.Join(args, " "), err, out)
	}
}
