package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/sidecar"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

// bounded returns a context of the test that ends in any case, though not before a
// request times out, so that one which waits for its timeout shows.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience)
	t.Cleanup(cancel)
	return ctx
}

// modesHere are the modes that this system has.
func modesHere() []Mode {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		return []Mode{InProcess}
	}
	return []Mode{InProcess, SelfExec, Binary, Attach}
}

// buildSidecar builds the sidecar command for Binary and Attach, once: it is what users
// run, so a test binary in its role would prove less. It never builds with -race:
// that would take as long as the rest of the suite, and the same code runs with -race
// in the other two modes.
func buildSidecar(t *testing.T) string {
	t.Helper()
	path, err := builtSidecar()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtSidecar = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, "chatixia-sidecar")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/chatixia-sidecar").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the sidecar: %w\n%s", err, out)
	}
	return path, nil
})

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// A stage is where agents meet: one signaling server, and one directory for
// whatever they put into the file system. When its test ends, nothing of what
// was started on it may be left.
type stage struct {
	url     string // of the signaling server
	dir     string
	sidecar string // the executable
	noLocal bool   // links go over the network
}

func newStage(t *testing.T, sidecar string) *stage {
	before := goleak.IgnoreCurrent()
	dir, err := os.MkdirTemp("", "s") // a short one: socket paths are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
		for _, left := range leftovers(dir) {
			t.Error("left behind:", left)
		}
		_ = os.RemoveAll(dir)
		goleak.VerifyNone(t, before)
	})
	return &stage{url: "ws" + strings.TrimPrefix(web.URL, "http") + "/ws", dir: dir, sidecar: sidecar}
}

// An agent is a mesh under test, with its events, reports and log.
type agent struct {
	*Mesh
	id      string
	events  testutil.Record[PeerEvent]
	reports testutil.Record[error] // for OnError
	log     testutil.LogBuffer
	sever   func(t *testing.T) // takes its sidecar away, by force
	own     *ownSidecar        // of mode Attach
	ended   sync.Once
}

// start starts an agent of any mode, and ends it when the test does.
func (s *stage) start(t *testing.T, mode Mode, id string) *agent {
	t.Helper()
	return s.startAs(t, mode, id, Identity{})
}

// startAs is start for an agent with an identity, after edits of its configuration.
func (s *stage) startAs(t *testing.T, mode Mode, id string, who Identity, edits ...func(*Config)) *agent {
	t.Helper()
	a := &agent{id: id}
	cfg := Config{
		Mode: mode, SignalingURL: s.url, APIKey: id, WaitSignaling: true, Identity: who,
		OnPeer: a.events.Add, OnError: a.reports.Add, Network: Network{NoLocal: s.noLocal},
		Logger: zerolog.New(&a.log).Level(zerolog.InfoLevel).With().Timestamp().Logger(),
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	start := launch
	switch mode {
	case InProcess:
		var current atomic.Pointer[launched]
		start = func(ctx context.Context, cfg *Config, set sidecar.Settings) (*launched, error) {
			side, err := launch(ctx, cfg, set)
			current.Store(side)
			return side, err
		}
		a.sever = func(t *testing.T) {
			current.Load().link.Close()
		}
	case SelfExec, Binary:
		cfg.Binary = s.sidecar
		a.sever = func(t *testing.T) { kill(t, a.SidecarPID()) }
	case Attach:
		a.own = s.startSidecar(t, id, who)
		cfg.Socket = a.own.socket
		a.sever = func(t *testing.T) {
			a.own.kill()
			a.own.run(t)
		}
	}
	m, err := newMesh(bounded(t), cfg, start)
	if err != nil {
		if a.own != nil {
			a.own.kill()
		}
		t.Fatalf("starting %s: %v\n%s", id, err, a.logs())
	}
	a.Mesh = m
	t.Cleanup(func() {
		a.end(t)
		if t.Failed() {
			logs := a.logs()
			t.Logf("the log of %s (%v):\n%s", id, mode, logs[max(0, len(logs)-16<<10):])
		}
	})
	return a
}

func kill(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatalf("killing the sidecar, process %d: %v", pid, err)
	}
}

