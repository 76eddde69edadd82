package mesh

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Mallory runs the signaling server. She gives out ids, relays what her victims say to each other, or does with it
// what she likes: in the middle she is a peer of each, under the other's id.
type mallory struct {
	t    *testing.T
	url  string // of the WebSocket
	api  *webrtc.API
	cert webrtc.Certificate // of all her connections, so that what was signed for one has the best chance with another
	hash [sha256.Size]byte
	life context.Context
	work sync.WaitGroup

	mu      sync.Mutex
	names   map[string]string // the ids that she gives, by API key, where they are not the key
	victims map[string]*websocket.Conn
	listed  []string // registered victims
	quiet   bool     // she tells nobody who else is there
	relay   func(signal.Message)
	said    []signal.Message // what victims wanted relayed
	taps    map[[2]string]*tap
	read    bytes.Buffer // what she has read on data channels
}

func newMallory(t *testing.T) *mallory {
	m := &mallory{t: t, names: make(map[string]string), victims: make(map[string]*websocket.Conn), taps: make(map[[2]string]*tap)}
	m.relay = m.pass
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		t.Fatal(err)
	}
	prints, err := cert.GetFingerprints()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := hex.DecodeString(strings.ReplaceAll(prints[0].Value, ":", ""))
	if err != nil || prints[0].Algorithm != "sha-256" || copy(m.hash[:], hash) != len(m.hash) {
		t.Fatal(prints, err)
	}
	m.cert = *cert
	var se webrtc.SettingEngine
	se.LoggerFactory = &logging.DefaultLoggerFactory{Writer: io.Discard}
	se.SetIncludeLoopbackCandidate(true)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	m.api = webrtc.NewAPI(webrtc.WithSettingEngine(se))

	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/token", m.token)
	mux.HandleFunc("GET /api/config", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"iceServers":[]}`) })
	mux.HandleFunc("GET /ws", m.serve)
	web := httptest.NewServer(mux)
	m.url = "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	life, end := context.WithCancel(context.Background())
	m.life = life
	t.Cleanup(func() {
		end()
		m.work.Wait()
		for _, p := range m.taps {
			p.close()
		}
		web.Close()
	})
	return m
}

// name returns the id that she gives to the holder of an API key.
func (m *mallory) name(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cmp.Or(m.names[key], key)
}

// rename changes the id for an API key.
func (m *mallory) rename(key, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[key] = id
}

// token exchanges an API key for a token, which is the id.
func (m *mallory) token(w http.ResponseWriter, r *http.Request) {
	id := m.name(r.Header.Get("X-API-Key"))
	_ = json.NewEncoder(w).Encode(map[string]string{"token": id, "peer_id": id, "role": "agent"})
}

// serve serves a victim's WebSocket.
func (m *mallory) serve(w http.ResponseWriter, r *http.Request) {
	m.work.Add(1)
	defer m.work.Done()
	id := cmp.Or(r.URL.Query().Get("token"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(1 << 20)
	for {
		_, b, err := ws.Read(m.life)
		if err != nil {
			return
		}
		msg, err := signal.ParseMessage(b)
		if err != nil {
			m.t.Errorf("%s says %q: %v", id, b, err)
			return
		}
		switch msg.Type {
		case signal.Register:
			m.register(id, ws)
		case signal.Offer, signal.Answer, signal.Candidate:
			m.mu.Lock()
			relay := m.relay
			if m.victims[id] != ws { // another connection has taken its place
				relay = nothing
			} else {
				m.said = append(m.said, msg)
			}
			m.mu.Unlock()
			relay(msg)
		}
	}
}

func (m *mallory) register(id string, ws *websocket.Conn) {
	m.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(m.listed), func(other string) bool { return other == id })
	m.listed = append(slices.Clone(others), id)
	m.victims[id] = ws
	if m.quiet {
		others = nil
	}
	m.mu.Unlock()
	m.list(id, others...)
}

// list sends a victim a list of peers.
func (m *mallory) list(to string, peers ...string) {
	m.say(signal.PeerList, "registry", to, signal.PeersPayload{Peers: append([]string{}, peers...)})
}

// pass relays as an honest server does.
func (m *mallory) pass(msg signal.Message) { m.send(msg.TargetID, msg) }

// nothing relays nothing.
func nothing(signal.Message) {}

// say sends a victim a message in the name of anybody.
func (m *mallory) say(typ, from, to string, payload any) {
	b, err := json.Marshal(payload)
	if err != nil {
		m.t.Error(err)
	}
	m.send(to, signal.Message{Type: typ, PeerID: from, TargetID: to, Payload: b})
}

func (m *mallory) send(to string, msg signal.Message) {
	b, err := json.Marshal(msg)
	if err != nil {
		m.t.Error(err)
	}
	m.mu.Lock()
	ws := m.victims[to]
	m.mu.Unlock()
	if ws != nil {
		_ = ws.Write(m.life, websocket.MessageText, b) // it fails when the victim is gone
	}
}

// hangUp ends a victim's connection, which then comes back.
func (m *mallory) hangUp(id string) {
	m.mu.Lock()
	ws := m.victims[id]
	delete(m.victims, id)
	m.listed = slices.DeleteFunc(m.listed, func(other string) bool { return other == id })
	m.mu.Unlock()
	_ = ws.CloseNow()
}

// turn makes her do something else with what she is to relay.
func (m *mallory) turn(relay func(signal.Message)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.relay = relay
}

// heard returns what victims have wanted relayed so far.
func (m *mallory) heard(typ, from, to string) []signal.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.said), func(msg signal.Message) bool {
		return msg.Type != typ || msg.PeerID != from || msg.TargetID != to
	})
}

// settled blocks until a victim has done with all that she has sent it: it works through that in order, and offers to
// a peer that is new on the list.
func (m *mallory) settled(t *testing.T, victim string) {
	t.Helper()
	marker := "marker-" + rand.Text()
	m.list(victim, marker)
	testutil.Eventually(t, victim+" has done with it", func() bool { return len(m.heard(signal.Offer, victim, marker)) > 0 })
	m.say(signal.ErrorType, "registry", victim, signal.ErrorPayload{Code: signal.CodePeerUnavailable, TargetID: marker})
}

// reads reports whether she has read a text on a data channel.
func (m *mallory) reads(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Contains(m.read.Bytes(), []byte(text))
}

// readBytes returns how much she has read on data channels.
func (m *mallory) readBytes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read.Len()
}

// A trick is what she does in the middle. The zero value passes everything on as it is.
type trick struct {
	noCaps    bool // her descriptions list no capabilities, so that framing is base
	noSession bool // her descriptions have no session
	borrow    bool // her sessions have the names of those of the victims, so that nothing but certificates differs
	// show returns the hello that the victim of a leg is shown, "" if it is not time to; nil shows the other one's.
	show func(to *leg) string
	// alone: she does not introduce the victims to each other, but is the target herself.
	alone bool
}

// forgedType is the type of the message that she adds in the name of each victim.
const forgedType = "forged"

const forged = `{"type":"` + forgedType + `","payload":"by mallory"}`

// middle returns a way to relay that puts her between the victims.
func (m *mallory) middle(how trick) func(signal.Message) {
	return func(msg signal.Message) {
		switch msg.Type {
		case signal.Offer:
			if l := m.legTo(msg.PeerID, msg.TargetID); l == nil || l.theirs != description(m.t, msg).Session { // else a repetition
				m.tap(msg, how)
			}
		case signal.Answer:
			if l := m.legTo(msg.PeerID, msg.TargetID); l != nil {
				d := description(m.t, msg)
				l.theirs = d.Session
				if first := l.other(); how.borrow && first != nil {
					first.own = d.Session
					first.answer()
				}
				// It fails when another tap has taken this one's place.
				_ = l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: d.SDP})
			}
		case signal.Candidate:
			var c signal.ICECandidate
			if err := json.Unmarshal(msg.Payload, &c); err != nil {
				m.t.Error(err)
			}
			if l := m.legTo(msg.PeerID, msg.TargetID); l != nil && l.theirs == c.Session {
				_ = l.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex})
			}
		}
	}
}

func description(t *testing.T, msg signal.Message) (d signal.Description) {
	if err := json.Unmarshal(msg.Payload, &d); err != nil {
		t.Error(err)
	}
	return d
}

func (m *mallory) legTo(victim, as string) *leg {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.taps[[2]string{victim, as}]; p != nil {
		return p.legs[victim]
	}
	return nil
}

// A tap is two connections of hers, each with one of two victims, under the other's id.
type tap struct {
	m    *mallory
	how  trick
	legs map[string]*leg // by victim

	mu     sync.Mutex
	closed bool
}

// A leg is one connection of hers.
type leg struct {
	*tap
	victim, as string
	offerer    bool // she has offered
	own        string
	theirs     string // sessions
	pc         *webrtc.PeerConnection
	dc         *webrtc.DataChannel // once it is open; guarded by tap.mu
	in         []byte              // not passed on yet; guarded by tap.mu
	hello      string              // the victim's; guarded by tap.mu
	shown      bool                // it was shown one; guarded by tap.mu
}

// other returns the leg to the other victim.
func (l *leg) other() *leg { return l.legs[l.as] }

// tap takes up a victim's offer, and offers to the other one.
func (m *mallory) tap(offer signal.Message, how trick) {
	from, to := offer.PeerID, offer.TargetID
	p := &tap{m: m, how: how, legs: make(map[string]*leg)}
	p.legs[from] = p.newLeg(from, to, false)
	if !how.alone {
		p.legs[to] = p.newLeg(to, from, true)
	}
	m.mu.Lock()
	old := m.taps[[2]string{from, to}]
	m.taps[[2]string{from, to}], m.taps[[2]string{to, from}] = p, p
	m.mu.Unlock()
	if old != nil {
		old.close()
	}
	l, d := p.legs[from], description(m.t, offer)
	l.theirs = d.Session
	if err := l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: d.SDP}); err != nil {
		return // another tap has taken this one's place
	}
	if how.borrow { // she answers when she has the other one's answer
		p.legs[to].own = d.Session
	} else {
		l.answer()
	}
	if !how.alone {
		p.legs[to].offer()
	}
}

// answer answers the victim's offer.
func (l *leg) answer() {
	answer, err := l.pc.CreateAnswer(nil)
	l.describe(signal.Answer, answer, err, l.theirs)
}

func (p *tap) newLeg(victim, as string, offerer bool) *leg {
	pc, err := p.m.api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{p.m.cert}})
	if err != nil {
		panic(err) // not on the goroutine of the test
	}
	l := &leg{tap: p, victim: victim, as: as, offerer: offerer, pc: pc, own: "5e55104" + rand.Text()}
	if p.how.noSession {
		l.own = ""
	}
	pc.OnDataChannel(l.use)
	return l
}

// offer makes a data channel and an offer to the victim.
func (l *leg) offer() {
	dc, err := l.pc.CreateDataChannel("mesh", nil)
	if err != nil {
		return // another tap has taken this one's place
	}
	l.use(dc)
	offer, err := l.pc.CreateOffer(nil)
	l.describe(signal.Offer, offer, err, "")
}

// describe sends a description, with all of its candidates.
func (l *leg) describe(typ string, d webrtc.SessionDescription, err error, answers string) {
	gathered := webrtc.GatheringCompletePromise(l.pc)
	if err == nil {
		err = l.pc.SetLocalDescription(d)
	}
	if err != nil { // another tap has taken this one's place
		return
	}
	<-gathered
	out := signal.Description{SDP: l.pc.LocalDescription().SDP, Session: l.own, Instance: "1457a9ce", Answers: answers}
	if !l.how.noCaps {
		out.Caps = []string{"jsonl", "restart", "drain"}
	}
	l.m.say(typ, l.as, l.victim, out)
}

func (l *leg) use(dc *webrtc.DataChannel) {
	dc.OnOpen(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dc = dc
		l.advance()
	})
	dc.OnMessage(func(msg webrtc.DataChannelMessage) {
		l.m.mu.Lock()
		l.m.read.Write(msg.Data)
		l.m.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.in = append(l.in, msg.Data...)
		if l.how.noCaps {
			l.in = append(l.in, '\n')
		}
		l.advance()
	})
}

// advance shows each victim a hello once she has its own, and passes on what has come.
func (p *tap) advance() {
	for _, l := range p.legs {
		if !p.how.noCaps && l.hello == "" {
			if line, rest, ok := bytes.Cut(l.in, []byte("\n")); ok {
				l.hello, l.in = string(line), bytes.Clone(rest)
			}
		}
	}
	for _, l := range p.legs {
		l.shown = l.shown || l.show()
		from := l.other()
		if !l.shown || from == nil {
			continue
		}
		for {
			line, rest, ok := bytes.Cut(from.in, []byte("\n"))
			if !ok {
				break
			}
			l.write(string(line))
			from.in = rest
		}
	}
}

// show shows a victim a hello, and a message behind it, and reports whether it was time to.
func (l *leg) show() bool {
	if l.dc == nil {
		return false
	}
	if !l.how.noCaps {
		line := ""
		switch {
		case l.hello == "":
		case l.how.show != nil:
			line = l.how.show(l)
		case l.other() != nil:
			line = l.other().hello
		}
		if line == "" {
			return false
		}
		l.write(line)
	}
	l.write(forged)
	return true
}

// write writes one line.
func (l *leg) write(line string) {
	if l.how.noCaps {
		_ = l.dc.SendText(line) // it fails when the victim has closed the link
		return
	}
	_ = l.dc.Send([]byte(line + "\n"))
}

func (p *tap) close() {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return
	}
	for _, l := range p.legs {
		_ = l.pc.GracefulClose()
	}
}

// end ends her connections with two victims.
func (m *mallory) end(a, b string) {
	m.mu.Lock()
	p := m.taps[[2]string{a, b}]
	m.mu.Unlock()
	p.close()
}

// shows returns the hello of a leg with an identity, nil for none.
func (l *leg) shows(s *identity.Shown) string {
	h := map[string]any{"protocol": 1}
	if s != nil {
		id := map[string]any{"key": s.Key, "sig": s.Sig}
		if s.Mesh != nil {
			id["mesh"] = s.Mesh
		}
		if s.Member != nil {
			id["member"] = s.Member
		}
		h["identity"] = id
	}
	b, err := json.Marshal([]any{"hello", h})
	if err != nil {
		l.m.t.Error(err)
	}
	return string(b)
}

// link returns what she signs for a leg when she does not lie about it.
func (l *leg) link() identity.Link {
	return identity.Link{
		Offerer: l.offerer, Own: l.as, Other: l.victim, OwnSession: l.own, OtherSession: l.theirs,
		OwnCert: l.m.hash, OtherCert: sha256.Sum256(l.pc.SCTP().Transport().GetRemoteCertificate()),
	}
}

// shown returns the identity in a hello.
func shown(t *testing.T, hello string) *identity.Shown {
	var kind string
	var h struct{ Identity *identity.Shown }
	if err := json.Unmarshal([]byte(hello), &[]any{&kind, &h}); err != nil {
		t.Errorf("hello %q: %v", hello, err)
	}
	return h.Identity
}

// hellos returns the hellos of the present tap between two victims, by victim.
func (m *mallory) hellos(a, b string) map[string]string {
	m.mu.Lock()
	p := m.taps[[2]string{a, b}]
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]string)
	for _, l := range slices.Collect(maps.Values(p.legs)) {
		if l.hello != "" {
			all[l.victim] = l.hello
		}
	}
	return all
}

// strip returns a message without some fields of its payload.
func strip(t *testing.T, msg signal.Message, fields ...string) signal.Message {
	var payload map[string]json.RawMessage
	if err := json.Unmarshal(msg.Payload, &payload); err != nil {
		t.Error(err)
	}
	for _, f := range fields {
		delete(payload, f)
	}
	var err error
	if msg.Payload, err = json.Marshal(payload); err != nil {
		t.Error(err)
	}
	return msg
}
