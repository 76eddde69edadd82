//go:build linux || darwin

package mesh

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

var helpers = map[string]func(){
	"crash":    helperCrash,
	"hang":     helperHang,
	"forgot":   helperForgot,
	"stubborn": helperStubborn,
	"agent":    helperAgent,
}

// helperLife bounds the life of a helper that nobody ends.
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

// helperStubborn is a sidecar that neither the end of its link nor SIGTERM ends.
func helperStubborn() {
	ossignal.Ignore(syscall.SIGTERM)
	listener, err := net.Listen("unix", os.Getenv("IPC_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	conn, err := listener.Accept()
	fmt.Fprintln(os.Stderr, "I stay", conn.RemoteAddr(), err)
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
	cfg := &Config{Mode: SelfExec}
	l, err := launch(context.Background(), cfg, testSettings())
	if err == nil {
		_, err = greet(l)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.pid, privateSocket())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends or kills it
	l.link.Close()
	l.stop(context.Background())
}

// testSettings are those of a sidecar whose signaling server is down.
func testSettings() sidecar.Settings {
	return sidecar.Settings{
		Signaling: signal.Settings{URL: "ws://127.0.0.1:1/ws", TokenURL: "http://127.0.0.1:1/api/token", APIKey: "k"},
		Limits:    wire.Limits{MaxMessage: 1 << 20, MaxDepth: 64},
	}
}

// greet says hello and returns the sidecar's answer.
func greet(l *launched) (string, error) {
	hello := wire.AppendHello(nil, wire.Hello{Protocol: wire.ProtocolVersion, MaxMessage: 1 << 20, Token: l.token})
	if err := l.link.WriteNow(nil, func(b []byte) []byte { return append(b, hello...) }); err != nil {
		return "", err
	}
	return nextLine(l.link)
}

// nextLine returns the first of the lines that wait on a link, or the next one.
func nextLine(l *link.Link) (next string, err error) {
	l.Serve(func(line []byte, lineErr error) bool {
		next, err = string(line), lineErr
		return false
	})
	return next, err
}

// awaitEnd passes over lines until the link ends, and returns why if that was
// not the counterpart's will.
func awaitEnd(l *link.Link) (err error) {
	l.Serve(func(_ []byte, lineErr error) bool {
		err = lineErr
		return err == nil
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
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

// mustGreet fails unless the sidecar is ready.
func mustGreet(t *testing.T, l *launched) {
	t.Helper()
	line, err := greet(l)
	if err != nil || !strings.Contains(line, `"ready"`) {
		t.Fatalf("the answer to hello is %q, %v", line, err)
	}
}

// running tells whether a process runs. One that has ended and that its parent,
// which may be an init that does not care, has not waited for does not.
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

// socketPath is a short path: t.TempDir's can be too long for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}
