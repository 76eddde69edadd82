//go:build linux || darwin

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/webrtc/v4"
)

// A session is one connection of a base sidecar to the signaling server.
type session struct {
	id  string
	out chan []byte
}

type token struct{ Token, PeerID, Role string }

// exchangeToken presents the API key. The response must have all three fields.
func exchangeToken() (token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("TOKEN_URL"), nil)
	if err != nil {
		return token{}, err
	}
	req.Header.Set("X-API-Key", os.Getenv("API_KEY"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return token{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var body map[string]json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return token{}, err
	}
	var t token
	for name, field := range map[string]*string{"token": &t.Token, "peer_id": &t.PeerID, "role": &t.Role} {
		if err := strictString(body, name, field); err != nil {
			return token{}, fmt.Errorf("token response (%s): %w", resp.Status, err)
		}
	}
	return t, nil
}

// signal maintains the signaling connection, with a new token each time: it reconnects at once after the first end,
// later after a wait that doubles.
func (b *baseSidecar) signal() {
	wait := time.Second
	for attempt := 0; ; attempt++ {
		t, err := exchangeToken()
		if err == nil {
			err = b.connect(t)
			b.clear()
		}
		warn("signaling ended: %v", err)
		if attempt > 0 {
			<-time.After(wait)
			wait = min(2*wait, 30*time.Second)
		}
	}
}

func (b *baseSidecar) connect(t token) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ws, _, err := websocket.Dial(ctx, os.Getenv("SIGNALING_URL")+"?token="+t.Token, nil)
	if err != nil {
		return err
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(1 << 20)
	s := &session{id: b.id, out: make(chan []byte, 10_000)}
	go func() {
		for {
			select {
			case m := <-s.out:
				if ws.Write(ctx, websocket.MessageText, m) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	s.send("register", "", nil)
	for {
		typ, text, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		if typ == websocket.MessageText {
			b.signaled(text, s)
		}
	}
}

func (s *session) send(typ, target string, payload any) {
	m := map[string]any{"type": typ, "peer_id": s.id, "payload": payload}
	if target != "" {
		m["target_id"] = target
	}
	text, err := json.Marshal(m)
	if err != nil {
		warn("%v", err)
		return
	}
	s.out <- text
}

// signaled handles one message. Offers are handled concurrently, so that candidates right behind them can come too
// early.
func (b *baseSidecar) signaled(text []byte, s *session) {
	var m map[string]json.RawMessage
	var typ, from string
	err := json.Unmarshal(text, &m)
	if err == nil {
		err = errors.Join(strictString(m, "type", &typ), strictString(m, "peer_id", &from))
	}
	if err != nil {
		violation("signaling message: %v: %.200q", err, text)
		return
	}
	var payload map[string]json.RawMessage
	_ = json.Unmarshal(m["payload"], &payload)
	switch typ {
	case "peer_list":
		var peers []string
		if err := json.Unmarshal(payload["peers"], &peers); err != nil {
			violation("peer_list: %v", err)
		}
		for _, p := range peers {
			if p != b.id && !b.connected(p) {
				go b.attempt("offering to "+p, func() error { return b.offer(p, s) })
			}
		}
	case "offer", "answer":
		var sdp string
		if err := strictString(payload, "sdp", &sdp); err != nil {
			violation("%s of %s: %v", typ, from, err)
			return
		}
		if typ == "offer" {
			var offered string // a base sidecar would not look
			_ = json.Unmarshal(payload["session"], &offered)
			if !hostile() {
				offered = ""
			}
			go b.attempt("answering "+from, func() error { return b.answer(from, sdp, offered, s) })
		} else {
			b.attempt("the answer of "+from, func() error { return b.answered(from, sdp) })
		}
	case "ice_candidate":
		b.attempt("a candidate of "+from, func() error { return b.candidate(from, payload) })
	default:
		warn("unhandled message type: %s", typ)
	}
}

func (b *baseSidecar) attempt(what string, f func() error) {
	if err := f(); err != nil {
		warn("%s: %v", what, err)
	}
}

func (b *baseSidecar) offer(peer string, s *session) error {
	pc, described, err := b.newConnection(peer, s)
	if err != nil {
		return err
	}
	dc, err := pc.CreateDataChannel("mesh", nil)
	if err != nil {
		return err
	}
	b.add(peer, pc)
	b.use(peer, dc)
	offer, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(offer)
	}
	if err != nil {
		return err
	}
	s.send("offer", peer, b.description(offer.SDP, ""))
	described()
	return nil
}

func (b *baseSidecar) answer(peer, sdp, offered string, s *session) error {
	pc, described, err := b.newConnection(peer, s)
	if err != nil {
		return err
	}
	pc.OnDataChannel(func(dc *webrtc.DataChannel) { b.use(peer, dc) })
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
		return err
	}
	b.add(peer, pc)
	answer, err := pc.CreateAnswer(nil)
	if err == nil {
		err = pc.SetLocalDescription(answer)
	}
	if err != nil {
		return err
	}
	s.send("answer", peer, b.description(answer.SDP, offered))
	described()
	return nil
}

func (b *baseSidecar) answered(peer, sdp string) error {
	pc := b.connection(peer)
	if pc == nil {
		return errors.New("no connection")
	}
	return pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp})
}

func (b *baseSidecar) candidate(peer string, payload map[string]json.RawMessage) error {
	pc := b.connection(peer)
	if pc == nil {
		return nil // too early, and lost
	}
	var init webrtc.ICECandidateInit
	_ = json.Unmarshal(payload["candidate"], &init.Candidate)
	_ = json.Unmarshal(payload["sdpMid"], &init.SDPMid)
	_ = json.Unmarshal(payload["sdpMLineIndex"], &init.SDPMLineIndex)
	return pc.AddICECandidate(init)
}
