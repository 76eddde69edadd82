//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
	"github.com/chatixia-ai/mesh/signaling"
)

// A server is a signaling server that can be taken down and brought up again at the same address.
type server struct {
	r    *run
	addr string
	cfg  signaling.Config
	sig  *signaling.Server // nil while it is down
	http *http.Server
	work sync.WaitGroup
}

// serve starts a signaling server. It ends with the row.
func (r *run) serve() *server { return r.serveAt("127.0.0.1:0", signaling.Config{Dev: true}) }

// serveAt starts one at an address.
func (r *run) serveAt(addr string, cfg signaling.Config) *server {
	s := &server{r: r, addr: addr, cfg: cfg}
	s.up()
	r.later(s.down)
	return s
}

func (s *server) url() string { return "ws://" + s.addr + "/ws" }

func (s *server) up() {
	listener, err := net.Listen("tcp", s.addr)
	s.r.stop("signaling server", err)
	s.addr = listener.Addr().String()
	s.sig, err = signaling.New(s.cfg)
	s.r.stop("signaling server", err)
	s.http = &http.Server{Handler: s.sig, ReadHeaderTimeout: time.Minute}
	s.work.Go(func() { _ = s.http.Serve(listener) })
}

// down ends it with all its connections.
func (s *server) down() {
	if s.sig == nil {
		return
	}
	_ = s.http.Close()
	_ = s.sig.Close()
	s.sig = nil
	s.work.Wait()
}

// near and far are the agents at the ends of a path.
const near, far = "near", "far"

// publicAddr is that of the servers of agents on hosts of their own. They are where this process is: it is the rest of the internet.
const publicAddr = "192.0.2.1"

// goPublic gives this host, which has to be a namespace, that address.
func goPublic() error { return command("ip", "address", "add", publicAddr+"/32", "dev", "lo") }

// servePublic starts a signaling server there, which is not for development: near and far have keys.
func (r *run) servePublic(ice ...signaling.ICEServer) *server {
	return r.serveAt(publicAddr+":0", signaling.Config{
		Secret:     strings.Repeat("s", signaling.MinSecret),
		Keys:       map[string]signaling.Key{keyOf(near): {PeerID: near, Role: "agent"}, keyOf(far): {PeerID: far, Role: "agent"}},
		ICEServers: ice,
	})
}

// keyOf is the API key of near or far there.
func keyOf(id string) string { return strings.Repeat(id, signaling.MinKey) }

// room opens a path, and a room in front of a signaling server that leads near and far to each other over it.
func (r *run) room(c netpath.Conditions) (path *netpath.Path, s *server, room *netpath.Room) {
	path, err := netpath.New(c, r.seed)
	r.stop("path", err)
	r.later(func() { _ = path.Close() })
	s = r.serve()
	room, err = netpath.NewRoom(path, s.url(), [2]string{near, far})
	r.stop("room", err)
	r.later(func() {
		s.down()
		room.Close()
	})
	return path, s, room
}

// pair starts two agents that reach each other only over a path.
func (r *run) pair(c netpath.Conditions, edit ...func(*mesh.Config)) (path *netpath.Path, s *server, a, b *agent) {
	path, s, room := r.room(c)
	a, b = r.between(room, edit...)
	return path, s, a, b
}

// between starts the two agents of a room.
func (r *run) between(room *netpath.Room, edit ...func(*mesh.Config)) (a, b *agent) {
	edit = append(edit, func(cfg *mesh.Config) { cfg.Network.Addresses = netpath.Addresses })
	a, b = r.start(room.URL(), near, edit...), r.start(room.URL(), far, edit...)
	r.linked(a, b)
	return a, b
}

// warmUp has everything done once that leaves something behind in a process for good, such as the runtime's descriptors.
func warmUp(ctx context.Context, o options) error {
	r := &run{options: o, ctx: ctx}
	body := func(r *run) {
		s := r.serve()
		r.linked(r.start(s.url(), near, inMode(mesh.SelfExec)), r.start(s.url(), far))
	}
	r.do(body)
	r.whole(body)
	return errors.Join(r.failed...)
}
