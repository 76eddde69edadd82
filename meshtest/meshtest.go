//go:build !js

// Package meshtest links agents in memory, for the tests of programs that use package mesh: no socket, no signaling server, no
// WebRTC, and what an agent notices of a link is the same. It works in a bubble of testing/synctest, where a test of timeouts takes
// no time.
//
//	net := meshtest.New(t, "alice", "bob")
//	alice, bob := net.Mesh("alice"), net.Mesh("bob")
package meshtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/rtc"
)

// patience bounds what New and Join wait for.
const patience = 30 * time.Second

// A Network is where the agents of a test meet. Its methods may be called from any goroutine.
type Network struct {
	t    testing.TB
	room *rtc.Room

	mu     sync.Mutex
	meshes map[string]*mesh.Mesh
	ever   map[string]bool // ids that have joined
}

// New returns agents of these ids, each linked to every other. They end with the test.
func New(t testing.TB, ids ...string) *Network {
	t.Helper()
	n := &Network{t: t, room: rtc.NewRoom(), meshes: make(map[string]*mesh.Mesh), ever: make(map[string]bool)}
	t.Cleanup(n.close)
	for _, id := range ids {
		n.Join(id, mesh.Config{})
	}
	return n
}

// Join starts an agent of a configuration, and returns it once it is linked to all others. Config.APIKey and
// Config.SignalingURL are set to what they have to be, and the sidecar runs in the process. An agent that has the id already is replaced,
// as by a second instance. The test fails if the configuration cannot be used.
func (n *Network) Join(id string, cfg mesh.Config) *mesh.Mesh {
	n.t.Helper()
	if id == "" {
		n.t.Fatal("meshtest: the id is empty")
	}
	cfg.Mode, cfg.APIKey, cfg.SignalingURL, cfg.WaitSignaling = mesh.InProcess, id, n.room.URL(), true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := mesh.New(ctx, cfg)
	if err != nil {
		n.t.Fatalf("meshtest: %s: %v", id, err)
	}
	n.mu.Lock()
	before := n.meshes[id]
	n.meshes[id], n.ever[id] = m, true
	var others []string
	for other := range n.meshes {
		if other != id && n.room.Linkable(id, other) {
			others = append(others, other)
		}
	}
	n.mu.Unlock()
	if before != nil {
		select {
		case <-before.Done(): // it has been replaced
		case <-ctx.Done():
		}
		_ = before.Close()
	}
	for _, other := range others {
		if err := m.WaitPeer(ctx, other); err != nil {
			n.t.Fatalf("meshtest: %s: %v", id, err)
		}
		if err := n.Mesh(other).WaitPeer(ctx, id); err != nil {
			n.t.Fatalf("meshtest: %s: %v", other, err)
		}
	}
	return m
}

// Mesh returns the agent of an id. The test fails if there is none.
func (n *Network) Mesh(id string) *mesh.Mesh {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.meshes[id]
	if m == nil {
		n.t.Fatalf("meshtest: there is no agent %s", id)
	}
	return m
}

// Cut cuts the path between two agents: nothing passes until Heal. Their link lasts for Config.Network.RecoveryTimeout, the shorter
// one of the two; then the peers are reported gone. The test fails if one of them has never been there.
func (n *Network) Cut(a, b string) {
	n.t.Helper()
	n.checkPair(a, b)
	n.room.Cut(a, b)
}

// Heal ends a Cut. What was sent meanwhile arrives; if the link was given up, there is a new one.
func (n *Network) Heal(a, b string) {
	n.t.Helper()
	n.checkPair(a, b)
	n.room.Heal(a, b)
}

func (n *Network) checkPair(a, b string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range []string{a, b} {
		if !n.ever[id] {
			n.t.Fatalf("meshtest: there is no agent %q", id)
		}
	}
	if a == b {
		n.t.Fatalf("meshtest: there is no path from %q to itself", a)
	}
}

// Delay has everything take so long from one agent to another, from now on.
func (n *Network) Delay(d time.Duration) { n.room.SetDelay(d) }

// Kill ends an agent as SIGKILL ends its process: it says nothing, and its peers are told some seconds later. Its mesh is closed.
func (n *Network) Kill(id string) {
	m := n.Mesh(id)
	n.mu.Lock()
	delete(n.meshes, id)
	n.mu.Unlock()
	n.room.Kill(id)
	_ = m.Close() // what it could not send is lost, as it is to be
}

// close ends all agents.
func (n *Network) close() {
	n.mu.Lock()
	meshes := n.meshes
	n.meshes = nil
	n.mu.Unlock()
	var all sync.WaitGroup
	for id, m := range meshes {
		all.Go(func() {
			if err := m.Close(); err != nil && n.t.Failed() {
				n.t.Logf("meshtest: %s: %v", id, err)
			}
			<-m.Done()
		})
	}
	all.Wait()
	n.room.Close()
}
