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
	"sync"
	"syscall"
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

func host(t *testing.T, set Settings) *hosted {
	t.Helper()
	return hostWith(t, Host{Settings: set})
}

// hostWith runs a Host, which listens on a socket if it has no listener.
func hostWith(t *testing.T, served Host) *hosted {
	t.Helper()
	h := &hosted{t: t, log: &testutil.LogBuffer{}, done: make(chan error, 1)}
	if served.Listener == nil {
		served.Listener = listen(t)
	}
	h.path = served.Listener.Addr().String()
	served.Log = zerolog.New(h.log)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		h.done <- served.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	return h
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := sock.Listen(filepath.Join(testutil.ShortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return listener
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
	err := testutil.Take(h.t, "the end of the host", h.done)
	if _, statErr := os.Lstat(h.path); statErr == nil {
		h.t.Error("the socket is still there")
	}
	return err
}

// servesSomeone waits until a silent caller is served.
func (h *hosted) servesSomeone() {
	h.t.Helper()
	h.log.Wait(h.t, `"signaling"`)
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

// late is a caller that comes when there is an agent, and is not for a stream.
func (a *agent) late() {
	a.t.Helper()
	_, _ = io.WriteString(a.conn, hello+"\n") // fails if it is refused before
	a.refused()
}

func withToken(token string) string {
	return strings.Replace(hello, `"protocol"`, `"token":"`+token+`","protocol"`, 1)
}

func TestHostServesOneAgent(t *testing.T) {
	h := host(t, alone(""))
	first := h.dial().greeted()
	for range 2 {
		h.dial().late()
	}
	first.conn.Close()
	if err := h.ended(); err != nil {
		t.Error(err)
	}
}

// Programs that are not agents connect, too. The sidecar keeps waiting, and serves the agent that comes after them.
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
			h := host(t, alone(""))
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

// Visitors that stay do not keep the agent out, and the sidecar does nothing for them.
func TestHostVisitorStays(t *testing.T) {
	for name, text := range map[string]string{"talks": "PING\n", "begins to talk": "PING", "is silent": ""} {
		t.Run(name, func(t *testing.T) {
			h := host(t, alone(""))
			var visitors []*agent
			for range 20 {
				v := h.dial()
				if _, err := io.WriteString(v.conn, text); err != nil {
					t.Fatal(err)
				}
				visitors = append(visitors, v)
			}
			h.serves(hello)
			for _, v := range visitors {
				v.refused()
			}
			if n := h.log.Count(`"signaling"`); n > 1 { // the agent's own
				t.Errorf("it joined the mesh for a visitor: %d changes of state", n)
			}
		})
	}
	t.Run("silent where a token is wanted", func(t *testing.T) {
		h := host(t, alone("secret"))
		h.dial()
		h.serves(withToken("secret"))
	})
}

// A silent caller is the agent if it has stayed for long.
func TestHostSilentAgent(t *testing.T) {
	h := hostWith(t, Host{Settings: alone(""), silence: 100 * time.Millisecond})
	first := h.dial()
	h.servesSomeone()
	h.dial().late()
	h.waits()
	first.conn.Close()
	if err := h.ended(); err != nil {
		t.Error(err)
	}
}

// hostInChild runs a Host in a child process, which is the test again, and returns a connection to it, its path and what the
// child prints. In the child it does not return.
func hostInChild(t *testing.T, set Settings) (conn net.Conn, path string, out io.Reader, wait func() error) {
	t.Helper()
	if path := os.Getenv("MESH_TEST_HOST"); path != "" {
		listener, err := sock.Listen(path)
		if err == nil {
			h := Host{Listener: listener, Settings: set, Log: zerolog.New(os.Stdout), silence: time.Hour}
			err = h.Run(context.Background())
		}
		fmt.Println("the host ended:", err)
		os.Exit(0)
	}
	path = filepath.Join(testutil.ShortDir(t), "s")
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience) // kills a host that waits for ever
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "MESH_TEST_HOST="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait = sync.OnceValue(cmd.Wait)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = wait()
	})
	testutil.Eventually(t, "it listens", func() bool {
		conn, err = sock.Dial(context.Background(), path)
		return err == nil
	})
	return conn, path, out, wait
}

