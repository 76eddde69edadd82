//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"io"

	"github.com/pion/sctp"

	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// maxHello bounds the first line of a stream in bytes, since nothing is known of the peer before it.
const maxHello = 64 << 10

// A reader reads what a peer sends, and reports the link's end. It is used by one goroutine at a time.
type reader struct {
	*Peer
	post  *relief.Post
	ended func() // called once, last

	from    *lineReader // in stream framing
	greeted bool        // the first line was read
	texts   channelReader
	line    wire.PeerLine
	bad     error // what is wrong with line
	kept    bool  // line is yet to be passed on
	failed  error // reading is over
}

func (p *Peer) newReader(w *relief.Watch, ended func()) *reader {
	r := &reader{Peer: p, ended: ended, texts: channelReader{dc: p.dc}}
	r.post = relief.NewPost(w, r.run)
	if p.stream {
		r.from = newLineReader(p.dc, min(maxHello, p.cfg.Limits.MaxLine()), &p.lines)
	}
	return r
}

// run reads until the link has ended, or another goroutine reads on.
func (r *reader) run() {
	err := fmt.Errorf("%w while reading was stopped", ErrPeerClosed)
	for r.reading.wait() {
		if r.failed == nil {
			r.failed = r.next()
		}
		if r.failed == wire.ErrLater { //nolint:errorlint // it is never wrapped
			r.failed = nil
			r.rest()
			continue
		}
		if r.failed != nil {
			err = r.failed
			break
		}
		r.share()
		if work := r.left; work != nil {
			r.left = nil
			if !r.post.Do(work) {
				return
			}
		}
	}
	if why := r.goneFor.Load(); why != nil {
		err = *why
	}
	for i := range r.lines {
		_ = r.lines[i].resize(0) // never fails
	}
	r.down(err) // first: a Connect in PeerDisconnected must not find a link that is up
	r.end(err)
	r.ended()
}

// next reads one line, or in base framing one message.
func (r *reader) next() error {
	if r.stream {
		return r.readLine()
	}
	return r.readText()
}

// readLine reads the next line of stream framing and passes it on.
func (r *reader) readLine() error {
	if !r.kept {
		if err := r.takeLine(); err != nil {
			return err
		}
	}
	r.kept = false
	return r.passLine()
}

// takeLine reads the next line.
func (r *reader) takeLine() error {
	b, err := r.from.ReadLine()
	if err == wire.ErrLater { //nolint:errorlint // it is never wrapped
		return err
	}
	r.out.pace.Heard()
	if err == nil {
		err = wire.ParsePeerLine(b, r.cfg.Limits, &r.line)
	} else if wire.BadLine(err) == nil {
		return r.endReason(err)
	}
	r.bad = err
	return nil
}

// passLine handles the line that was read. The first one is hello.
func (r *reader) passLine() error {
	err := r.bad
	if r.greeted && err == nil && r.line.Kind == wire.PeerMoved {
		if err := r.follow(localMessages, r.from.whole()); err != nil {
			return r.endReason(err)
		}
	} else if r.greeted {
		r.inline = !r.from.from.guest && r.idle()
		r.deliver(&r.line, err)
	} else if err := r.greet(&r.line, err); err != nil {
		return err
	} else {
		r.greeted = true
		r.from.setMaxLine(r.cfg.Limits.MaxLine())
		r.admit()
	}
	r.from.shrink() // reading may be stopped
	return nil
}

// idle reports whether messages come from a socket, of which nothing was read that has not been passed on.
func (r *reader) idle() bool { return r.move.inIdle() && r.from.whole() }

// Inline reports whether the reader can do what a line calls for, since no more have come. Only who handles Events.PeerLine may ask, and call
// Leave.
func (p *Peer) Inline() bool { return p.inline }

// Leave has the reader do work once Events.PeerLine has returned and no lock is held. Other lines wait, but not for long.
func (p *Peer) Leave(work func()) { p.left = work }

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
	p.move.meets(l.Hello.Local)
	p.lanes.Store(l.Hello.Lanes) // nothing has been sent yet that could be in the middle of a line
	return p.verify(&l.Hello)
}

// readText reads base framing: each data channel message is one mesh message.
func (r *reader) readText() error {
	b, _, err := r.texts.next()
	if err != nil {
		return r.endReason(err)
	}
	r.announce() // a message implies the acknowledgement of the channel
	r.line = wire.PeerLine{Kind: wire.PeerMessage}
	r.deliver(&r.line, wire.ParseMessage(b, r.cfg.Limits, &r.line.Message))
	return nil
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
