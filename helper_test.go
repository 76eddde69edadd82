//go:build linux || darwin

package mesh

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

var helpers = map[string]func(){
	"crash":    helperCrash,
	"hang":     helperHang,
	"forgot":   helperForgot,
	"stubborn": helperStubborn,
	"agent":    helperAgent,
	"hasty":    helperHasty,
	"lacking":  helperLacking,
	"starved":  helperStarved,
}

// helperLife bounds the life of a helper.
const helperLife = time.Minute

// helperCrash is a sidecar that ends at once.
func helperCrash() {
	fmt.Fprintln(os.Stderr, "boom: no such device")
	os.Exit(3)
}

// helperHang is a sidecar that never listens.
func helperHang() {
	fmt.Fprintln(os.Stderr, "about to hang")
	<-time.After(helperLife)
}

// helperLacking is a sidecar that finds no room for its socket.
func helperLacking() {
	fmt.Fprintln(os.Stderr, failure(fmt.Errorf("it cannot listen: %w", syscall.ENOSPC)))
}

// helperStarved is a sidecar whose runtime gets no thread.
func helperStarved() {
	fmt.Fprintln(os.Stderr, "runtime/cgo: pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort")
	os.Exit(2)
}

// helperForgot is an agent whose main does not call SidecarMain.
func helperForgot() {
	const copied = "MESH_TEST_COPIED"
	if os.Getenv(copied) != "" {
		fmt.Fprintln(os.Stderr, "a copy of a copy was started") // and would go on for ever
		os.Exit(9)
	}
	_ = os.Setenv(copied, "1")
	m, err := New(context.Background(), Config{Mode: SelfExec})
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	_ = m.Close()
}

// helperStubborn is a base sidecar that hangs up when it is to connect to a peer,
// and that neither the end of its link nor SIGTERM ends.
func helperStubborn() {
	ossignal.Ignore(syscall.SIGTERM)
	listener, err := net.Listen("unix", os.Getenv("IPC_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn, err := listener.Accept()
	for lines := bufio.NewReader(conn); err == nil; {
		var line string
		line, err = lines.ReadString('\n')
		switch {
		case strings.Contains(line, `"list_peers"`):
			_, err = conn.Write(wire.AppendPeerList(nil, wire.PeerList{}))
		case strings.Contains(line, `"connect"`):
			fmt.Fprintln(os.Stderr, "I stay")
			err = conn.Close()
		}
	}
	<-time.After(helperLife)
}

// helperAgent is an agent that starts a sidecar, prints its pid, executable and
// socket, and waits.
func helperAgent() {
	_ = os.Unsetenv(helperEnv) // the sidecar is to be one
	if os.Getenv("MESH_TEST_REMOVE_SELF") != "" {
		exe, err := os.Executable()
		if err == nil {
			err = os.Remove(exe)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperLife)
	defer cancel()
	m, err := New(ctx, alone(SelfExec))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(m.SidecarPID(), privateSocket())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends or kills it
	_ = m.Close()
}

// alone is the configuration of an agent whose signaling server is down.
func alone(mode Mode) Config {
	return Config{Mode: mode, SignalingURL: "ws://127.0.0.1:1/ws", APIKey: "k"}
}

// start starts a mesh that the test closes at its end, if not before.
func start(t *testing.T, cfg Config) *Mesh {
	t.Helper()
	m, err := New(bounded(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// privateSocket returns the socket of the one sidecar that this process has
// spawned, "" if there is none.
func privateSocket() string {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "mesh-*", "s"))
	if err != nil || len(found) != 1 {
		return ""
	}
	return found[0]
}

// running reports whether a process runs. One that has ended does not, even if its
// parent, which may be an init that does not care, has not waited for it.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !bytes.HasPrefix(bytes.TrimSpace(out), []byte("Z"))
}

// serveForTest runs the sidecar command's work in the background until it ends
// or the test does.
func serveForTest(t *testing.T, cfg Config) (ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		done <- ServeSidecar(ctx, cfg)
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	return done
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// socketPath returns a path for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(testutil.ShortDir(t), "s")
}
