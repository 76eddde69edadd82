//go:build linux || darwin

package sidecar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A hosted is a Host that runs for a test.
type hosted struct {
	t    *testing.T
	path string
	log  *testutil.LogBuffer
	done chan error
}

func host(t *testing.T, set Settings, patience time.Duration) *hosted {
	t.Helper()
	return hostWith(t, Host{Settings: set, Patience: patience})
}

func hostWith(t *testing.T, served Host) *hosted {
	t.Helper()
	h := &hosted{t: t, path: filepath.Join(shortDir(t), "s"), log: &testutil.LogBuffer{}, done: make(chan error, 1)}
	listener, err := sock.Listen(h.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		served.Listener, served.Log = listener, zerolog.New(h.log)
		h.done <- served.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	return h
}

func (h *hosted) dial() *agent {
	h.t.Helper()
	conn, err := sock.Dial(context.Background(), h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	return onConn(h.t, conn)
}

// ended returns what Run returned.
func (h *hosted) ended() error {
	h.t.Helper()
	select {
	case err := <-h.done:
		if _, statErr := os.Lstat(h.path); statErr == nil {
			h.t.Error("the socket is there still")
		}
		return err
	case <-time.After(patience):
		h.t.Fatal("the host goes on")
		return nil
	}
}

// servesSomeone waits until a silent caller is served.
func (h *hosted) servesSomeone() {
	h.t.Helper()
	testutil.Eventually(h.t, "the caller is served", func() bool { return h.log.Count(`"signaling"`) > 0 })
}

// waits checks that Run has not returned.
func (h *hosted) waits() {
	h.t.Helper()
	select {
	case err := <-h.done:
		h.t.Fatalf("the host has ended: %v", err)
	default:
	}
}

// serves checks that an agent is served, and that its end is the host's.
func (h *hosted) serves(hello string) {
	h.t.Helper()
	a := h.dial()
	a.say(hello)
	a.expect("ready")
	a.conn.Close()
	if err := h.ended(); err != nil {
		h.t.Error(err)
	}
}

// refused checks that the sidecar hangs up, with at most a reason.
func (a *agent) refused() {
	a.t.Helper()
	rest, err := io.ReadAll(a.r)
	if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(rest), `"ready"`) {
		a.t.Errorf("not refused: %q, %v", rest, err)
	}
}

func withToken(token string) string {
	return strings.Replace(hello, `"protocol"`, `"token":"`+token+`","protocol"`, 1)
}

func TestHostServesOneAgent(t *testing.T) {
	h := host(t, alone(""), 0)
	first := h.dial().greeted()
	for range 2 {
		second := h.dial()
		second.say(hello)
		second.refused()
	}
	first.conn.Close()
	if err := h.ended(); err != nil {
		t.Error(err)
	}
}

// Programs connect that are no agents. The sidecar waits on, and the agent that comes after them is served.
func TestHostPassesOver(t *testing.T) {
	for name, visit := range map[string]func(t *testing.T, h *hosted){
		"listen": func(t *testing.T, h *hosted) {
			if _, err := sock.Listen(h.path); !errors.Is(err, sock.ErrInUse) {
				t.Errorf("listening where a sidecar does: %v", err)
			}
		},
		"hang up":  func(_ *testing.T, h *hosted) { h.dial().conn.Close() },
		"PING":     say("PING\n"),
		"HTTP":     say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"no line":  say("PING"),
		"blank":    say("\r\n\n"),
		"no field": say(`{"type":"send"}` + "\n"),
		"unknown":  say(`{"type":"health"}` + "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, alone(""), 0)
			for range 3 {
				visit(t, h)
			}
			h.serves(hello)
		})
	}
}

// say is a visitor that writes, half-closes, and waits for the sidecar to hang up or say all it has to.
func say(text string) func(*testing.T, *hosted) {
	return func(t *testing.T, h *hosted) {
		a := h.dial()
		if _, err := io.WriteString(a.conn, text); err != nil {
			t.Fatal(err)
		}
		if err := a.conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		a.refused()
		h.waits()
	}
}

// A visitor that is still there does not keep the agent out: one that has talked nonsense is hung up on, one that is
// silent is waited for.
func TestHostVisitorStays(t *testing.T) {
	t.Run("talks", func(t *testing.T) {
		h := host(t, alone(""), 0)
		visitor := h.dial()
		visitor.say("PING")
		h.serves(hello)
		visitor.refused()
	})
	t.Run("silent", func(t *testing.T) {
		h := host(t, alone(""), 0)
		visitor := h.dial()
		h.servesSomeone()
		a := h.dial()
		a.say(hello)
		visitor.conn.Close()
		a.expect("ready")
		a.conn.Close()
		if err := h.ended(); err != nil {
			t.Error(err)
		}
	})
	t.Run("silent where a token is wanted", func(t *testing.T) {
		h := host(t, alone("secret"), 0)
		h.dial()
		h.serves(withToken("secret"))
	})
}

// A silent caller is the agent if it has stayed for long.
func TestHostSilentAgent(t *testing.T) {
	h := hostWith(t, Host{Settings: alone(""), silence: 100 * time.Millisecond})
	first := h.dial()
	h.servesSomeone()
	second := h.dial()
	second.refused()
	h.waits()
	first.conn.Close()
	if err := h.ended(); err != nil {
		t.Error(err)
	}
}

// A silent caller is the agent if it is the sidecar's parent. Base agents may say nothing.
func TestHostSilentParent(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostSilentParent$")
	cmd.Env = append(os.Environ(), "MESH_TEST_HOST="+path)
	if os.Getenv("MESH_TEST_HOST") != "" {
		listener, err := sock.Listen(os.Getenv("MESH_TEST_HOST"))
		if err == nil {
			h := Host{Listener: listener, Settings: alone(""), Log: zerolog.New(os.Stdout)}
			err = h.Run(context.Background())
		}
		fmt.Println("the host ended:", err)
		return
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var conn net.Conn
	testutil.Eventually(t, "it listens", func() bool {
		conn, err = sock.Dial(context.Background(), path)
		return err == nil
	})
	first := onConn(t, conn) // it says nothing
	said := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, `"signaling"`); { // then it is served
		if line, err = said.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	second, err := sock.Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	onConn(t, second).refused()
	first.conn.Close()
	rest, err := io.ReadAll(said)
	if err != nil || !strings.Contains(string(rest), "the host ended: <nil>") {
		t.Errorf("it said %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// shortDir returns a directory for a socket: the path of t.TempDir can be too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestHostWantsToken(t *testing.T) {
	h := host(t, alone("secret"), 0)
	for _, wrong := range []string{hello, withToken("x"), `{"type":"list_peers"}`} {
		a := h.dial()
		a.say(wrong)
		a.refused()
	}
	h.serves(withToken("secret"))
}

func TestHostWithoutAgent(t *testing.T) {
	const moment = 100 * time.Millisecond
	t.Run("no caller", func(t *testing.T) {
		if err := host(t, alone(""), moment).ended(); !errors.Is(err, ErrNoAgent) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("an agent ends the wait", func(t *testing.T) {
		h := host(t, alone(""), 3*moment)
		a := h.dial().greeted()
		select {
		case err := <-h.done:
			t.Errorf("ended with an agent: %v", err)
		case <-time.After(6 * moment):
		}
		a.conn.Close()
		if err := h.ended(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a stranger does not", func(t *testing.T) {
		h := host(t, alone("secret"), 3*moment)
		a := h.dial()
		a.say(hello)
		a.refused()
		if err := h.ended(); !errors.Is(err, ErrNoAgent) {
			t.Errorf("ended with %v", err)
		}
	})
}
