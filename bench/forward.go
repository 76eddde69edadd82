package main

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A forwarder takes one send line and makes of it what goes to the peer.
type forwarder interface {
	forward(line []byte) error
}

// codecForwarder is the way of a sidecar: one scan, and the message's own bytes.
type codecForwarder struct {
	line wire.Line
	out  []byte
}

func (f *codecForwarder) forward(line []byte) error {
	if err := wire.ParseCommand(line, wire.Limits{}, &f.line); err != nil {
		return err
	}
	f.out = wire.AppendPeerMessage(f.out[:0], f.line.Message.Raw)
	return nil
}

// jsonForwarder is the way of encoding/json: a struct is decoded, in one go and
// with the payload left as it is, and its message is encoded.
type jsonForwarder struct {
	out bytes.Buffer
	enc *json.Encoder
}

type sendLine struct {
	Type    string `json:"type"`
	Payload struct {
		TargetPeer string      `json:"target_peer"`
		Message    jsonMessage `json:"message"`
	} `json:"payload"`
}

type jsonMessage struct {
	Type        string          `json:"type"`
	RequestID   string          `json:"request_id,omitempty"`
	SourceAgent string          `json:"source_agent,omitempty"`
	TargetAgent string          `json:"target_agent,omitempty"`
	Payload     json.RawMessage `json:"payload,omitempty"`
}

func (f *jsonForwarder) forward(line []byte) error {
	var l sendLine
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	f.out.Reset()
	return f.enc.Encode(&l.Payload.Message)
}

func newJSONForwarder() *jsonForwarder {
	f := &jsonForwarder{}
	f.enc = json.NewEncoder(&f.out)
	f.enc.SetEscapeHTML(false)
	return f
}

// forwarding measures the time of one forward, and its allocations.
type forwarding struct {
	forwarder
	name string
	span time.Duration
	line []byte
}

// newForward is a side that gives "<name>_ns" and "<name>_allocs".
func newForward(o options, name string, f forwarder) side {
	return side{[]string{name + "_ns", name + "_allocs"}, &forwarding{forwarder: f, name: name, span: o.span() / 4}}
}

// setup makes the line: a request of smallSize bytes.
func (f *forwarding) setup(context.Context) error {
	msg, err := fullMessage(smallSize, wire.MessageFields{
		Type: "task_request", RequestID: "a1b2c3d4e5f6", SourceAgent: "agent-001", TargetAgent: "agent-002"})
	if err != nil {
		return err
	}
	f.line = bytes.TrimSuffix(wire.AppendSend(nil, "peer-abc", msg), []byte("\n"))
	return f.forward(f.line)
}

func (f *forwarding) round(context.Context) (reading, error) {
	const batch = 200
	n, start := 0, time.Now()
	for time.Since(start) < f.span {
		for range batch {
			_ = f.forward(f.line) // setup has seen that there is no error
		}
		n += batch
	}
	elapsed := time.Since(start)
	allocs := testing.AllocsPerRun(1000, func() { _ = f.forward(f.line) })
	return reading{f.name + "_ns": float64(elapsed.Nanoseconds()) / float64(n), f.name + "_allocs": allocs}, nil
}

func (f *forwarding) close() {}
