package wire

import (
	"strconv"
	"time"
)

// Optional features of a link, as listed in hello and ready. A party uses one only if both listed it.
const (
	FeatureError  = "error"  // `error` and `signaling` events
	FeatureFlow   = "flow"   // `pause` and `resume`
	FeatureCancel = "cancel" // `cancel`
	FeatureDrain  = "drain"  // `drain` and `drained`
	// FeatureIdentity: `policy` in ready, `key` in peer_connected, `keys` in peer_list.
	FeatureIdentity = "identity"
	FeaturePing     = "ping" // `ping` and `pong`
	// FeatureStreams: `secret` in ready, the lines about streams, and connections for them.
	FeatureStreams = "streams"
	FeatureStats   = "stats" // `stats` and `path`
	// FeatureCards: `card`, and `card` in hello and peer_connected.
	FeatureCards = "cards"
)

// Features returns the extensions of the link that this version knows, as hello and ready name them.
func Features() []string {
	return []string{FeatureError, FeatureFlow, FeatureCancel, FeatureDrain, FeatureIdentity, FeaturePing, FeatureStreams, FeatureStats, FeatureCards}
}

// Stop is what is held back for one peer: what `pause` and `resume` say. Each holds back what those before it do, too.
type Stop int

const (
	StopNothing Stop = iota // everything passes
	StopOrdered             // messages that are neither requests nor responses block
	StopNewWork             // the peer is busy: all but responses blocks
	StopAll                 // the queue to the peer is full: responses block, too
)

// Hello is the payload of hello and of ready.
type Hello struct {
	Protocol   int      `json:"protocol"`
	Features   []string `json:"features"`
	MaxMessage int      `json:"max_message"`     // length in bytes of the longest message that the sender accepts
	Token      string   `json:"token,omitempty"` // hello only: proves that the sidecar's parent connected
	// Policy, in ready only, is what the sidecar demands of the identities of peers: known, required or member; empty if
	// it demands nothing.
	Policy string `json:"policy,omitempty"`
	// Secret, in ready only, is what connections for streams have to show.
	Secret string `json:"secret,omitempty"`
	// Card, in hello only, is what peers are told of the agent: a JSON object, nil for none.
	Card []byte `json:"-"`
}

// Signaling is the payload of a signaling event.
type Signaling struct {
	State  string `json:"state"`             // connecting, connected, refused or replaced
	PeerID string `json:"peer_id,omitempty"` // in state connected
	Error  string `json:"error,omitempty"`
	Code   string `json:"code,omitempty"` // SignalingMisconfigured, SignalingIdentity, SignalingInUse or empty
}

// The codes of a signaling event about an error that no retry can mend.
const (
	SignalingMisconfigured = "misconfigured"
	SignalingIdentity      = "identity" // the peer id is not the one that this agent's key signs for
	SignalingInUse         = "in_use"   // with the state replaced: it was to register only if its peer id was free
)

// PeerList is the payload of a peer_list event.
type PeerList struct {
	Peers []string
	Keys  []string // of each peer, "" if it has proven none; nil if not told
}

// Unsent is the payload of a drained event: the peers for which the drain ended early, and how many messages each of
// them may not have received, at most.
type Unsent struct {
	Peers    []string
	Messages []int // of each peer
}

// ErrorEvent is the payload of an error event. Unknown fields are empty.
type ErrorEvent struct {
	Code       Code   `json:"code"`
	Message    string `json:"message"`
	Command    string `json:"command,omitempty"` // type of the line that failed
	TargetPeer string `json:"target_peer,omitempty"`
	RequestID  string `json:"request_id,omitempty"`
}

// DecodeHello decodes the payload of hello or ready; a nil payload gives the zero Hello. The error is an
// [*Error], as in the other Decode functions.
func DecodeHello(payload []byte) (Hello, error) {
	var h Hello
	err := decodeObject(payload, []field{
		{keyProtocol, &h.Protocol}, {keyFeatures, &h.Features}, {keyMaxMessage, &h.MaxMessage}, {keyToken, &h.Token},
		{keyPolicy, &h.Policy}, {keySecret, &h.Secret}, {keyCard, &h.Card},
	})
	return h, err
}

// DecodeSignaling decodes the payload of a signaling event.
func DecodeSignaling(payload []byte) (Signaling, error) {
	var s Signaling
	err := decodeObject(payload, []field{
		{keyState, &s.State}, {keyPeerID, &s.PeerID}, {keyError, &s.Error}, {keyCode, &s.Code},
	})
	return s, err
}

// DecodeErrorEvent decodes the payload of an error event.
func DecodeErrorEvent(payload []byte) (ErrorEvent, error) {
	var e ErrorEvent
	err := decodeObject(payload, []field{
		{keyCode, (*string)(&e.Code)}, {keyMessage, &e.Message}, {keyCommand, &e.Command},
		{keyTargetPeer, &e.TargetPeer}, {keyRequestID, &e.RequestID},
	})
	return e, err
}

