package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
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
func connectPion(ctx context.Context, a, b *pionEnd) (*pionLink, error) {
	return connectPionBy(ctx, a, b, func(_ int, candidate string) (string, bool) { return candidate, true })
}

// connectPionBy is connectPion with candidates of end i as lead changes them; those for which it is false are left out.
func connectPionBy(ctx context.Context, a, b *pionEnd, lead func(i int, candidate string) (string, bool)) (_ *pionLink, err error) {
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
	if err := negotiate(l.nearPC, l.farPC, lead); err != nil {
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

// awaitOpen blocks until onOpen has said that the data channel is open.
func awaitOpen(opened <-chan error) error {
	select {
	case err := <-opened:
		return err
	case <-time.After(connectTimeout):
		return errors.New("bare pion did not connect")
	}
}

// negotiate exchanges offer, answer and candidates. Each end has the other's
// description before it hears of the other's candidates.
func negotiate(near, far *webrtc.PeerConnection, lead func(int, string) (string, bool)) error {
	near.OnICECandidate(candidatesTo(far, 0, lead))
	far.OnICECandidate(candidatesTo(near, 1, lead))
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

func candidatesTo(pc *webrtc.PeerConnection, from int, lead func(int, string) (string, bool)) func(*webrtc.ICECandidate) {
	return func(c *webrtc.ICECandidate) {
		if c == nil {
			return
		}
		init := c.ToJSON()
		text, ok := lead(from, init.Candidate)
		if !ok {
			return
		}
		init.Candidate = text
		_ = pc.AddICECandidate(init) // a lost one shows as a connection that does not come up
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
	return openPionPairBy(ctx, kind, func(_ int, candidate string) (string, bool) { return candidate, true })
}

// openPionPairOver is openPionPair over a path.
func openPionPairOver(ctx context.Context, kind pionKind, path *netpath.Path) (*pionPair, error) {
	return openPionPairBy(ctx, kind, func(i int, candidate string) (string, bool) { return path.Candidate(i, candidate) })
}

func openPionPairBy(ctx context.Context, kind pionKind, lead func(int, string) (string, bool)) (*pionPair, error) {
	p := &pionPair{}
	for i := range p.ends {
		end, err := newPionEnd(kind)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("bare pion: %w", err)
		}
		p.ends[i] = end
	}
	link, err := connectPionBy(ctx, p.ends[0], p.ends[1], lead)
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
