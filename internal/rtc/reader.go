//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"io"

	"github.com/pion/sctp"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// maxHello bounds the first line of a stream in bytes, since nothing is known of the peer before it.
const maxHello = 64 << 10

// read is the reader goroutine, which also reports the link's end.
func (p *Peer) read() {
	var err error
	if p.stream {
		err = p.readStream()
	} else {
		err = p.readTexts()
	}
	p.down(err) // first: a Connect in PeerDisconnected must not find a link that is up
	p.end(err)
}

// readStream reads stream framing: lines, the first of which is hello.
func (p *Peer) readStream() error {
	r := newLineReader(p.dc, min(maxHello, p.cfg.Limits.MaxLine()), &p.lines)
	defer func() {
		for i := range p.lines {
			_ = p.lines[i].resize(0) // never fails
		}
	}()
	var line wire.PeerLine
	greeted := false
	for p.reading.wait() {
		b, err := r.ReadLine()
		p.out.pace.Heard()
		if err == nil {
			err = wire.ParsePeerLine(b, p.cfg.Limits, &line)
		} else if wire.BadLine(err) == nil {
			return p.endReason(err)
		}
		if greeted && err == nil && line.Kind == wire.PeerMoved {
			if err := p.follow(localMessages, r.whole()); err != nil {
				return p.endReason(err)
			}
		} else if greeted {
			p.deliver(&line, err)
		} else if err := p.greet(&line, err); err != nil {
			return err
		} else {
			greeted = true
			r.setMaxLine(p.cfg.Limits.MaxLine())
			p.admit()
		}
		r.shrink() // reading may be stopped
	}
	return fmt.Errorf("%w while reading was stopped", ErrPeerClosed)
}

// greet handles the first line of a stream.
func (p *Peer) greet(l *wire.PeerLine, err error) error {
	if err != nil {
		return fmt.Errorf("%w: its first line is not hello: %w", ErrViolation, err)
	}
	if l.Kind != wire.PeerHello {
		return fmt.Errorf("%w: its first line is not hello but %s", ErrViolation, l.Kind)
	}
	if l.Hello.MaxMessage > 0 {
		p.sendMax.Store(int64(min(l.Hello.MaxMessage, p.cfg.Limits.MaxMessage)))
	}
	if l.Hello.MaxStreams > 0 {
		p.streams.allow(min(l.Hello.MaxStreams, p.cfg.Limits.MaxStreams))
	}
	p.setPeerCard(l.Hello.Card)
	p.move.peerMark = l.Hello.Local
	p.lanes.Store(l.Hello.Lanes) // nothing has been sent yet that could be in the middle of a line
	return p.verify(&l.Hello)
}

// readTexts reads base framing: each data channel message is one mesh message.
func (p *Peer) readTexts() error {
	r := channelReader{dc: p.dc}
	var line wire.PeerLine
	for p.reading.wait() {
		b, _, err := r.next()
		if err != nil {
			return p.endReason(err)
		}
		p.announce() // a message implies the acknowledgement of the channel
		line = wire.PeerLine{Kind: wire.PeerMessage}
		p.deliver(&line, wire.ParseMessage(b, p.cfg.Limits, &line.Message))
	}
	return fmt.Errorf("%w while reading was stopped", ErrPeerClosed)
}

// deliver reports one line, or what was wrong with it.
func (p *Peer) deliver(l *wire.PeerLine, err error) {
	if err != nil {
		p.emit(func() { p.ev.PeerRejected(p, err) })
		return
	}
	switch l.Kind {
	case wire.PeerMessage, wire.PeerCancel, wire.PeerPause, wire.PeerResume:
		p.emit(func() { p.ev.PeerLine(p, l) })
	case wire.PeerCard:
		p.setPeerCard(l.Card)
		p.emit(func() { p.ev.PeerLine(p, l) })
	case wire.PeerDrain:
		if p.drains { // all before it was delivered
			p.out.setDrained(l.Number)
		}
	case wire.PeerDrained:
		p.out.heardDrained(l.Number)
		p.flushes.settle(l.Number)
	case wire.PeerLocal:
		p.localOffered(l.Local)
	case wire.PeerFollowed:
		p.peerFollowed()
	case wire.PeerStreams:
		if p.streams.able { // the other end asks for their channel
			p.wantStreams()
		}
	case wire.PeerMember:
		if err := p.renew(l.Member); err != nil {
			p.emit(func() { p.ev.PeerRejected(p, err) })
		}
	}
}

// endReason turns the error of a read into a reason.
func (p *Peer) endReason(err error) error {
	if errors.Is(err, ErrViolation) || errors.Is(err, ErrIdentity) || errors.Is(err, ErrDied) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, sctp.ErrUserInitiatedAbort) || errors.Is(err, sctp.ErrResetPacketInStateNotExist) {
		return ErrPeerClosed // whose text is all that there is to say
	}
	return fmt.Errorf("%w: %v", ErrPeerClosed, err) // its text alone: it may be one that has a meaning to callers, such as a timeout
}
