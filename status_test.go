package mesh

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Of two agents with one key the one started later stays. The other one ends, says why, and does not come back.
func TestReplaced(t *testing.T) {
	for _, mode := range modesHere()[:min(2, len(modesHere()))] {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStage(t, "")
			bob := s.start(t, InProcess, "bob")
			var log testutil.LogBuffer
			var states testutil.Record[SignalingStatus]
			first, err := New(bounded(t), Config{
				Mode: mode, SignalingURL: s.url, APIKey: "alice", WaitSignaling: true,
				Logger: zerolog.New(&log), OnSignaling: states.Add,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := first.WaitPeer(bounded(t), "bob"); err != nil {
				t.Fatal(err)
			}
			h, working, _ := blocker()
			bob.on(t, "never_request", h)
			waiting := ask(bounded(t), first, "bob", Message{Type: "never_request"})
			testutil.Take(t, "bob's handler", working)
			second := s.start(t, InProcess, "alice")
			testutil.Take(t, "the end of the one replaced", first.Done())
			if err := first.Err(); !errors.Is(err, ErrReplaced) {
				t.Errorf("Err: %v", err)
			}
			if st := first.Signaling(); st.State != SignalingReplaced || !errors.Is(st.Err, ErrReplaced) || st.PeerID != "alice" {
				t.Errorf("the last state is %+v", st)
			}
			if all := states.All(); len(all) == 0 || all[len(all)-1].State != SignalingReplaced {
				t.Errorf("OnSignaling was told %+v", all)
			}
			if got := testutil.Take(t, "the pending request", waiting); got.err == nil {
				t.Error("a pending request has a response")
			}
			if err := first.Send(bounded(t), "bob", Message{Type: "x"}); !errors.Is(err, ErrReplaced) {
				t.Errorf("Send: %v", err)
			}
			if err := first.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if log.Count(`"level":"warn"`) == 0 {
				t.Errorf("there is no warning in the log:\n%s", &log)
			}
			if err := second.WaitPeer(bounded(t), "bob"); err != nil {
				t.Error(err)
			}
			works(t, second, bob)
			if st := second.Signaling(); st.State != SignalingConnected {
				t.Errorf("the one that stays: %+v", st)
			}
		})
	}
}

// What no retry can mend ends the wait for signaling at once, and the error names the URL and what was expected.
func TestMisconfigured(t *testing.T) {
	mux := http.NewServeMux() // some other web server
	mux.HandleFunc("/moved/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/html/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	host := strings.TrimPrefix(plain.URL, "http://")
	tlsHost := strings.TrimPrefix(secure.URL, "https://")
	for name, tc := range map[string]struct {
		url  string
		says []string
	}{
		"404":         {"ws://" + host + "/ws", []string{"http://" + host + "/api/token", "404"}},
		"redirect":    {"ws://" + host + "/moved/ws", []string{"/moved/api/token", "/elsewhere"}},
		"a web page":  {"ws://" + host + "/html/ws", []string{"/html/api/token"}},
		"certificate": {"wss://" + tlsHost + "/ws", []string{"https://" + tlsHost + "/api/token", "certificate"}},
		"no TLS":      {"wss://" + host + "/ws", []string{"https://" + host + "/api/token"}},
		"TLS":         {"ws://" + tlsHost + "/ws", []string{"http://" + tlsHost + "/api/token"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(bounded(t), Config{SignalingURL: tc.url, APIKey: "alice", WaitSignaling: true})
			if !errors.Is(err, ErrMisconfigured) || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
			for _, text := range tc.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v does not say %q", err, text)
				}
			}
			if strings.Count(err.Error(), "mesh: ") != 1 {
				t.Errorf("%v does not name the package once", err)
			}
		})
	}
}

// A URL that cannot be right is refused before anything is tried, with the one that may have been meant.
func TestURLs(t *testing.T) {
	for url, says := range map[string]string{
		"localhost:8080/ws":        `did you mean "ws://localhost:8080/ws"`,
		"example.org/ws":           `did you mean "ws://example.org/ws"`,
		"http://localhost:8080/ws": "ws://",
		"ws://":                    "host",
		"ws:///ws":                 "host",
	} {
		_, err := New(t.Context(), Config{SignalingURL: url, APIKey: "alice"})
		var field *ConfigError
		if !errors.As(err, &field) || field.Field != "SignalingURL" || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v does not say %q", url, err, says)
		}
	}
}

// At any level of the log a healthy mesh writes a few lines per peer, none per message, and no secrets.
func TestQuietLog(t *testing.T) {
	s := newStage(t, "")
	var log testutil.LogBuffer
	join := func(id string) *Mesh {
		m, err := New(bounded(t), Config{
			SignalingURL: s.url, APIKey: id, WaitSignaling: true, Logger: zerolog.New(&log),
			Network:  Network{NoLocal: true}, // whose moves are logged when they are done
			Handlers: map[string]Handler{"echo_request": echo},
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ids := []string{"alice", "bob", "carol"}
	all := make([]*Mesh, len(ids))
	for i, id := range ids {
		all[i] = join(id)
	}
	for i, m := range all {
		for j, id := range ids {
			if i == j {
				continue
			}
			if err := m.WaitPeer(bounded(t), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	linked := log.Count("\n")
	for _, m := range all {
		for range 100 {
			for _, p := range m.Peers() {
				if _, err := m.Request(bounded(t), p.ID, Message{Type: "echo_request"}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if n := log.Count("\n") - linked; n > 0 {
		t.Errorf("600 requests wrote %d lines", n)
	}
	for _, m := range all {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d lines", log.Count("\n"))
	if n := log.Count("\n"); n > 120 { // six ends of links
		t.Errorf("%d lines at level trace:\n%s", n, &log)
	}
	if info := log.Count(`"level":"info"`) + log.Count(`"level":"warn"`); info > 40 {
		t.Errorf("%d lines at level info:\n%s", info, &log)
	}
	for _, secret := range []string{"ice-pwd", "password", "fingerprint"} {
		if log.Count(secret) > 0 {
			t.Errorf("the log has a %s", secret)
		}
	}
}

// Attach under a short context says what is missing, as it does after 5 s.
func TestAttachShortContext(t *testing.T) {
	if len(modesHere()) == 1 {
		t.Skip("this system has no sidecars to attach to")
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := New(ctx, Config{Mode: Attach, Socket: "/tmp/no-such-dir/s", APIKey: "alice"})
		var start *StartError
		if !errors.As(err, &start) || start.Path != "/tmp/no-such-dir/s" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for _, text := range []string{"no sidecar listens there", "IPC_SOCKET=/tmp/no-such-dir/s"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%v does not say %q", err, text)
			}
		}
	})
}
