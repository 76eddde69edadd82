//go:build linux || darwin

package mesh_test

import (
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

// The sidecar that is started after a lost one is told of the listeners.
func TestListenerOutlastsSidecar(t *testing.T) {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	web := httptest.NewServer(server)
	defer web.Close()
	url := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bobGone := make(chan struct{}, 9)
	alice, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "alice", WaitSignaling: true, OnPeer: func(e mesh.PeerEvent) {
		if !e.Connected {
			bobGone <- struct{}{}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	bob, err := mesh.New(ctx, mesh.Config{Mode: mesh.SelfExec, SignalingURL: url, APIKey: "bob", WaitSignaling: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Close()
	l, err := bob.Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() {
		t.Helper()
		if err := alice.WaitPeer(ctx, "bob"); err != nil {
			t.Fatal(err)
		}
		c, err := alice.Dial(ctx, "bob", "x")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	dial()
	sidecar, err := os.FindProcess(bob.SidecarPID())
	if err != nil {
		t.Fatal(err)
	}
	if err := sidecar.Kill(); err != nil {
		t.Fatal(err)
	}
	<-bobGone
	if err := bob.WaitPeer(ctx, "alice"); err != nil {
		t.Fatal(err)
	}
	dial()
}
