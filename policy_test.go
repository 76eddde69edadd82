//go:build linux || darwin

package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// An agent does not use a sidecar that demands less of peers than the agent was told to, which can be one that somebody
// else has started, or one that is too old to know identities.
func TestSidecarsPolicy(t *testing.T) {
	k := newKeyring(t)
	for name, tt := range map[string]struct {
		agent, sidecar Identity
		base           bool // the sidecar knows the base protocol only
		has            string
	}{
		"same":              {agent: k.member("alice", "alice"), sidecar: k.member("alice", "alice")},
		"agent without":     {sidecar: k.member("alice", "alice")},
		"neither":           {},
		"neither, and base": {base: true},
		"key only":          {agent: k.bare("alice")},
		"sidecar without":   {agent: k.member("alice", "alice"), sidecar: k.bare("alice"), has: "off"},
		"sidecar of known":  {agent: k.member("alice", "alice"), sidecar: k.known("alice", true), has: "required"},
		"not required":      {agent: k.known("alice", true), sidecar: k.known("alice", false), has: "known"},
		"base":              {agent: k.known("alice", false), base: true, has: "off"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			if tt.base {
				serveBase(t, socket)
			} else {
				serveSidecar(t, Config{SignalingURL: "ws://127.0.0.1:1/ws", Socket: socket, Identity: tt.sidecar})
			}
			var heard testutil.Record[string]
			m, err := New(bounded(t), Config{
				Mode: Attach, SignalingURL: "ws://127.0.0.1:1/ws", Socket: socket, Identity: tt.agent,
				OnPeer: func(e PeerEvent) { heard.Add(e.Peer.ID) },
				Handlers: map[string]Handler{"": func(_ context.Context, msg *Message) (any, error) {
					heard.Add(msg.Type)
					return nil, nil
				}},
			})
			if err == nil {
				if tt.base {
					heard.Wait(t, "the peer", func(all []string) bool { return len(all) >= 4 })
				}
				_ = m.Close()
			}
			if all := heard.All(); (len(all) > 0) != (tt.base && tt.has == "") {
				t.Errorf("heard of the peer: %q", all)
			}
			var bad *ConfigError
			switch {
			case tt.has == "" && err != nil:
				t.Error(err)
			case tt.has != "" && (!errors.As(err, &bad) || bad.Field != "Identity.Policy" || !strings.Contains(err.Error(), "policy "+tt.has)):
				t.Errorf("error is %v", err)
			}
		})
	}
}

// serveSidecar runs ServeSidecar until the test ends.
func serveSidecar(t *testing.T, cfg Config) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ServeSidecar(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := testutil.Take(t, "the end of the sidecar", done); err != nil {
			t.Error(err)
		}
	})
}

// serveBase runs a sidecar that knows no hello, and has a peer before its agent comes.
func serveBase(t *testing.T, socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for _, line := range []string{
			`{"type":"peer_connected","payload":{"peer_id":"mallory"}}`,
			`{"type":"message","payload":{"from_peer":"mallory","message":{"type":"run_request","request_id":"1"}}}`,
			`{"type":"message","payload":{"from_peer":"mallory","message":{"type":"run"}}}`,
			`{"type":"peer_list","payload":{"peers":["mallory"]}}`,
			`{"type":"message","payload":{"from_peer":"mallory","message":{"type":"run"}}}`,
		} {
			fmt.Fprintln(conn, line)
		}
		for b := make([]byte, 4096); err == nil; { // until the agent is gone
			_, err = conn.Read(b)
		}
	}()
}

// A sidecar that takes the place of the right one is not used either: nothing of its peers is heard, and none of them is
// there for Send.
func TestNextSidecarsPolicy(t *testing.T) {
	k := newKeyring(t)
	who := k.member("alice", "alice")
	socket := socketPath(t)
	ctx, stop := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		first <- ServeSidecar(ctx, Config{SignalingURL: "ws://127.0.0.1:1/ws", Socket: socket, Identity: who})
	}()
	reports := make(chan error, 64)
	m := start(t, Config{
		Mode: Attach, SignalingURL: "ws://127.0.0.1:1/ws", Socket: socket, Identity: who,
		OnError: func(err error) { reports <- err },
		OnPeer:  func(e PeerEvent) { t.Errorf("heard of %+v", e) },
		Handlers: map[string]Handler{"": func(_ context.Context, msg *Message) (any, error) {
			t.Errorf("handled %q", msg.Type)
			return nil, nil
		}},
	})
	stop()
	if err := testutil.Take(t, "the end of the first sidecar", first); err != nil {
		t.Error(err)
	}
	serveBase(t, socket)
	for bad := (*ConfigError)(nil); !errors.As(testutil.Take(t, "the report", reports), &bad); {
	}
	if err := m.Send(t.Context(), "mallory", Message{Type: "x"}); !errors.Is(err, ErrSidecarLost) {
		t.Errorf("Send: %v", err)
	}
	if peers := m.Peers(); len(peers) != 0 {
		t.Errorf("peers: %v", peers)
	}
}

