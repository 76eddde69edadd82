//go:build !js

package rtc

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// The part of a session whose link goes over a socket of the host. But for what is said otherwise the methods run in the loop.

// onHost is what a session knows of that.
type onHost struct {
	proposing   bool        // the other end is asked to connect
	ticket      *ticket     // of the end that has made the offer
	where       *wire.Local // the door of the other end, once this end has connected to it
	streams     bool        // streams are wanted
	streamsMade bool        // they have a data channel
	moved       atomic.Bool // nothing depends on WebRTC any more
	left        bool        // the connection is closed, or about to be
}

// leaveTime is how long the end that has not made the offer leaves it to the other one to close the PeerConnection.
const leaveTime = 3 * time.Second

// propose offers the peer, which is on this host, a socket to meet at.
func (s *session) propose() {
	s.onHost.proposing = true
	streams := s.onHost.streamsMade
	s.peer.move.expect(streams)
	s.n.wg.Go(func() { // it makes a directory
		t, where, err := s.n.door.issue(s.peer.binding, s.come)
		s.n.box.post(func() {
			switch {
			case err != nil:
				s.debug().Err(err).Msg("no socket for a peer on this host")
				s.notOnHost()
			case !s.sl.has(s), !s.onHost.proposing:
				s.n.door.revoke(t)
			default:
				where.Streams = streams
				s.onHost.ticket = t
				s.peer.out.addLocal(wire.AppendPeerLocal(nil, where))
				s.after(2*localPatience, s.notOnHost)
			}
		})
	})
}

// notOnHost ends the attempt, unless it has succeeded.
func (s *session) notOnHost() {
	h := &s.onHost
	if !h.proposing || !s.peer.move.giveUp() {
		return
	}
	h.proposing = false
	s.revoke()
	if h.streams {
		s.makeStreams()
	}
}

// revoke ends the ticket, if there is one. It may be called from any goroutine that has the session for itself.
func (s *session) revoke() {
	if s.onHost.ticket != nil {
		s.n.door.revoke(s.onHost.ticket)
		s.onHost.ticket = nil
	}
}

// come takes a connection of the peer's. The door's goroutine calls it.
func (s *session) come(purpose byte, conn net.Conn, welcome func()) bool {
	if !s.take(purpose, conn, welcome) {
		return false
	}
	if purpose == localMessages {
		s.post(func() {
			s.onHost.proposing = false
			if s.onHost.streams {
				s.streamsOnHost()
			}
		})
	}
	return true
}

// take has the link use a connection, and reports whether it still can; if not, the connection is the caller's. It may be called from any
// goroutine.
func (s *session) take(purpose byte, conn net.Conn, welcome func()) bool {
	if !s.peer.move.take(purpose, newLocalChannel(conn), welcome, s.pump) {
		return false
	}
	notify(s.peer.out.wake)
	return true
}

func (s *session) pump(c *localChannel) { s.n.wg.Go(c.pump) }

// visit connects to the socket that the peer has named. The reader calls it.
func (s *session) visit(where *wire.Local) {
	s.peer.move.expect(where.Streams)
	s.whileUp(func(ctx context.Context) {
		if err := s.meet(ctx, where); err != nil {
			s.debug().Err(err).Msg("no way to a peer on this host")
			s.peer.out.addLocal(wire.AppendPeerLocal(nil, nil))
		}
	})
}

// meet makes the connections that a move takes. The last one, for messages, decides.
func (s *session) meet(ctx context.Context, where *wire.Local) error {
	purposes := []byte{localMessages}
	if s.peer.streams.able {
		purposes = []byte{localStreams, localMessages}
	}
	var conns []net.Conn
	for _, purpose := range purposes {
		conn, err := visit(ctx, s.peer.binding, where, purpose)
		if err != nil {
			closeAll(conns)
			return err
		}
		conns = append(conns, conn)
	}
	for i, purpose := range purposes {
		if !s.take(purpose, conns[i], func() {}) {
			closeAll(conns[i:])
			return nil // the link has ended, and with it those that were taken
		}
	}
	s.post(func() {
		s.onHost.where = where
		if s.peer.streams.begun() {
			s.streamsOnHost()
		}
	})
	return nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// whileUp has f run in a goroutine, under a context that ends with the link.
func (s *session) whileUp(f func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	s.n.wg.Go(func() {
		defer cancel()
		f(ctx)
	})
	s.n.wg.Go(func() {
		defer cancel()
		select {
		case <-s.peer.done:
		case <-ctx.Done():
		}
	})
}

// askForStreams has the channel for streams made, at the end that did not make the offer.
func (s *session) askForStreams() {
	if s.peer.move.decided.Load() {
		s.streamsOnHost()
		return
	}
	s.peer.out.setStreams() // or meet comes to it
}

// streamsOnHost has streams begin on the socket that was kept for them, and the other end do the same; unless they have a data channel, with
// which they move.
func (s *session) streamsOnHost() {
	c := s.peer.move.kept(s.pump)
	if c == nil {
		return
	}
	s.peer.out.setStreams()
	s.startStreams(c)
}

// settle is called when nothing depends on the PeerConnection any more.
func (s *session) settle() {
	if s.onHost.moved.Load() {
		return
	}
	s.debug().Dur("after", time.Since(s.upAt)).Msg("link goes over a socket of this host")
	s.onHost.moved.Store(true)
	s.stopTimers()
	s.recovering, s.doubtful = false, false
	s.pathChanged()
	if s.offerer { // the other end hears of it
		s.leaveWebRTC()
	} else { // unless that is lost
		s.after(leaveTime, s.leaveWebRTC)
	}
}

// leaveWebRTC closes the PeerConnection of a link that goes on without it.
func (s *session) leaveWebRTC() {
	if !s.onHost.left {
		s.n.closeSession(s)
	}
}
