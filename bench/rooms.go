package main

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/chatixia-ai/mesh/signaling"
)

// Rooms are signaling servers behind one port. Agents in different rooms know
// nothing of each other.
type rooms struct {
	http    http.Server
	servers []*signaling.Server
	addr    string
}

func openRooms(n int) (*rooms, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &rooms{addr: listener.Addr().String()}
	mux := http.NewServeMux()
	for i := range n {
		server, err := signaling.New(signaling.Config{Dev: true})
		if err != nil {
			_ = listener.Close()
			return nil, err
		}
		r.servers = append(r.servers, server)
		mux.Handle(fmt.Sprintf("/%d/", i), http.StripPrefix(fmt.Sprintf("/%d", i), server))
	}
	r.http.Handler = mux
	r.http.ReadHeaderTimeout = time.Minute
	go func() { _ = r.http.Serve(listener) }() // ends with close
	return r, nil
}

func (r *rooms) url(i int) string { return fmt.Sprintf("ws://%s/%d/ws", r.addr, i) }

func (r *rooms) close() {
	_ = r.http.Close()
	for _, s := range r.servers {
		_ = s.Close()
	}
}