// Who starts without the file of known peers, and had one, is open to anyone once more: the log says it.
func TestNoKnownPeersIsLogged(t *testing.T) {
	k := newKeyring(t)
	for _, want := range []int{1, 0} {
		var log testutil.LogBuffer
		m, err := New(bounded(t), Config{SignalingURL: "ws://127.0.0.1:1/ws", Identity: k.known("alice", false), Logger: zerolog.New(&log)})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if got := log.Count("no file of known peers"); got != want {
			t.Errorf("the log says %d times that there was no file, want %d:\n%s", got, want, &log)
		}
	}
}

// A file of known peers that gets lost while the mesh lives, and that the next sidecar makes anew, is in the log as well.
func TestLostKnownPeersAreLogged(t *testing.T) {
	for _, mode := range []Mode{InProcess, SelfExec} {
		t.Run(mode.String(), func(t *testing.T) {
			k := newKeyring(t)
			k.pin("alice", "bob", "bob")
			var log testutil.LogBuffer
			who := k.known("alice", false)
			m, err := New(bounded(t), Config{Mode: mode, SignalingURL: "ws://127.0.0.1:1/ws", Identity: who, Logger: zerolog.New(&log)})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if log.Count("no file of known peers") > 0 {
				t.Errorf("there is a file, and the log says:\n%s", &log)
			}
			if err := os.Remove(who.KnownPeersFile); err != nil {
				t.Fatal(err)
			}
			if mode == SelfExec {
				kill(t, m.SidecarPID())
			} else {
				m.ipc().link.Close()
			}
			log.Wait(t, "no file of known peers")
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if got := log.Count("no file of known peers"); got != 1 {
				t.Errorf("the log says %d times that there was no file:\n%s", got, &log)
			}
		})
	}
}

// What the policy off leaves unused is in the log, and nothing else is.
func TestPolicyOffIsLogged(t *testing.T) {
	k := newKeyring(t)
	for name, tt := range map[string]struct {
		who  func() Identity
		env  string // MESH_IDENTITY_POLICY
		want []string
	}{
		"nothing": {who: func() Identity { return Identity{} }},
		"off":     {who: func() Identity { return Identity{Policy: IdentityOff} }, env: "off"},
		"others verify this one": {who: func() Identity {
			id := k.member("alice", "alice")
			id.Policy, id.Roots = "", nil
			return id
		}},
		"roots":            {who: func() Identity { id := k.member("alice", "alice"); id.Policy = IdentityOff; return id }, want: []string{"Roots"}},
		"roots, by itself": {who: func() Identity { id := k.member("alice", "alice"); id.Policy = ""; return id }, env: "off", want: []string{"Roots"}},
		"known peers":      {who: func() Identity { id := k.known("alice", false); id.Policy = IdentityOff; return id }, want: []string{"KnownPeersFile"}},
		"over the environment": {who: func() Identity { return Identity{Policy: IdentityOff} }, env: "member",
			want: []string{"MESH_IDENTITY_POLICY=member"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("MESH_IDENTITY_POLICY", tt.env)
			var log testutil.LogBuffer
			m, err := New(bounded(t), Config{SignalingURL: "ws://127.0.0.1:1/ws", Identity: tt.who(), Logger: zerolog.New(&log)})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if got := log.Count("the identity policy is off"); got != min(1, len(tt.want)) {
				t.Errorf("%d warnings:\n%s", got, &log)
			}
			for _, want := range tt.want {
				if log.Count(want) != 1 {
					t.Errorf("the log does not say that %s is not used:\n%s", want, &log)
				}
			}
		})
	}
}
