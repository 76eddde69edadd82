package mesh

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// descendants returns the processes that this one has started, directly or not.
func descendants(t *testing.T) (pids []int) {
	t.Helper()
	parents := map[int]int{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The command, in parentheses, may hold anything.
		var state string
		var parent int
		if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parents[pid] = parent
	}
	for pid := range parents {
		for p := parents[pid]; p > 0; p = parents[p] {
			if p == os.Getpid() {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// Every user can read the command lines of all processes, so that of a sidecar is its name and nothing else: no key,
// secret, password or token. They travel in the environment, which only the user and root can read.
func TestNothingInArgv(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fixed := Network{ICEServers: []ICEServer{{URLs: []string{"turn:127.0.0.1:1"}, Username: "u", Credential: "secret-credential"}}}
	for _, mode := range []Mode{SelfExec, Binary} {
		for name, network := range map[string]Network{"TURN secret": {}, "TURN password": fixed} {
			t.Run(mode.String()+", "+name, func(t *testing.T) {
				t.Setenv("TURN_URL", "turn:127.0.0.1:1")
				t.Setenv("TURN_SECRET", "secret-turn")
				m := start(t, Config{Mode: mode, Binary: self, SignalingURL: "ws://user:secret-password@127.0.0.1:1/ws", APIKey: "secret-key", Network: network})
				found := false
				for _, pid := range descendants(t) {
					line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
					if err != nil {
						continue // it has ended
					}
					if args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00"); len(args) != 1 || strings.Contains(args[0], "secret") {
						t.Errorf("pid %d has the command line %q, want its name only", pid, args)
					}
					found = found || pid == m.SidecarPID()
				}
				if !found {
					t.Errorf("the sidecar, pid %d, is not among the processes found", m.SidecarPID())
				}
			})
		}
	}
}