// A silent caller is the agent if it is the sidecar's parent. Base agents may say nothing.
func TestHostSilentParent(t *testing.T) {
	conn, path, out, wait := hostInChild(t, alone(""))
	// Not if it has sent nonsense.
	if _, err := io.WriteString(conn, "PING\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	onConn(t, conn).refused()
	conn, err := sock.Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
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
	onConn(t, second).late()
	first.conn.Close()
	rest, err := io.ReadAll(said)
	if err != nil || !strings.Contains(string(rest), "the host ended: <nil>") {
		t.Errorf("it said %q, %v", rest, err)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// A parent that is slow to say hello, as on a busy machine, is not taken for a silent one, which a token does not allow.
func TestHostSlowParent(t *testing.T) {
	conn, _, _, _ := hostInChild(t, alone("secret"))
	time.Sleep(2 * joinDelay)
	a := onConn(t, conn)
	a.say(withToken("secret"))
	a.expect("ready")
}

// An agent without the token is refused, whatever its first line is; only one that says hello is told so.
func TestHostWantsToken(t *testing.T) {
	h := host(t, alone("secret"))
	for _, wrong := range []string{hello, withToken("x"), `{"type":"list_peers"}`, "hello", "\n" + hello} {
		a := h.dial()
		a.say(wrong)
		rest, _ := io.ReadAll(a.r)
		if told := strings.Contains(string(rest), `"unauthorized"`); told != strings.Contains(wrong, `"hello"`) {
			t.Errorf("%.40s: told %q", wrong, rest)
		}
	}
	h.serves(withToken("secret"))
}

// The sidecar is also the agent's whose first lines are not valid, once a valid one comes: it reads all of them.
func TestHostLateLine(t *testing.T) {
	for name, before := range map[string]string{
		"nonsense": "PING\n", "blank": "\r\n", "mark": "\uFEFF", "in pieces": hello[:20],
		"long": `{"type":"send","payload":{"target_peer":"p","message":{"type":"x","payload":"` + strings.Repeat("x", 2*maxUnproven) + `"}}}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, alone(""))
			a := h.dial()
			if _, err := io.WriteString(a.conn, before); err != nil {
				t.Fatal(err)
			}
			rest := hello
			if name == "in pieces" {
				rest = hello[20:]
			}
			a.say(rest)
			a.expect("ready")
			a.conn.Close()
			if err := h.ended(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A flood without a valid line is no agent.
func TestHostFlood(t *testing.T) {
	for _, settings := range []Settings{alone(""), alone("secret")} {
		for _, text := range []string{"x", "x\n", "\n"} {
			h := host(t, settings)
			a := h.dial()
			_, _ = io.WriteString(a.conn, strings.Repeat(text, 2*maxUnproven)) // it may be hung up on meanwhile
			a.refused()
			h.waits()
		}
	}
}

// An agent that connected while the host's process stood still is served, however late the host sees it.
func TestHostStoodStill(t *testing.T) {
	listener := listen(t)
	conn, err := sock.Dial(context.Background(), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := onConn(t, conn)
	a.say(withToken("secret"))
	done := make(chan error, 1)
	go func() {
		h := Host{Listener: listener, Settings: alone("secret"), Log: zerolog.Nop(), Patience: 1}
		done <- h.Run(context.Background())
	}()
	a.expect("ready")
	a.conn.Close()
	if err := testutil.Take(t, "the host", done); err != nil {
		t.Error(err)
	}
}

// A host to which no agent connects ends, either after a while or when the agent's process is gone.
func TestHostWithoutAgent(t *testing.T) {
	t.Run("no caller", func(t *testing.T) {
		if err := hostWith(t, Host{Settings: alone(""), Patience: time.Millisecond}).ended(); !errors.Is(err, ErrNoAgent) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("an agent ends the wait", func(t *testing.T) {
		orphaned := make(chan struct{})
		h := hostWith(t, Host{Settings: alone(""), Orphaned: orphaned})
		a := h.dial().greeted()
		close(orphaned)
		h.dial().late()
		a.say(`{"type":"list_peers"}`)
		a.expect("peer_list")
		h.waits()
		a.conn.Close()
		if err := h.ended(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a stranger does not", func(t *testing.T) {
		orphaned := make(chan struct{})
		h := hostWith(t, Host{Settings: alone("secret"), Orphaned: orphaned})
		a := h.dial()
		a.say(hello)
		a.refused()
		close(orphaned)
		if err := h.ended(); !errors.Is(err, ErrNoAgent) {
			t.Errorf("ended with %v", err)
		}
	})
}

// An oddListener accepts what is in conns first, nil for a failure.
type oddListener struct {
	net.Listener
	conns chan net.Conn
}

func (l *oddListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		if conn == nil {
			return nil, syscall.EMFILE
		}
		return conn, nil
	default:
		return l.Listener.Accept()
	}
}

// A connection that cannot be accepted, for lack of descriptors or because its user is unknown, does not end the host.
func TestHostAcceptFails(t *testing.T) {
	near, far := net.Pipe()
	odd := &oddListener{Listener: listen(t), conns: make(chan net.Conn, 2)}
	odd.conns <- nil
	odd.conns <- far
	h := hostWith(t, Host{Settings: alone(""), Listener: odd})
	onConn(t, near).refused()
	h.serves(hello)
	for _, want := range []string{`"message":"agent not accepted"`, syscall.EMFILE.Error(), `"message":"connection refused"`} {
		if h.log.Count(want) != 1 {
			t.Errorf("the log says %q %d times", want, h.log.Count(want))
		}
	}
}

// A sidecar that cannot be started ends the host, with the reason.
func TestHostCannotServe(t *testing.T) {
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	set := alone("")
	set.Network.UDPPort = taken.LocalAddr().(*net.UDPAddr).Port
	h := host(t, set)
	h.dial().say(hello)
	if err := h.ended(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("ended with %v", err)
	}
}

// The end of its context ends the host, with or without an agent, and is no error.
func TestHostIsStopped(t *testing.T) {
	for _, served := range []bool{false, true} {
		t.Run(fmt.Sprintf("served %t", served), func(t *testing.T) {
			listener := listen(t)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			h := &hosted{t: t, path: listener.Addr().String(), done: done}
			go func() {
				done <- (&Host{Listener: listener, Settings: alone(""), Log: zerolog.Nop()}).Run(ctx)
			}()
			if served {
				h.dial().greeted()
			}
			cancel()
			if err := h.ended(); err != nil {
				t.Error(err)
			}
		})
	}
}
