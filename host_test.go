//go:build linux || darwin

package mesh

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// runHost starts a host and returns its socket and its end.
func runHost(t *testing.T, set settings, patience time.Duration) (path string, ended <-chan error) {
	t.Helper()
	path = socketPath(t)
	listener, err := sock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		h := host{listener: listener, set: set, log: zerolog.Nop(), patience: patience}
		done <- h.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	return path, done
}

func dial(t *testing.T, path string) *launched {
	t.Helper()
	conn, err := sock.Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &launched{link: newLink(conn, wire.Limits{})}
}

// refused checks that the sidecar hangs up on a hello, with at most a reason.
func refused(t *testing.T, l *launched) {
	t.Helper()
	line, err := greet(l)
	if err == nil && strings.Contains(line, `"unauthorized"`) {
		_, err = nextLine(l.link)
	}
	if err == nil {
		t.Errorf("served: %q", line)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("neither served nor refused")
	}
}

func ends(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the sidecar goes on")
		return nil
	}
}

func TestHostServesOneAgent(t *testing.T) {
	path, ended := runHost(t, testSettings(), 0)
	agent := dial(t, path)
	mustGreet(t, agent)
	refused(t, dial(t, path))
	refused(t, dial(t, path))
	agent.link.close()
	if err := ends(t, ended); err != nil {
		t.Error(err)
	}
	if exists(path) {
		t.Error("the socket is there still")
	}
}

func TestHostIgnoresProbes(t *testing.T) {
	path, ended := runHost(t, testSettings(), 0)
	for range 3 {
		if _, err := sock.Listen(path); !errors.Is(err, sock.ErrInUse) {
			t.Errorf("listening where a sidecar does: %v", err)
		}
		dial(t, path).link.close()
	}
	agent := dial(t, path)
	mustGreet(t, agent) // at once: the tests before it did not take its place
	agent.link.close()
	if err := ends(t, ended); err != nil {
		t.Error(err)
	}
}

func TestHostIgnoresSlowProbes(t *testing.T) {
	path, ended := runHost(t, testSettings(), 0)
	slow := dial(t, path)
	if err := slow.link.conn.SetReadDeadline(time.Now().Add(2 * peekTime)); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.link.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that says nothing was not taken for an agent's: %v", err)
	}
	slow.link.close()
	// It is served for a moment, and somebody else may be refused meanwhile.
	eventually(t, "an agent is served after tests of the socket", func() bool {
		agent := dial(t, path)
		defer agent.link.close()
		line, err := greet(agent)
		return err == nil && strings.Contains(line, `"ready"`)
	})
	if err := ends(t, ended); err != nil {
		t.Error(err)
	}
}

func TestHostWantsToken(t *testing.T) {
	set := testSettings()
	set.Token = newToken()
	path, ended := runHost(t, set, 0)
	for _, wrong := range []string{"", "x", newToken()} {
		l := dial(t, path)
		l.token = wrong
		refused(t, l)
	}
	eventually(t, "the agent is served after strangers", func() bool {
		agent := dial(t, path) // refused as long as the last stranger is not quite gone
		defer agent.link.close()
		agent.token = set.Token
		line, err := greet(agent)
		return err == nil && strings.Contains(line, `"ready"`)
	})
	if err := ends(t, ended); err != nil {
		t.Error(err)
	}
}

func TestHostWithoutAgent(t *testing.T) {
	t.Run("nobody", func(t *testing.T) {
		path, ended := runHost(t, testSettings(), 100*time.Millisecond)
		if err := ends(t, ended); !errors.Is(err, errNoAgent) {
			t.Errorf("ended with %v", err)
		}
		if exists(path) {
			t.Error("the socket is there still")
		}
	})
	t.Run("an agent ends the wait", func(t *testing.T) {
		path, ended := runHost(t, testSettings(), 300*time.Millisecond)
		agent := dial(t, path)
		mustGreet(t, agent)
		select {
		case err := <-ended:
			t.Errorf("ended with an agent: %v", err)
		case <-time.After(600 * time.Millisecond):
		}
		agent.link.close()
		if err := ends(t, ended); err != nil {
			t.Error(err)
		}
	})
	t.Run("a stranger does not", func(t *testing.T) {
		set := testSettings()
		set.Token = newToken()
		path, ended := runHost(t, set, 300*time.Millisecond)
		refused(t, dial(t, path))
		if err := ends(t, ended); !errors.Is(err, errNoAgent) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestServeSidecarEnds(t *testing.T) {
	path := socketPath(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- ServeSidecar(ctx, Config{Socket: path, SignalingURL: "ws://127.0.0.1:1/ws", APIKey: "k"})
	}()
	eventually(t, "it listens", func() bool { return exists(path) })
	agent := dial(t, path)
	mustGreet(t, agent)
	cancel()
	if err := ends(t, ended); err != nil {
		t.Errorf("ended by its context: %v", err)
	}
	if _, err := io.Copy(io.Discard, agent.link.conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the agent's link is there still")
	}
	if exists(path) {
		t.Error("the socket is there still")
	}
}

func TestServeSidecarFailures(t *testing.T) {
	taken := socketPath(t)
	listener, err := sock.Listen(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file := socketPath(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		is   error
		want string
	}{
		{"live listener", Config{Socket: taken}, sock.ErrInUse, taken},
		{"a file", Config{Socket: file}, sock.ErrNotSocket, file},
		{"too long", Config{Socket: "/tmp/" + strings.Repeat("x", 200)}, sock.ErrPath, "Config.Socket"},
		{"no directory", Config{Socket: file + "/x/s"}, nil, file},
		{"signaling URL", Config{Socket: file, SignalingURL: "http://x/ws"}, nil, "SignalingURL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := ServeSidecar(context.Background(), tc.cfg)
			var field *ConfigError
			if !errors.As(err, &field) || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
	if !exists(file) {
		t.Error("the file was removed")
	}
}
