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
	proposing bool        // the other end is asked to connect
	ticket    *ticket     // of the end that has made the offer
	where     *wire.Local // that the other end was told
	streams   bool        // streams are wanted
	dialling  bool        // for streams
	failures  int         // of that
	moved     atomic.Bool // nothing depends on WebRTC any more
	left      bool        // the connection is closed, or about to be
}

// localTries is how often a connection for streams is tried.
const localTries = 3

// propose offers the peer, which is on this host, a socket to meet at.
func (s *session) propose() {
	if s.peer.streams.begun() { // streams would keep the data channel
		return
	}
	s.onHost.proposing = true
	s.n.wg.Go(func() { // it makes a directory
		t, where, err := s.n.door.issue(s.come)
		s.n.box.post(func() {
			switch {
			case err != nil:
				s.log.Debug().Err(err).Msg("no socket for a peer on this host")
				s.notOnHost()
			case !s.sl.has(s):
				s.n.door.revoke(t)
			default:
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
	if !h.proposing || s.peer.move.wanted.Load() {
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
func (s *session) come(purpose byte, conn net.Conn) {
	if purpose == localStreams {
		s.streamsOnHost(conn)
		return
	}
	if s.moveTo(conn) {
		s.post(func() {
			s.onHost.proposing = false
			if s.onHost.streams {
				s.peer.out.setStreams()
			}
		})
	}
}

// visit connects to the socket that the peer has named. The reader calls it.
func (s *session) visit(where *wire.Local) {
	s.n.wg.Go(func() {
		conn, err := visit(context.Background(), where, localMessages)
		if err != nil {
			s.log.Debug().Err(err).Msg("no way to a peer on this host")
			s.peer.out.addLocal(wire.AppendPeerLocal(nil, nil))
			return
		}
		if s.moveTo(conn) {
			s.post(func() {
				s.onHost.where = where
				if s.peer.streams.begun() {
					s.visitForStreams()
				}
			})
		}
	})
}

// moveTo has the link go over a connection, and reports whether it can. It may be called from any goroutine.
func (s *session) moveTo(conn net.Conn) bool {
	c := newLocalChannel(conn)
	if !s.peer.move.to(c, func() { s.n.wg.Go(c.pump) }) {
		c.close()
		return false
	}
	notify(s.peer.out.wake)
	return true
}

// askForStreams has the channel for streams made, at the end that did not make the offer.
func (s *session) askForStreams() {
	if s.onHost.where != nil {
		s.visitForStreams()
		return
	}
	s.peer.out.setStreams() // or visit comes to it
}

// visitForStreams connects to the socket once more.
func (s *session) visitForStreams() {
	h := &s.onHost
	if h.dialling || s.peer.streams.channelOrNil() != nil {
		return
	}
	h.dialling = true
	s.n.wg.Go(func() {
		conn, err := visit(context.Background(), h.where, localStreams)
		if err == nil {
			s.streamsOnHost(conn)
			return
		}
		s.post(func() {
			if h.failures++; h.failures == localTries {
				s.n.lost(s, localErrorf("connect to a peer on this host for streams: %w", err))
				return
			}
			s.after(localPatience, func() {
				h.dialling = false
				s.visitForStreams()
			})
		})
	})
}

// streamsOnHost has streams go over a connection. It may be called from any goroutine.
func (s *session) streamsOnHost(conn net.Conn) {
	c := newLocalChannel(conn)
	if !s.peer.move.also(c, func() { s.n.wg.Go(c.pump) }) {
		c.close()
		return
	}
	if err := s.peer.startStreams(c, s.offerer); err != nil {
		s.post(func() { s.n.lost(s, err) })
	}
}

// settle is called when nothing depends on the PeerConnection any more.
func (s *session) settle() {
	s.log.Debug().Dur("after", time.Since(s.upAt)).Msg("link goes over a socket of this host")
	s.onHost.moved.Store(true)
	s.stopTimers()
	s.recovering, s.doubtful = false, false
	s.pathChanged()
	if s.offerer { // the other end hears of it
		s.leaveWebRTC()
	}
}

// leaveWebRTC closes the PeerConnection of a link that goes on without it.
func (s *session) leaveWebRTC() {
	if !s.onHost.left {
		s.n.closeSession(s)
	}
}
