//go:build linux || darwin

package interop

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/signaling"
)

// The command as chatixia's agents start it: configured by its environment, with a socket file to wait for and one
// connection.

// TestSocketBeforeSignaling: the agent connects before there is a signaling server, and meets its peers once there
// is one.
func TestSocketBeforeSignaling(t *testing.T) {
	st := newStage(t)
	addr := freeAddress(t)
	cmd := exec.Command(theSidecar(t))
	cmd.Env = []string{
		"PATH=", "API_KEY=ann", "SIGNALING_URL=ws://" + addr + "/ws", "TOKEN_URL=http://" + addr + "/api/token",
	}
	ann := newBaseAgent(t, startProcess(t, cmd, nil))
	if err := ann.say("peers"); err != nil {
		t.Fatal(err)
	}
	if _, ok := ann.lines.find(1, func(l string) bool { return l == "peers:" }); !ok {
		t.Error("no peer_list while there is no signaling server")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	late := &http.Server{Handler: st.web.Config.Handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- late.Serve(l) }()
	t.Cleanup(func() {
		_ = late.Close()
		<-served
	})
	bob := st.enter(t, kindNamed("BaseSidecar"), "bob")
	bob.await(1, "+ ann")
	if _, ok := ann.lines.find(1, func(l string) bool { return l == "+ bob" }); !ok {
		t.Error("ann does not see bob")
	}
}

// freeAddress returns a loopback address without a listener.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// TestRefused: wrong credentials at the start end a sidecar with status 1, ours like the original.
func TestRefused(t *testing.T) {
	server, err := signaling.New(signaling.Config{
		Secret: "a secret of the tests, which is long enough", Keys: map[string]signaling.Key{"the key of ann in tests": {PeerID: "ann", Role: "agent"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		_ = server.Close()
		web.Close()
	})
	st := &stage{web: web}
	for name, command := range map[string]func(*testing.T) *exec.Cmd{"ours": sidecarCommand, "base": baseSidecarCommand} {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, command(t), st.environ("wrong"))
			_ = p.wait()
			if code := p.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit status %d\n%s", code, p.stderr)
			}
		})
	}
}

// TestTerminated: SIGTERM ends a sidecar that has peers and an agent, and the agent sees the end.
func TestTerminated(t *testing.T) {
	st := newStage(t)
	sidecar := startProcess(t, sidecarCommand(t), st.environ("ann"))
	ann := newBaseAgent(t, sidecar)
	bob := st.enter(t, kindNamed("InProcess"), "bob")
	bob.await(1, "+ ann")
	ann.end()
	if err := sidecar.terminate(); err != nil {
		t.Errorf("%v\n%s", err, sidecar.stderr)
	}
	<-ann.done
	_ = ann.conn.Close()
	bob.await(1, "- ann")
}
