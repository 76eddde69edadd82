//go:build linux || darwin

package interop

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/signaling"
)

// root is the repository, seen from this package.
var root = filepath.Join("..", "..")

// A stage holds what the parties of one test share: the signaling server, and the page for browsers.
type stage struct {
	web    *httptest.Server
	server *signaling.Server

	mu         sync.Mutex
	registered map[string]int // how often, by peer id
	more       chan struct{}
}

func newStage(t *testing.T) *stage {
	t.Helper()
	st := &stage{registered: make(map[string]int), more: make(chan struct{})}
	st.serve(t)
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(filepath.Join(root, "examples", "browser"))))
	for _, path := range []string{"/api/", "/ws"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { st.now().ServeHTTP(w, r) })
	}
	st.web = httptest.NewServer(mux)
	t.Cleanup(func() {
		_ = st.now().Close()
		st.web.Close()
	})
	return st
}

// serve starts a signaling server in place of the old one, if there was one.
func (st *stage) serve(t *testing.T) {
	t.Helper()
	next, err := signaling.New(signaling.Config{Dev: true, Logger: zerolog.New(st)})
	if err != nil {
		t.Fatal(err)
	}
	st.mu.Lock()
	old := st.server
	st.server = next
	st.mu.Unlock()
	if old != nil {
		if err := old.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (st *stage) now() *signaling.Server {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.server
}

// Write reads the log of the signaling server, which names the peers that register.
func (st *stage) Write(line []byte) (int, error) {
	var l struct {
		Message string
		PeerID  string `json:"peer_id"`
	}
	if err := json.Unmarshal(line, &l); err == nil && l.Message == "peer registered" {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.registered[l.PeerID]++
		close(st.more)
		st.more = make(chan struct{})
	}
	return len(line), nil
}

func (st *stage) registrations(id string) int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.registered[id]
}

// awaitRegistration blocks until a peer has registered n times.
func (st *stage) awaitRegistration(t *testing.T, id string, n int) {
	t.Helper()
	late := time.After(patience)
	for {
		st.mu.Lock()
		now, more := st.registered[id], st.more
		st.mu.Unlock()
		if now >= n {
			return
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%s did not register with the signaling server within %s", id, patience)
		}
	}
}

func (st *stage) signalingURL() string { return "ws" + strings.TrimPrefix(st.web.URL, "http") + "/ws" }
func (st *stage) tokenURL() string     { return st.web.URL + "/api/token" }

// environ returns the environment of a sidecar process: that of the tests and its settings.
func (st *stage) environ(id string) []string {
	return append(os.Environ(), "SIGNALING_URL="+st.signalingURL(), "TOKEN_URL="+st.tokenURL(), "API_KEY="+id)
}

// sidecarBinary builds the sidecar command, once.
var sidecarBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv("TMPDIR"), "chatixia-sidecar") // removed by TestMain
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, filepath.Join(root, "cmd", "chatixia-sidecar")).CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: "go build: " + string(out), Err: err}
	}
	return path, nil
})

// theSidecar returns the path of the sidecar command.
func theSidecar(t *testing.T) string {
	t.Helper()
	path, err := sidecarBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
