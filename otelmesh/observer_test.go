package otelmesh_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/otelmesh"
)

func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.net.Join("alice", mesh.Config{Observer: otelmesh.Observer(s.options("alice")...)})
		s.net.Join("bob", mesh.Config{})
		s.net.Join("carol", mesh.Config{})
		s.want(map[string]float64{"mesh.links.begun{}": 2})
		if err := s.net.Mesh("bob").Send(t.Context(), "alice", mesh.Message{Type: "x_response", RequestID: "1"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.want(map[string]float64{"mesh.messages.dropped{drop.reason=unexpected_response}": 1})
		s.net.Kill("bob")
		time.Sleep(time.Minute)
		s.want(map[string]float64{"mesh.links.begun{}": 2, "mesh.links.ended{error.type=peer_gone}": 1})
	})
}

// What cannot be brought about in memory.
func TestObserverFunctions(t *testing.T) {
	s := newStage(t)
	o := otelmesh.Observer(s.options("alice")...)
	o.PathChanged(mesh.Peer{ID: "bob"}, mesh.PathRelayed, netip.AddrPort{}, netip.AddrPort{})
	o.PathChanged(mesh.Peer{ID: "bob"}, mesh.PathDirect, netip.AddrPort{}, netip.AddrPort{})
	o.PathChanged(mesh.Peer{ID: "carol"}, mesh.PathDirect, netip.AddrPort{}, netip.AddrPort{})
	o.Restarted(fmt.Errorf("%w: 15 s", mesh.ErrSidecarHung))
	o.Restarted(errors.New("exit status 2"))
	s.want(map[string]float64{
		"mesh.path.changes{mesh.path=relayed}": 1, "mesh.path.changes{mesh.path=direct}": 2,
		"mesh.sidecar.restarts{error.type=sidecar_hung}": 1, "mesh.sidecar.restarts{error.type=_OTHER}": 1,
	})
}
