package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// ends are the API keys, and so the peer ids, of the two agents at the ends of a path.
var wanEnds = [2]string{"near", farID}

// A wanRoom is a signaling server that leads two agents to each other over a path: of the candidates of each it passes on
// the one on the loopback interface, with the path's address for it.
type wanRoom struct {
	rooms *rooms
	path  *netpath.Path
	http  http.Server
	addr  string
	work  sync.WaitGroup
}

func openWANRoom(path *netpath.Path) (_ *wanRoom, err error) {
	w := &wanRoom{path: path}
	if w.rooms, err = openRooms(1); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.rooms.close()
		return nil, err
	}
	w.addr = listener.Addr().String()
	inner := &url.URL{Scheme: "http", Host: w.rooms.addr, Path: "/0"}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(inner) }}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/ws", w.serve)
	w.http.Handler = mux
	w.work.Go(func() { _ = w.http.Serve(listener) })
	return w, nil
}

func (w *wanRoom) url() string { return "ws://" + w.addr + "/ws" }

// overPathOnly are the addresses from which the path leads anywhere. ICE does without those that would only be in its way.
var overPathOnly = mesh.Network{Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}

func (w *wanRoom) close() {
	_ = w.http.Close()
	w.rooms.close()
	w.work.Wait()
}

// serve passes on what an agent and the server say to each other, until one of them ends.
func (w *wanRoom) serve(rw http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-API-Key", "Mesh-Register"} {
		if value := r.Header.Get(name); value != "" {
			header.Set(name, value)
		}
	}
	target := w.rooms.url(0) + "?" + r.URL.RawQuery
	server, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = server.CloseNow() }()
	if welcome := resp.Header.Get("Mesh-Welcome"); welcome != "" {
		rw.Header().Set("Mesh-Welcome", welcome)
	}
	agent, err := websocket.Accept(rw, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = agent.CloseNow() }()
	w.work.Go(func() {
		defer cancel()
		pump(ctx, server, agent, func(b []byte) []byte { return b })
	})
	pump(ctx, agent, server, w.lead)
}

// pump passes on messages from one connection to the other, but for those of which change makes nothing.
func pump(ctx context.Context, from, to *websocket.Conn, change func([]byte) []byte) {
	from.SetReadLimit(4 << 20)
	for {
		typ, b, err := from.Read(ctx)
		if err != nil {
			return
		}
		if b = change(b); b == nil {
			continue
		}
		if err := to.Write(ctx, typ, b); err != nil {
			return
		}
	}
}

// lead returns a message of an agent with its candidate as the other one is to see it; nil if it is not to be seen.
func (w *wanRoom) lead(raw []byte) []byte {
	var m signal.Message
	var c signal.ICECandidate
	if json.Unmarshal(raw, &m) != nil || m.Type != signal.Candidate || json.Unmarshal(m.Payload, &c) != nil {
		return raw
	}
	end := 0
	if m.PeerID == wanEnds[1] {
		end = 1
	}
	text, ok := overPath(w.path, end, c.Candidate)
	if !ok {
		return nil
	}
	c.Candidate = text
	m.Payload, _ = json.Marshal(c)
	changed, _ := json.Marshal(m)
	return changed
}

// overPath tells the path where an end is, and returns the candidate as the other end is to see it. ok is false for one
// that does not lead over the path: only that of the loopback interface does.
func overPath(path *netpath.Path, end int, candidate string) (text string, ok bool) {
	f := strings.Fields(candidate) // RFC 8839, 5.1: foundation, component, transport, priority, address, port, ...
	if len(f) < 8 {
		return candidate, true // the end of candidates
	}
	addr, err := netip.ParseAddr(f[4])
	port, portErr := strconv.ParseUint(f[5], 10, 16)
	if err != nil || portErr != nil || !addr.IsLoopback() || !addr.Is4() {
		return "", false
	}
	path.Join(end, netip.AddrPortFrom(addr, uint16(port)))
	shown := path.Addr(end)
	f[4], f[5] = shown.Addr().String(), strconv.Itoa(int(shown.Port()))
	return strings.Join(f, " "), true
}