// end closes the agent and checks that it is gone.
func (a *agent) end(t *testing.T) {
	a.ended.Do(func() {
		if err := a.Close(); err != nil {
			t.Errorf("closing %s: %v", a.id, err)
		}
		testutil.Take(t, "the end of its handlers", a.Done())
		if err := a.Err(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s ended with %v", a.id, err)
		}
		if a.own != nil {
			a.own.end(t)
		}
		// What a sidecar process says when it goes wrong is only logged.
		for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(a.logs(), bad) {
				t.Errorf("%s or its sidecar: %s", a.id, bad)
			}
		}
	})
}

func (a *agent) logs() string {
	if a.own != nil {
		return a.log.String() + "its sidecar:\n" + a.own.log.String()
	}
	return a.log.String()
}

// eventsOf returns the agent's events of one peer, beginning with the event of
// number from.
func (a *agent) eventsOf(peer string, from int) []PeerEvent {
	return slices.DeleteFunc(a.events.All()[from:], func(e PeerEvent) bool { return e.Peer.ID != peer })
}

// waitEvents blocks until the agent has had n events of a peer, and returns them.
func (a *agent) waitEvents(t *testing.T, peer string, from, n int) []PeerEvent {
	t.Helper()
	a.events.Wait(t, fmt.Sprintf("%s has %d events of %s", a.id, n, peer), func([]PeerEvent) bool {
		return len(a.eventsOf(peer, from)) >= n
	})
	return a.eventsOf(peer, from)
}

// An ownSidecar is a sidecar that the test runs, as a supervisor would, for an
// agent of mode Attach.
type ownSidecar struct {
	stage  *stage
	id     string
	who    Identity
	socket string
	log    testutil.LogBuffer

	cmd  *exec.Cmd
	done chan error // its exit
}

func (s *stage) startSidecar(t *testing.T, id string, who Identity) *ownSidecar {
	dir, err := os.MkdirTemp(s.dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	o := &ownSidecar{stage: s, id: id, who: who, socket: filepath.Join(dir, "s")}
	o.run(t)
	return o
}

// run starts the process. It need not be ready: the agent waits for that.
func (o *ownSidecar) run(t *testing.T) {
	t.Helper()
	o.cmd = exec.Command(o.stage.sidecar, "-no-stun", "-log-format", "json")
	o.cmd.Dir = filepath.Dir(o.socket) // where no .env is
	o.cmd.Env = append(os.Environ(), "SIGNALING_URL="+o.stage.url, "TOKEN_URL=", "API_KEY="+o.id, "IPC_SOCKET="+o.socket,
		"MESH_NO_LOCAL="+strconv.FormatBool(o.stage.noLocal), "MESH_IDENTITY_KEY="+o.who.KeyFile, "MESH_NAME="+o.who.MeshName, "MESH_IDENTITY_POLICY="+string(o.who.Policy),
		"MESH_IDENTITY_REQUIRED="+strconv.FormatBool(o.who.Required), "MESH_KNOWN_PEERS="+o.who.KnownPeersFile,
		"MESH_ROOTS="+strings.Join(o.who.Roots, ","), "MESH_MEMBERSHIP="+o.who.MembershipFile, "MESH_REVOKED="+o.who.RevokedFile)
	o.cmd.Stderr = &o.log
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	o.done = done
	cmd := o.cmd
	go func() { done <- cmd.Wait() }()
}

// kill ends the process without any chance to clean up.
func (o *ownSidecar) kill() {
	_ = o.cmd.Process.Kill() // fails only if it has ended
	<-o.done
}

// end checks that the sidecar ends by itself, its agent being gone, and leaves
// no socket.
func (o *ownSidecar) end(t *testing.T) {
	select {
	case err := <-o.done:
		if err != nil {
			t.Errorf("%s's sidecar: %v", o.id, err)
		}
	case <-time.After(testutil.Patience):
		t.Errorf("%s's sidecar outlives it", o.id)
		o.kill()
	}
	if err := os.Remove(filepath.Dir(o.socket)); err != nil {
		t.Error(err)
	}
}