// DecodePeerList decodes the payload of a peer_list event.
func DecodePeerList(payload []byte) (PeerList, error) {
	var l PeerList
	err := decodeObject(payload, []field{{keyPeers, &l.Peers}, {keyKeys, &l.Keys}})
	if err == nil && l.Keys != nil && len(l.Keys) != len(l.Peers) {
		err = problem(CodeInvalidField, "payload.keys", "want one for each peer", 0)
	}
	return l, err
}

// DecodeDrain decodes the payload of a drain command: how long it may take, 0 if it does not say.
func DecodeDrain(payload []byte) (time.Duration, error) {
	var ms int64
	err := decodeObject(payload, []field{{keyTimeout, &ms}})
	return time.Duration(min(ms, maxDrain.Milliseconds())) * time.Millisecond, err
}

// maxDrain is the longest drain, so that no number is too large for a duration.
const maxDrain = 24 * time.Hour

// DecodeUnsent decodes the payload of a drained event.
func DecodeUnsent(payload []byte) (Unsent, error) {
	var u Unsent
	err := decodeObject(payload, []field{{keyPeers, &u.Peers}, {keyUnsent, &u.Messages}})
	if err == nil && len(u.Messages) != len(u.Peers) {
		err = problem(CodeInvalidField, "payload.unsent", "want one for each peer", 0)
	}
	return u, err
}

// DecodePeerConnected decodes what the payload of a peer_connected event says of the peer: the key that it has proven, "" if none, and its
// card, nil if it has none.
func DecodePeerConnected(payload []byte) (key string, card []byte, err error) {
	err = decodeObject(payload, []field{{keyKey, &key}, {keyCard, &card}})
	return key, card, err
}

// DecodeStrings decodes a JSON array of strings, such as Line.Except. A nil raw gives nil.
func DecodeStrings(raw []byte) ([]string, error) {
	if raw == nil {
		return nil, nil
	}
	s := scanner{b: raw, limit: DefaultMaxDepth}
	list, bad := s.strings("")
	s.end()
	return list, firstError(s.err, bad)
}

// field is a member of a payload and the variable for its value.
type field struct {
	key key
	to  any // *string, **string, *int, *int64, *[]string, *[]int, *[]PeerStats, *[]byte for a card, or a func() *Error that decodes the object at the cursor
}

// decodeObject decodes the payload of a line that is rare. A member that is null counts as absent.
//
// It does not use encoding/json, which takes `Token` for `token` and the last one of two duplicates; here both
// are errors.
func decodeObject(payload []byte, fields []field) error {
	if payload == nil {
		return nil
	}
	s := scanner{b: payload, limit: DefaultMaxDepth + EnvelopeDepth, where: "payload"}
	if s.peek() != '{' {
		s.unexpected("an object")
		return s.err
	}
	bad := s.decodeMembers(fields)
	s.end()
	return firstError(s.err, bad)
}

// decodeMembers decodes the object at the cursor into fields.
func (s *scanner) decodeMembers(fields []field) (bad *Error) {
	var seen, known keySet
	for _, f := range fields {
		known |= 1 << f.key
	}
	s.open()
	for s.next() {
		to := target(fields, s.key)
		if to == nil {
			if err := s.skipOther(known); bad == nil {
				bad = err
			}
			continue
		}
		if seen.has(s.key) && bad == nil {
			bad = problem(CodeInvalidField, s.path(s.key), "present twice", s.i)
		}
		seen |= 1 << s.key
		if err := s.decode(to); bad == nil {
			bad = err
		}
	}
	return bad
}

// object decodes the object at the cursor into fields. where names it in errors.
func (s *scanner) object(where string, fields []field) *Error {
	outer := s.where
	s.where = where
	defer func() { s.where = outer }()
	return s.decodeMembers(fields)
}

// target returns the variable for a member, nil if fields have none.
func target(fields []field, k key) any {
	for _, f := range fields {
		if f.key == k {
			return f.to
		}
	}
	return nil
}

const wantInteger = "want an integer of 0 or more"

