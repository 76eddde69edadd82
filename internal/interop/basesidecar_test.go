//go:build linux || darwin

package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// baseMaxRead is the longest data channel message that a base sidecar can read.
const baseMaxRead = 65535

// A baseSidecar is a sidecar that knows no extensions, written from the protocol alone. It behaves like
// chatixia's own: it offers to every peer on each peer_list and answers each offer; it keeps one connection for each
// peer id, which it forgets when any connection to that id ends; it loses candidates that come too early; and it drops
// all peers when its signaling connection ends. It runs as a process of its own, and reports everything that a
// base-only party must never see as a violation on stderr.
type baseSidecar struct {
	id string

	mu       sync.Mutex
	peers    map[string]*webrtc.PeerConnection // the current ones
	channels map[string]*webrtc.DataChannel

	agent chan event // unbounded in the original; larger than any test needs here
}

type event struct {
	Type    string `json:"type"`
	Payload any    `json:"payload"`
}

// baseSidecarMain runs the process.
func baseSidecarMain() error {
	peerID, err := exchangeToken()
	if err != nil {
		return err // refused or unreachable: the original exits with status 1 in both cases
	}
	b := &baseSidecar{
		id: peerID.PeerID, agent: make(chan event, 100_000),
		peers: make(map[string]*webrtc.PeerConnection), channels: make(map[string]*webrtc.DataChannel),
	}
	path := os.Getenv("IPC_SOCKET")
	_ = os.Remove(path)
	l, err := sock.Listen(path) // net.Listen makes the file a moment before it listens, as the original does
	if err != nil {
		return err
	}
	go b.signal()
	conn, err := l.Accept() // one agent
	if err != nil {
		return err
	}
	go b.write(conn)
	return b.read(conn)
}

func violation(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "VIOLATION: "+format+"\n", args...)
}

func warn(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (b *baseSidecar) write(conn net.Conn) {
	for e := range b.agent {
		line, err := json.Marshal(e)
		if err != nil {
			warn("%v", err)
			continue
		}
		if _, err := conn.Write(append(line, '\n')); err != nil {
			return
		}
	}
}

// read handles the agent's commands until the link ends.
func (b *baseSidecar) read(conn net.Conn) error {
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) { // the latter if it left an event unread
			return nil
		}
		if err != nil {
			return err
		}
		typ, payload, err := strictEnvelope(line)
		if err != nil {
			warn("a command could not be read: %v", err)
			continue
		}
		b.handle(typ, payload)
	}
}

func (b *baseSidecar) handle(typ string, payload map[string]json.RawMessage) {
	switch typ {
	case "send", "broadcast":
		m, err := strictMessage(payload["message"])
		if err != nil {
			warn("%s: %v", typ, err)
			return
		}
		var target string
		_ = json.Unmarshal(payload["target_peer"], &target)
		for id, dc := range b.open() {
			if typ == "broadcast" || id == target {
				if err := dc.SendText(m); err != nil {
					warn("%s to %s: %v", typ, id, err)
				}
			}
		}
	case "list_peers":
		ids := make([]string, 0)
		for id := range b.open() {
			ids = append(ids, id)
		}
		b.tell("peer_list", map[string]any{"peers": ids})
	case "raw": // not a command of any protocol: bytes as a hostile peer would send them
		var target string
		var bytes []byte
		_ = json.Unmarshal(payload["target_peer"], &target)
		_ = json.Unmarshal(payload["bytes"], &bytes)
		b.raw(target, bytes)
	case "connect", "hello": // the original logs them as unknown
		warn("unknown command: %s", typ)
	default:
		violation("the agent said %s", typ)
	}
}

// raw sends bytes as one data channel message, or as slices of a stream.
func (b *baseSidecar) raw(target string, bytes []byte) {
	dc := b.open()[target]
	if dc == nil {
		violation("no channel to %s", target)
		return
	}
	if !hostile() {
		if err := dc.SendText(string(bytes)); err != nil {
			violation("%v", err)
		}
		return
	}
	for slice := range slices.Chunk(append(bytes, '\n'), 16<<10) {
		if err := dc.Send(slice); err != nil {
			violation("%v", err)
		}
	}
}

