//go:build !js

package netpath

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// Addresses are the only ones from which a Path leads anywhere. ICE does without those that would only be in its way.
var Addresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

// A Room stands in front of a signaling server and leads two agents to each other over a path: of the candidates of each it
// passes on the one on the loopback interface, with the path's address for it.
type Room struct {
	path   *Path
	ends   [2]string
	server string // the WebSocket of the server
	http   http.Server
	addr   string
	work   sync.WaitGroup
}

// NewRoom opens a room in front of the server with the given WebSocket, ws://host:port/.../ws. The ends of the path are the peers with
// the ids ends.
func NewRoom(path *Path, server string, ends [2]string) (*Room, error) {
	inner, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Room{path: path, ends: ends, server: server, addr: listener.Addr().String()}
	rest := &url.URL{Scheme: "http", Host: inner.Host, Path: strings.TrimSuffix(inner.Path, "/ws")}
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(rest) },
		ErrorLog: log.New(io.Discard, "", 0), // that the server is down is no news
	})
	mux.HandleFunc("/ws", r.serve)
	r.http.Handler = mux
	r.work.Go(func() { _ = r.http.Serve(listener) })
	return r, nil
}

// Addr returns the address and port at which the room is.
func (r *Room) Addr() string { return r.addr }

// URL returns the WebSocket of the room, for agents.
func (r *Room) URL() string { return "ws://" + r.addr + "/ws" }

// Close ends the room. The connections through it end with those to the server, which is to be closed before.
func (r *Room) Close() {
	_ = r.http.Close()
	r.work.Wait()
}

// serve passes on what an agent and the server say to each other, until one of them ends.
func (r *Room) serve(rw http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-API-Key", "Mesh-Register"} {
		if value := req.Header.Get(name); value != "" {
			header.Set(name, value)
		}
	}
	server, resp, err := websocket.Dial(ctx, r.server+"?"+req.URL.RawQuery, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = server.CloseNow() }()
	if welcome := resp.Header.Get("Mesh-Welcome"); welcome != "" {
		rw.Header().Set("Mesh-Welcome", welcome)
	}
	agent, err := websocket.Accept(rw, req, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = agent.CloseNow() }()
	r.work.Go(func() {
		defer cancel()
		pump(ctx, server, agent, func(b []byte) []byte { return b })
	})
	pump(ctx, agent, server, r.lead)
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

// lead returns a message of an agent with its candidates as the other one is to see them; nil if it is not to be seen.
func (r *Room) lead(raw []byte) []byte {
	var m signal.Message
	if json.Unmarshal(raw, &m) != nil {
		return raw
	}
	end := 0
	if m.PeerID == r.ends[1] {
		end = 1
	}
	var fields map[string]json.RawMessage
	name, change := "candidate", r.path.Candidate
	switch m.Type {
	case signal.Candidate:
	case signal.Offer, signal.Answer:
		name, change = "sdp", r.path.description
	default:
		return raw
	}
	var text string
	if json.Unmarshal(m.Payload, &fields) != nil || json.Unmarshal(fields[name], &text) != nil {
		return raw
	}
	text, ok := change(end, text)
	if !ok {
		return nil
	}
	fields[name], _ = json.Marshal(text)
	m.Payload, _ = json.Marshal(fields)
	changed, _ := json.Marshal(m)
	return changed
}

// description returns an SDP of an end with the candidates in it as the other end is to see them.
func (p *Path) description(end int, sdp string) (changed string, ok bool) {
	var b strings.Builder
	for line := range strings.Lines(sdp) {
		const attribute = "a="
		candidate, found := strings.CutPrefix(strings.TrimRight(line, "\r\n"), attribute+"candidate:")
		if !found {
			b.WriteString(line)
		} else if shown, ok := p.Candidate(end, "candidate:"+candidate); ok {
			b.WriteString(attribute + shown + "\r\n")
		}
	}
	return b.String(), true
}

// Candidate says where an end is, as its ICE candidate has it, and returns the candidate as the other end is to see it. ok is
// false for one that does not lead over the path: only that of the loopback interface does.
func (p *Path) Candidate(end int, candidate string) (text string, ok bool) {
	f := strings.Fields(candidate) // RFC 8839, 5.1: foundation, component, transport, priority, address, port, ...
	if len(f) < 8 {
		return candidate, true // the end of candidates
	}
	addr, err := netip.ParseAddr(f[4])
	port, portErr := strconv.ParseUint(f[5], 10, 16)
	if err != nil || portErr != nil || !addr.IsLoopback() || !addr.Is4() {
		return "", false
	}
	p.Join(end, netip.AddrPortFrom(addr, uint16(port)))
	shown := p.Addr(end)
	f[4], f[5] = shown.Addr().String(), strconv.Itoa(int(shown.Port()))
	return strings.Join(f, " "), true
}
