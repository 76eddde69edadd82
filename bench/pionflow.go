package main

import (
	"context"
	"errors"

	"github.com/pion/datachannel"
)

// How much the channel may hold that the far side has not acknowledged, and
// when the sender goes on. With small messages this is about three times as fast
// as pion's blocking write, since SCTP can put several into one packet; with
// large ones there is no difference, nor between these values and others near.
const (
	pionBufferedHigh = 512 << 10
	pionBufferedLow  = 256 << 10
)

// pionPipe sends messages, each of them one data channel message.
type pionPipe struct {
	pair  *pionPair
	dc    *datachannel.DataChannel
	msg   []byte
	low   chan struct{}
	count *counter
}

func openPionPipe(size int, kind pionKind) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) {
		pair, err := openPionPair(ctx, kind)
		if err != nil {
			return nil, err
		}
		return newPionPipe(pair, size), nil
	}
}

func newPionPipe(pair *pionPair, size int) *pionPipe {
	p := &pionPipe{pair: pair, dc: pair.near, msg: make([]byte, size), low: make(chan struct{}, 1), count: newCounter()}
	p.watchBuffer()
	go p.receive()
	return p
}

// watchBuffer has send go on once the buffer has room.
func (p *pionPipe) watchBuffer() {
	p.dc.SetBufferedAmountLowThreshold(pionBufferedLow)
	p.dc.OnBufferedAmountLow(func() {
		select {
		case p.low <- struct{}{}:
		default:
		}
	})
}

// receive ends with the link.
func (p *pionPipe) receive() {
	b := make([]byte, pionMaxMessage)
	for {
		if _, err := p.pair.far.Read(b); err != nil {
			return
		}
		p.count.add(1)
	}
}

func (p *pionPipe) send(ctx context.Context) error {
	for p.dc.BufferedAmount() > pionBufferedHigh {
		select {
		case <-p.low:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	_, err := p.dc.Write(p.msg)
	return err
}

func (p *pionPipe) flush() error      { return nil }
func (p *pionPipe) arrived() *counter { return p.count }
func (p *pionPipe) close()            { p.pair.close() }

// pionEcho sends a message that the far side sends back.
type pionEcho struct {
	pair *pionPair
	msg  []byte
	buf  []byte
}

func openPionEcho(ctx context.Context) (echoer, error) {
	pair, err := openPionPair(ctx, pionKind{shared: true})
	if err != nil {
		return nil, err
	}
	go pionReturn(pair.far)
	return &pionEcho{pair: pair, msg: make([]byte, smallSize), buf: make([]byte, pionMaxMessage)}, nil
}

// pionReturn ends with the link.
func pionReturn(dc *datachannel.DataChannel) {
	b := make([]byte, pionMaxMessage)
	for {
		n, err := dc.Read(b)
		if err != nil {
			return
		}
		if _, err := dc.Write(b[:n]); err != nil {
			return
		}
	}
}

func (e *pionEcho) echo(context.Context) error {
	if _, err := e.pair.near.Write(e.msg); err != nil {
		return err
	}
	n, err := e.pair.near.Read(e.buf)
	if err == nil && n != len(e.msg) {
		err = errors.New("the echo is not what was sent")
	}
	return err
}

func (e *pionEcho) close() { e.pair.close() }