// hostile reports whether this sidecar claims to know the extensions, in order to abuse them.
func hostile() bool { return os.Getenv(hostileStream) != "" }

// description is the payload of an offer or answer.
func (b *baseSidecar) description(sdp, answers string) map[string]any {
	d := map[string]any{"sdp": sdp}
	if hostile() {
		d["caps"], d["session"], d["instance"] = []string{"jsonl"}, "hostile", "hostile"
	}
	if answers != "" {
		d["answers"] = answers
	}
	return d
}

func (b *baseSidecar) tell(typ string, payload any) { b.agent <- event{typ, payload} }

// open returns a copy of the channels. They count from their creation on.
func (b *baseSidecar) open() map[string]*webrtc.DataChannel {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]*webrtc.DataChannel, len(b.channels))
	for id, dc := range b.channels {
		all[id] = dc
	}
	return all
}

func (b *baseSidecar) connection(peer string) *webrtc.PeerConnection {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peers[peer]
}

// newConnection makes a connection. Its candidates wait for the call of described, because the original gathers
// more slowly than it sends its description.
func (b *baseSidecar) newConnection(peer string, sig *session) (pc *webrtc.PeerConnection, described func(), err error) {
	var se webrtc.SettingEngine
	se.LoggerFactory = &logging.DefaultLoggerFactory{Writer: io.Discard}
	se.SetIncludeLoopbackCandidate(true) // for machines that have nothing else
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	if d, err := time.ParseDuration(os.Getenv(iceTimeout)); err == nil {
		se.SetICETimeouts(d, d, d/4)
	}
	pc, err = webrtc.NewAPI(webrtc.WithSettingEngine(se)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, nil, err
	}
	sent := make(chan struct{})
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			<-sent
			init := c.ToJSON()
			sig.send("ice_candidate", peer, map[string]any{
				"candidate": init.Candidate, "sdpMid": init.SDPMid, "sdpMLineIndex": init.SDPMLineIndex,
			})
		}
	})
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		warn("connection to %s is %s", peer, s)
		switch s {
		case webrtc.PeerConnectionStateDisconnected, webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			b.mu.Lock()
			delete(b.peers, peer) // whichever connection that was
			delete(b.channels, peer)
			b.mu.Unlock()
			b.tell("peer_disconnected", map[string]any{"peer_id": peer})
		}
	})
	return pc, func() { close(sent) }, nil
}

func (b *baseSidecar) use(peer string, dc *webrtc.DataChannel) {
	if dc.Label() != "mesh" || !dc.Ordered() || dc.MaxRetransmits() != nil || dc.MaxPacketLifeTime() != nil {
		violation("data channel %q of %s is not the mesh's", dc.Label(), peer)
	}
	b.mu.Lock()
	b.channels[peer] = dc
	b.mu.Unlock()
	dc.OnOpen(func() {
		if hostile() {
			b.raw(peer, []byte(`["hello",{"protocol":1}]`))
		}
		b.tell("peer_connected", map[string]any{"peer_id": peer})
	})
	dc.OnMessage(func(m webrtc.DataChannelMessage) {
		if hostile() {
			return
		}
		if len(m.Data) > baseMaxRead {
			violation("a data channel message of %d bytes from %s", len(m.Data), peer)
			_ = dc.Close() // its reads end in the original
			return
		}
		text, err := strictMessage(m.Data)
		if err != nil {
			violation("from %s: %v: %.200q", peer, err, m.Data)
			return
		}
		b.tell("message", map[string]any{"from_peer": peer, "message": json.RawMessage(text)})
	})
}

func (b *baseSidecar) add(peer string, pc *webrtc.PeerConnection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.peers[peer] = pc
}

func (b *baseSidecar) connected(peer string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.channels[peer] != nil
}

// clear closes the current connections, as the original does when signaling ends.
func (b *baseSidecar) clear() {
	b.mu.Lock()
	peers := b.peers
	b.peers = make(map[string]*webrtc.PeerConnection)
	b.channels = make(map[string]*webrtc.DataChannel)
	b.mu.Unlock()
	for _, pc := range peers {
		_ = pc.Close()
	}
}
