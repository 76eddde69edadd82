package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"
)

// connectTimeout bounds the making of any connection.
const connectTimeout = 20 * time.Second

// A pionLink is two connected PeerConnections with one open, detached data
// channel.
type pionLink struct {
	nearPC, farPC *webrtc.PeerConnection
	near, far     *datachannel.DataChannel
}

// connectPion returns once both ends are open. Signaling is function calls, and
// candidates trickle.
func connectPion(ctx context.Context, a, b *pionEnd) (_ *pionLink, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("bare pion did not connect"))
	defer cancel()
	l := &pionLink{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.nearPC, err = a.connection(); err != nil {
		return nil, err
	}
	if l.farPC, err = b.connection(); err != nil {
		return nil, err
	}
	opened := make(chan error, 2)
	l.farPC.OnDataChannel(func(dc *webrtc.DataChannel) { onOpen(dc, &l.far, opened) })
	dc, err := l.nearPC.CreateDataChannel("mesh", nil)
	if err != nil {
		return nil, err
	}
	onOpen(dc, &l.near, opened)
	if err := negotiate(l.nearPC, l.farPC); err != nil {
		return nil, err
	}
	for range 2 {
		select {
		case err := <-opened:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return l, nil
}

// onOpen detaches the channel, which is allowed only when it opens.
func onOpen(dc *webrtc.DataChannel, to **datachannel.DataChannel, opened chan<- error) {
	dc.OnOpen(func() {
		raw, err := dc.Detach()
		if err == nil {
			*to, _ = raw.(*datachannel.DataChannel)
		}
		opened <- err
	})
}

// negotiate exchanges offer, answer and candidates. Each end has the other's
// description before it hears of the other's candidates.
func negotiate(near, far *webrtc.PeerConnection) error {
	near.OnICECandidate(candidatesTo(far))
	far.OnICECandidate(candidatesTo(near))
	offer, err := near.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := far.SetRemoteDescription(offer); err != nil {
		return err
	}
	if err := near.SetLocalDescription(offer); err != nil {
		return err
	}
	answer, err := far.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if err := near.SetRemoteDescription(answer); err != nil {
		return err
	}
	return far.SetLocalDescription(answer)
}

func candidatesTo(pc *webrtc.PeerConnection) func(*webrtc.ICECandidate) {
	return func(c *webrtc.ICECandidate) {
		if c != nil {
			_ = pc.AddICECandidate(c.ToJSON()) // a lost one shows as a connection that does not come up
		}
	}
}

func (l *pionLink) close() {
	var wg sync.WaitGroup
	for _, pc := range []*webrtc.PeerConnection{l.nearPC, l.farPC} {
		if pc != nil {
			wg.Go(func() { _ = pc.Close() })
		}
	}
	wg.Wait()
}

// A pionPair is a link with ends of its own.
type pionPair struct {
	ends [2]*pionEnd
	*pionLink
}

// openPionPair makes a link between two ends of the kind.
func openPionPair(ctx context.Context, kind pionKind) (*pionPair, error) {
	p := &pionPair{}
	for i := range p.ends {
		end, err := newPionEnd(kind)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("bare pion: %w", err)
		}
		p.ends[i] = end
	}
	link, err := connectPion(ctx, p.ends[0], p.ends[1])
	if err != nil {
		p.close()
		return nil, err
	}
	p.pionLink = link
	return p, nil
}

func (p *pionPair) close() {
	if p.pionLink != nil {
		p.pionLink.close()
	}
	for _, end := range p.ends {
		if end != nil {
			end.close()
		}
	}
}