// decode decodes the value at the cursor into to.
func (s *scanner) decode(to any) (bad *Error) {
	path := s.path(s.key)
	if list, ok := to.(*[]string); ok && s.peek() != 'n' {
		*list, bad = s.strings(path)
		return bad
	}
	if list, ok := to.(*[]int); ok && s.peek() != 'n' {
		*list, bad = s.integers(path)
		return bad
	}
	if raw, ok := to.(*[]byte); ok {
		*raw, bad = s.card(path)
		return bad
	}
	if object, ok := to.(func() *Error); ok && s.peek() == '{' {
		return object()
	}
	if list, ok := to.(*[]PeerStats); ok && s.peek() != 'n' {
		*list, bad = s.peerStats(path)
		return bad
	}
	v := s.value()
	if s.err != nil || v.kind == 'n' {
		return nil
	}
	switch to := to.(type) {
	case *string:
		if v.kind == '"' {
			*to = string(s.text(v))
			return nil
		}
		return problem(CodeInvalidField, path, "want a string", v.start)
	case **string:
		if v.kind == '"' {
			text := string(s.text(v))
			*to = &text
			return nil
		}
		return problem(CodeInvalidField, path, "want a string", v.start)
	case *bool:
		if v.kind == 't' || v.kind == 'f' {
			*to = v.kind == 't'
			return nil
		}
		return problem(CodeInvalidField, path, "want true or false", v.start)
	case *int:
		n, ok := s.integer(v)
		if ok {
			*to = n
			return nil
		}
		return problem(CodeInvalidField, path, wantInteger, v.start)
	case *int64:
		n, err := strconv.ParseInt(string(s.raw(v)), 10, 64)
		if err == nil && n >= 0 {
			*to = n
			return nil
		}
		return problem(CodeInvalidField, path, wantInteger, v.start)
	case func() *Error:
		return problem(CodeInvalidField, path, "want an object", v.start)
	}
	return nil
}

// strings decodes the array of strings at the cursor.
func (s *scanner) strings(path string) (list []string, bad *Error) {
	if s.peek() != '[' {
		bad = problem(CodeInvalidField, path, "want an array of strings", s.i)
		s.skip()
		return nil, bad
	}
	list = []string{}
	s.open()
	for s.element(']') {
		if c := s.peek(); c != '"' && bad == nil {
			bad = problem(CodeInvalidField, path, "want an array of strings", s.i)
		}
		if v := s.value(); v.kind == '"' {
			list = append(list, string(s.text(v)))
		}
	}
	return list, bad
}

// integers decodes the array of integers at the cursor.
func (s *scanner) integers(path string) (list []int, bad *Error) {
	const want = "want an array of integers of 0 or more"
	if s.peek() != '[' {
		bad = problem(CodeInvalidField, path, want, s.i)
		s.skip()
		return nil, bad
	}
	list = []int{}
	s.open()
	for s.element(']') {
		v := s.value()
		n, ok := s.integer(v)
		if !ok && bad == nil {
			bad = problem(CodeInvalidField, path, want, v.start)
		}
		list = append(list, n)
	}
	return list, bad
}

// integer returns a value that is an integer of 0 or more.
func (s *scanner) integer(v value) (n int, ok bool) {
	n, err := strconv.Atoi(string(s.raw(v)))
	return n, err == nil && n >= 0
}

// AppendHello appends a hello command.
func AppendHello(dst []byte, h Hello) []byte { return appendHello(dst, TypeHello, h) }

// AppendReady appends a ready event.
func AppendReady(dst []byte, h Hello) []byte { return appendHello(dst, TypeReady, h) }

func appendHello(dst []byte, t Type, h Hello) []byte {
	dst = append(appendType(dst, t), `{"protocol":`...)
	dst = strconv.AppendInt(dst, int64(h.Protocol), 10)
	dst = appendStrings(append(dst, `,"features":`...), h.Features)
	dst = strconv.AppendInt(append(dst, `,"max_message":`...), int64(h.MaxMessage), 10)
	dst = appendOptional(dst, `,"token":`, h.Token)
	dst = appendOptional(dst, `,"policy":`, h.Policy)
	dst = appendOptional(dst, `,"secret":`, h.Secret)
	dst = appendCard(dst, h.Card)
	return append(dst, "}}\n"...)
}

// AppendSignaling appends a signaling event.
func AppendSignaling(dst []byte, s Signaling) []byte {
	dst = AppendString(append(appendType(dst, TypeSignaling), `{"state":`...), s.State)
	dst = appendOptional(dst, `,"peer_id":`, s.PeerID)
	dst = appendOptional(dst, `,"error":`, s.Error)
	dst = appendOptional(dst, `,"code":`, s.Code)
	return append(dst, "}}\n"...)
}

// AppendError appends an error event.
func AppendError(dst []byte, e ErrorEvent) []byte {
	dst = AppendString(append(appendType(dst, TypeError), `{"code":`...), string(e.Code))
	dst = AppendString(append(dst, `,"message":`...), e.Message)
	dst = appendOptional(dst, `,"command":`, e.Command)
	dst = appendOptional(dst, `,"target_peer":`, e.TargetPeer)
	dst = appendOptional(dst, `,"request_id":`, e.RequestID)
	return append(dst, "}}\n"...)
}
