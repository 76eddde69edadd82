//go:build unix

package identity_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// roleEnv makes the test binary do something else than test: what, and then its arguments.
const roleEnv = "IDENTITY_TEST_ROLE"

func TestMain(m *testing.M) {
	role := strings.Split(os.Getenv(roleEnv), "\n")
	var err error
	switch role[0] {
	case "":
		os.Exit(m.Run())
	case "pin":
		err = pinMany(role[1], role[2])
	case "pin until killed":
		err = pinForEver(role[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func process(t *testing.T, role ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+strings.Join(role, "\n"), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

const (
	processes = 8
	shared    = 4 // ids that all of them pin, each with a key of its own
	alone     = 3 // ids of each
)

// pinMany pins the shared ids and some of its own, from several goroutines, and prints who is who then.
func pinMany(path, name string) error {
	n, err := strconv.Atoi(name)
	if err != nil {
		return err
	}
	_, key := seeded(byte(n))
	k, err := identity.OpenKnownPeers(path, "")
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // all begin at once
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, shared+alone)
	for i := range shared {
		wg.Go(func() {
			if err := k.Pin(fmt.Sprint("shared", i), key); err != nil && !strings.Contains(err.Error(), "changed") {
				errs <- err
			}
		})
	}
	for i := range alone {
		wg.Go(func() {
			if err := k.Pin(fmt.Sprintf("alone %d of %d", i, n), key); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	for i := range shared {
		has, _, err := k.Lookup(fmt.Sprint("shared", i))
		if err != nil {
			return err
		}
		fmt.Println(i, has)
	}
	close(errs)
	return <-errs
}

// Processes that pin at once, the same ids and others, lose nothing and agree on everything.
func TestPinFromProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known")
	var start []io.Closer
	var cmds []*exec.Cmd
	said := make([]strings.Builder, processes)
	for n := range processes {
		cmd := process(t, "pin", path, strconv.Itoa(n))
		cmd.Stdout = &said[n]
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		start, cmds = append(start, stdin), append(cmds, cmd)
	}
	for _, stdin := range start {
		if err := stdin.Close(); err != nil {
			t.Error(err)
		}
	}
	for n, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", n, err)
		}
	}
	_, all, err := identity.ReadKnownPeers(path)
	if err != nil || len(all) != shared+processes*alone {
		t.Fatalf("%d peers, %v", len(all), err)
	}
	for n := range processes {
		_, key := seeded(byte(n))
		for i := range alone {
			if id := fmt.Sprintf("alone %d of %d", i, n); all[id] != key {
				t.Errorf("%q is %v, want %v", id, all[id], key)
			}
		}
		want := ""
		for i := range shared {
			want += fmt.Sprintln(i, all[fmt.Sprint("shared", i)])
		}
		if said[n].String() != want {
			t.Errorf("process %d says\n%s\nand the file\n%s", n, &said[n], want)
		}
	}
}

// pinForEver pins one id after the other, and says so each time.
func pinForEver(path string) error {
	_, key := seeded(1)
	k, err := identity.OpenKnownPeers(path, "")
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := k.Pin(fmt.Sprint(os.Getpid(), "-", i), key); err != nil {
			return err
		}
		fmt.Println(fmt.Sprint(os.Getpid(), "-", i))
	}
}

// A process that is killed at any moment leaves a file that can be read, with all that it had pinned.
func TestPinKilled(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "known")
	pinned := 0
	for round := range 25 {
		cmd := process(t, "pin until killed", path)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		var ids []string
		for lines.Scan() {
			if ids = append(ids, lines.Text()); len(ids) == 1+round%7 {
				_ = cmd.Process.Kill() // in the middle of the next one
			}
		}
		_ = cmd.Wait()
		_, all, err := identity.ReadKnownPeers(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(ids) == 0 {
			t.Fatal("the process has pinned nothing")
		}
		for _, id := range ids {
			if all[id].IsZero() {
				t.Errorf("round %d: %s is lost", round, id)
			}
		}
		if pinned += len(ids); len(all) < pinned {
			t.Errorf("round %d: %d peers, and %d were pinned", round, len(all), pinned)
		}
	}
	_, key := seeded(1)
	wantError(t, openKnown(t, path, "").Pin("after", key))
	if list := names(t, dir); len(list) != 2 {
		t.Errorf("left %q", list)
	}
}
