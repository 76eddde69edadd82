package main

import (
	"context"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// linkBatch is what is written to the socket at a time.
const linkBatch = 64 << 10

// linkPipe sends lines of smallSize bytes over a Unix socket, many in one write.
// The codec writes each with AppendSend and reads it with ParseCommand; the
// baseline copies a finished line, and only checks what arrives.
type linkPipe struct {
	connPair
	batch []byte
	add   func(dst []byte) []byte
	check func(line []byte) error
	count *counter
}

func openLinkCodec(context.Context) (pipe, error) {
	_, msg, err := linkLine()
	if err != nil {
		return nil, err
	}
	var l wire.Line
	return openLink(
		func(dst []byte) []byte { return wire.AppendSend(dst, farID, msg) },
		func(line []byte) error { return wire.ParseCommand(line, wire.Limits{}, &l) })
}

func openRawLines(context.Context) (pipe, error) {
	line, _, err := linkLine()
	if err != nil {
		return nil, err
	}
	return openLink(
		func(dst []byte) []byte { return append(dst, line...) },
		func(line []byte) error { return wire.Check(line, wire.Limits{}) })
}

// linkLine returns a line of smallSize bytes, newline included, and the message
// in it.
func linkLine() (line, msg []byte, err error) {
	fields := wire.MessageFields{Type: "bench", RequestID: echoID, SourceAgent: nearID, TargetAgent: farID}
	envelope := len(wire.AppendSend(nil, farID, nil))
	msg, err = fullMessage(smallSize-envelope, fields)
	return wire.AppendSend(nil, farID, msg), msg, err
}

func openLink(add func([]byte) []byte, check func([]byte) error) (pipe, error) {
	pair, err := openUnix()
	if err != nil {
		return nil, err
	}
	p := &linkPipe{connPair: pair, batch: make([]byte, 0, linkBatch), add: add, check: check, count: newCounter()}
	go p.receive()
	return p, nil
}

// receive ends with the connection. A line that is not valid is missing in the
// count, so that the round fails.
func (p *linkPipe) receive() {
	r := wire.NewReader(p.far, wire.Limits{}.MaxLine())
	for {
		line, err := r.ReadLine()
		if err != nil {
			return
		}
		if p.check(line) == nil {
			p.count.add(1)
		}
	}
}

func (p *linkPipe) send(context.Context) error {
	p.batch = p.add(p.batch)
	if len(p.batch) > linkBatch-smallSize {
		return p.flush()
	}
	return nil
}

func (p *linkPipe) flush() error {
	_, err := p.near.Write(p.batch)
	p.batch = p.batch[:0]
	return err
}

func (p *linkPipe) arrived() *counter { return p.count }
