package signal

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// The types of a Message.
const (
	Register  = "register"      // sidecar → server: list me, and tell me who else is registered
	Welcome   = "welcome"       // server → sidecar that has no token: the response of the token exchange
	PeerList  = "peer_list"     // server → sidecar: who else is registered
	Offer     = "offer"         // sidecar → sidecar, relayed
	Answer    = "answer"        // sidecar → sidecar, relayed
	Candidate = "ice_candidate" // sidecar → sidecar, relayed
	Heartbeat = "heartbeat"     // sidecar → server: the sender is alive
	ErrorType = "error"         // server → sidecar: an earlier message was dropped
	Left      = "left"          // server → sidecar: a peer's process has probably ended
)

// The codes of an error message's payload.
const (
	CodePeerUnavailable = "peer_unavailable" // the target is not registered; ErrorPayload.TargetID names it
	CodeMalformed       = "malformed"        // the text is not a signaling message
	CodeInvalidField    = "invalid_field"    // a field is missing or has an invalid value
	CodeBusy            = "busy"             // not relayed: too much is queued for ErrorPayload.TargetID
	CodeUnauthorized    = "unauthorized"     // peer_id is not the token's subject
	CodeInUse           = "in_use"           // register with if_free: another connection has the peer id
)

// Message is one signaling message: a JSON object in one WebSocket text message.
type Message struct {
	Type string `json:"type"`
	// PeerID is the sender. The server drops what does not match the sender's token.
	PeerID string `json:"peer_id"`
	// TargetID is the peer that an offer, answer or candidate is for.
	TargetID string `json:"target_id,omitempty"`
	// Payload is raw JSON: by Type a RegisterPayload, PeersPayload, Description, ICECandidate or
	// ErrorPayload.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Description is the payload of an offer or answer. All fields but SDP are optional and unknown to
// chatixia-mesh's own sidecars, which ignore them.
type Description struct {
	SDP string `json:"sdp"`
	// Caps are the sender's capabilities; an answer lists only what the offer listed.
	Caps []string `json:"caps,omitempty"`
	// Session is random per PeerConnection, Instance random per sidecar process.
	Session  string `json:"session,omitempty"`
	Instance string `json:"instance,omitempty"`
	// Answers is the session of the offer that an answer belongs to.
	Answers string `json:"answers,omitempty"`
	// SCTPInit is the sender's SCTP INIT chunk in base64: in an offer if it can do without SCTP's handshake, and in an
	// answer if it does, which it can if the offer has one. Only in the first of a session.
	SCTPInit string `json:"sctp_init,omitempty"`
	// Number counts the offers of a session after the first; an answer has that of its offer. Sig is the
	// sender's signature of a description with a number, if it has a key: see "Identity" in docs/protocol.md.
	Number int    `json:"number,omitempty"`
	Sig    string `json:"sig,omitempty"`
	// Restart, in an answer that repeats the sender's last one, asks for an ICE restart.
	Restart bool `json:"restart,omitempty"`
}

// ICECandidate is the payload of an ice_candidate message: RTCIceCandidateInit of the W3C's WebRTC
// API, whose two SDP fields may be null, and the Session and Instance of Description.
type ICECandidate struct {
	Candidate     string  `json:"candidate"`
	SDPMid        *string `json:"sdpMid"`
	SDPMLineIndex *uint16 `json:"sdpMLineIndex"`
	Session       string  `json:"session,omitempty"`
	Instance      string  `json:"instance,omitempty"`
}

// RegisterPayload is the payload of a register message. All fields are extensions.
type RegisterPayload struct {
	// Started is when the sender's instance was started, in milliseconds since 1970; nil if unknown. Of two
	// connections of one peer the one that was started later stays; if that is not known, the newer
	// connection.
	Started *int64 `json:"started,omitempty"`
	// IfFree asks for an error with CodeInUse rather than to replace another connection.
	IfFree bool `json:"if_free,omitempty"`
	// Left asks to be told of peers that have left.
	Left bool `json:"left,omitempty"`
}

// LeftPayload is the payload of a left message, which is an extension.
type LeftPayload struct {
	PeerID string `json:"peer_id"`
	// Ago is how long before the message the peer's connection was closed from its end, in milliseconds.
	Ago int64 `json:"ago"`
}

// EarlyRegister is the registration in the handshake of a client that presents its API key there.
type EarlyRegister struct {
	RegisterPayload
	// PeerID is the id that the client wants to be registered with: if it has another one, it is not. Empty for any.
	PeerID string `json:"peer_id,omitempty"`
}

// ParseEarlyRegister returns the id in the header HeaderRegister, and its value as the payload of a register message.
func ParseEarlyRegister(header string) (id string, payload json.RawMessage, err error) {
	var p struct {
		PeerID string `json:"peer_id"`
	}
	if err := Decode([]byte(header), &p); err != nil {
		return "", nil, err
	}
	return p.PeerID, json.RawMessage(header), nil
}

// PeersPayload is the payload of a peer_list: the other registered peers.
type PeersPayload struct {
	Peers []string `json:"peers"`
	// Base, an extension, are those of Peers that may be base peers: they have not asked to be told of peers that have left.
	// It is nil if the server does not say.
	Base []string `json:"base,omitzero"`
}

// ErrorPayload is the payload of an error message.
type ErrorPayload struct {
	Code     string `json:"code"`
	TargetID string `json:"target_id,omitempty"`
	Message  string `json:"message,omitempty"`
}

// The WebSocket close codes of this protocol, in the range for private use (RFC 6455 section 7.4.2).
const (
	CloseReplaced = 4001 // another connection of the same peer has registered and is newer
	CloseInUse    = 4002 // the peer id is in use, and register asked for a free one only
)

// ParseRegister reads the payload of a register message. An empty payload and null count as {}. Keys are as in
// Decode.
func ParseRegister(payload json.RawMessage) (RegisterPayload, error) {
	var p RegisterPayload
	var fields map[string]json.RawMessage
	if len(payload) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(payload, &fields); err != nil {
		return p, errors.New("payload: not an object")
	}
	if err := checkKeys(payload, &p); err != nil {
		return p, err
	}
	if b, ok := fields["started"]; ok {
		if err := json.Unmarshal(b, &p.Started); err != nil || p.Started != nil && *p.Started < 0 {
			return p, errors.New("started: not a Unix time in milliseconds, an integer from 0 on")
		}
	}
	if b, ok := fields["if_free"]; ok {
		if err := json.Unmarshal(b, &p.IfFree); err != nil {
			return p, errors.New("if_free: not true or false")
		}
	}
	if b, ok := fields["left"]; ok {
		if err := json.Unmarshal(b, &p.Left); err != nil {
			return p, errors.New("left: not true or false")
		}
	}
	return p, nil
}

// ParseMessage reads one signaling message: a single JSON object of valid UTF-8 with a non-empty string
// type; peer_id and target_id are strings or null if present. As in Decode, unknown keys are ignored, and a known
// one must not be there twice or in another case. The payload is a view of b's value, not a decoded one.
func ParseMessage(b []byte) (Message, error) {
	var m Message
	if !utf8.Valid(b) {
		return m, errors.New("not valid UTF-8")
	}
	if err := Decode(b, &m); err != nil {
		return Message{}, err
	}
	if m.Type == "" {
		return Message{}, errors.New("type: missing or empty")
	}
	return m, nil
}
