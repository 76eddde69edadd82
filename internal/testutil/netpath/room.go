//go:build !js

package netpath

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// Addresses are the only ones from which a Path leads anywhere. ICE does without those that would only be in its way.
var Addresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

// A Room is a Proxy that leads two agents to each other over a path: of the candidates that one sends the other it passes on
// the one on the loopback interface, with the path's address for it. What others send, or get, passes as it is.
type Room struct {
	*Proxy
	path *Path
	ends [2]string

	mu    sync.Mutex
	watch func(m signal.Message, pass func())
}

// NewRoom opens a room in front of the server with the given WebSocket, ws://host:port/.../ws. The ends of the path are the peers with
// the ids ends.
func NewRoom(path *Path, server string, ends [2]string) (*Room, error) {
	r := &Room{path: path, ends: ends, watch: func(_ signal.Message, pass func()) { pass() }}
	var err error
	r.Proxy, err = NewProxy(server, r.up, nil)
	return r, err
}

// Watch has f called with each message that an agent sends from now on. The server gets it when pass is called, then or
// later. The messages of one agent come one at a time, in order.
func (r *Room) Watch(f func(m signal.Message, pass func())) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch = f
}

// up passes on a message of an agent.
func (r *Room) up(c *Conn, typ websocket.MessageType, raw []byte) {
	var m signal.Message
	if json.Unmarshal(raw, &m) != nil {
		c.ToServer(typ, raw)
		return
	}
	r.mu.Lock()
	watch := r.watch
	r.mu.Unlock()
	watch(m, func() {
		if led := r.lead(m, raw); led != nil {
			c.ToServer(typ, led)
		}
	})
}

// lead returns a message of an agent with its candidates as the other one is to see them; nil if it is not to be seen.
func (r *Room) lead(m signal.Message, raw []byte) []byte {
	end := slices.Index(r.ends[:], m.PeerID)
	if end < 0 || m.TargetID != r.ends[1-end] {
		return raw
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
