package mesh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A Message is what agents send each other: a type, by which the receiver picks
// its handler, and a payload.
type Message struct {
	// Type is required. By convention a request is named x_request and its
	// response x_response.
	Type string
	// RequestID ties a response to its request. Leave it empty: Request draws
	// one, and responses repeat it.
	RequestID string
	// SourceAgent and TargetAgent name agents by whatever names the application
	// has for them. Nothing routes by them, and a peer can write what it likes.
	SourceAgent, TargetAgent string
	// Meta is data about the message, such as a trace context: names and values, which
	// agents of other kinds leave alone. nil if there is none. The receiver's is its own
	// copy.
	Meta map[string]string
	// Payload, when sent, is encoded as by encoding/json (so json.RawMessage is
	// sent as it is; nil means no payload). In a message received it is a
	// json.RawMessage: see Decode.
	Payload any

	// From is the peer that sent the message, as its sidecar was authenticated
	// to the signaling server. Set in messages received; ignored when sending.
	From string
	// Raw is the whole message as received, unknown fields included. Ignored
	// when sending.
	Raw json.RawMessage

	mesh    *Mesh
	timeout time.Duration // of a request: how long its asker waits; 0 if not told
}

// Mesh returns the mesh on which the message was received, for handlers that
// send something themselves: they may run before New has returned. It is nil for
// a message that was not received.
func (m *Message) Mesh() *Mesh { return m.mesh }

// Decode unmarshals the payload of a received message into v, as by
// json.Unmarshal.
func (m *Message) Decode(v any) error {
	raw, err := payload(m.Payload)
	if err != nil {
		return err
	}
	if raw == nil {
		raw = []byte("null")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("mesh: payload of %s from %q: %w", m.Type, m.From, err)
	}
	return nil
}

// payload encodes a payload; nil means none.
func payload(v any) (json.RawMessage, error) {
	switch p := v.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		return p, nil // checked with the whole message
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: payload: %w", ErrInvalid, err)
	}
	return raw, nil
}

// maxKept is the size of the largest buffer kept for the next message, in bytes.
// It may be this large because the pool drops buffers that are not used.
const maxKept = 4 << 20

// encode returns the message's bytes, checked against the limits exactly as
// the sidecar will check them, so that what cannot be sent fails here. It uses
// buf, and leaves in it a buffer that had to grow, up to maxKept bytes.
func (m *Message) encode(buf *[]byte, limits wire.Limits) ([]byte, error) {
	if m.Type == "" {
		return nil, fmt.Errorf("%w: Message.Type is empty", ErrInvalid)
	}
	raw, err := payload(m.Payload)
	if err != nil {
		return nil, err
	}
	b := wire.AppendMessageFields((*buf)[:0], wire.MessageFields{
		Type: m.Type, RequestID: m.RequestID, SourceAgent: m.SourceAgent, TargetAgent: m.TargetAgent, Payload: raw,
		Meta: m.Meta, Timeout: m.timeout,
	})
	var parsed wire.Message
	if err := wire.ParseMessage(b, limits, &parsed); err != nil {
		return nil, codecError(err)
	}
	if len(parsed.Payload) != len(bytes.TrimSpace(raw)) {
		return nil, fmt.Errorf("%w: payload: more than one JSON value", ErrInvalid)
	}
	if cap(b) <= maxKept {
		*buf = b
	}
	return b, nil
}

// received returns the Message of a parsed one, whose bytes it keeps.
func (m *Mesh) received(from, typ, id string, p *wire.Message) *Message {
	msg := &Message{
		mesh: m,
		Type: typ, RequestID: id,
		SourceAgent: string(p.SourceAgent), TargetAgent: string(p.TargetAgent),
		From: from, Raw: p.Raw, Meta: wire.DecodeMeta(p.Meta), timeout: p.Timeout,
	}
	if p.Payload != nil {
		msg.Payload = json.RawMessage(p.Payload)
	}
	return msg
}

// metaCost is about what an entry of Meta takes besides its bytes.
const metaCost = 64

// cost returns about how many bytes of memory a message received takes: its bytes, its
// strings, and what memory is rounded up by.
func (m *Message) cost() int {
	n := len(m.Meta) * metaCost
	for name, value := range m.Meta {
		n += len(name) + len(value)
	}
	n += len(m.Raw) + len(m.Type) + len(m.RequestID) + len(m.SourceAgent) + len(m.TargetAgent)
	return n + n/4
}
