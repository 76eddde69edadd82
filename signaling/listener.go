package signaling

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/rs/zerolog"
)

// spareDescriptors are left for the process when it may have few: log, certificate files, and so on.
const spareDescriptors = 64

// sockets returns how many TCP connections go with n WebSockets: some more, for other requests.
func sockets(n int) int { return n + n/4 + 8 }

// maxSockets returns how many TCP connections the process can have.
func maxSockets() int {
	n := descriptors()
	return n - min(spareDescriptors, n/2)
}

// Listener is a net.Listener that bounds the TCP connections of an http.Server: all of them, and those from one
// address. When there are too many, a new one takes the place of the one that has been without a request for
// longest, unless all are WebSockets; then it is closed at once. So idle connections shut nobody out.
//
// Make one with Server.Limit. It needs the http.Server's ConnState:
//
//	l := server.Limit(listener)
//	web := &http.Server{Handler: server, ConnState: l.ConnState, ReadHeaderTimeout: ..., IdleTimeout: ...}
//	err := web.Serve(l)
//
// An http.Server that serves more than signaling may have requests that take long. They, too, can be closed when there
// are too many connections.
type Listener struct {
	net.Listener
	maxAll, maxEach int // sockets
	exempt          func(netip.Addr) bool
	reports         *reports

	mu        sync.Mutex
	open      int
	closable  list.List // of *socket: the one to close first is in front; without WebSockets
	addresses map[netip.Prefix]*address
}

// address is what a Listener knows of the connections from one address. It is guarded by Listener.mu.
type address struct {
	open     int
	closable list.List // of *socket, as in Listener
}

// socket is one connection of a Listener. All but Conn is guarded by Listener.mu.
type socket struct {
	net.Conn
	listener *Listener
	source   netip.Prefix
	address  *address // nil if connections from there are not bounded
	closed   bool

	inAll, inAddress *list.Element // nil if not closable
}

// Limit returns a Listener that bounds the connections of l: a quarter and 8 more than Config.MaxConnections and
// Config.MaxPerAddress allow WebSockets, and never more than what leaves descriptors for the process. Connections from
// trusted proxies are not bounded per address.
func (s *Server) Limit(l net.Listener) *Listener {
	return &Listener{
		Listener:  l,
		maxAll:    min(sockets(s.cfg.MaxConnections), maxSockets()),
		maxEach:   sockets(s.cfg.MaxPerAddress),
		exempt:    func(a netip.Addr) bool { return !a.IsValid() || s.cfg.trusts(a) },
		reports:   s.reports,
		addresses: map[netip.Prefix]*address{},
	}
}

// Accept returns the next connection for which there is room.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := parseAddr(c.RemoteAddr().String())
		s := &socket{Conn: c, listener: l, source: source(addr)}
		out, ok := l.admit(s, l.exempt(addr))
		if out != nil {
			l.reports.at(zerolog.WarnLevel, out.source).Stringer("remote", out.RemoteAddr()).
				Msg("connection closed to make room for a new one: too many are open")
			_ = out.Close()
		}
		if ok {
			return s, nil
		}
		l.reports.at(zerolog.WarnLevel, s.source).Stringer("remote", c.RemoteAddr()).
			Msg("connection refused: too many are open")
		_ = c.Close()
	}
}

// admit adds s if there is room for it, or if there will be when out is closed.
func (l *Listener) admit(s *socket, exempt bool) (out *socket, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !exempt {
		s.address = l.addresses[s.source]
		if s.address == nil {
			s.address = &address{}
			l.addresses[s.source] = s.address
		}
	}
	switch {
	case s.address != nil && s.address.open >= l.maxEach:
		out = front(&s.address.closable)
	case l.open >= l.maxAll:
		out = front(&l.closable)
	default:
		ok = true
	}
	if out != nil {
		out.keepLocked()
		ok = true
	}
	if ok {
		l.open++
		if s.address != nil {
			s.address.open++
		}
	}
	l.forgetLocked(s)
	return out, ok
}

func front(l *list.List) *socket {
	if e := l.Front(); e != nil {
		return e.Value.(*socket)
	}
	return nil
}

// forgetLocked removes the address of s from the table if no connection is open from there.
func (l *Listener) forgetLocked(s *socket) {
	if s.address != nil && s.address.open == 0 {
		delete(l.addresses, s.source)
	}
}

// ConnState is for http.Server.ConnState: it tells the Listener which connections are WebSockets, and which of the others
// has been without a request for longest.
func (l *Listener) ConnState(c net.Conn, state http.ConnState) {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn }) // a tls.Conn
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	s, ok := c.(*socket)
	if !ok || s.listener != l {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew, http.StateActive:
		s.keepLocked()
		if !s.closed {
			s.closableLocked()
		}
	case http.StateHijacked:
		s.keepLocked()
	}
}

// closableLocked makes s the last to be closed.
func (s *socket) closableLocked() {
	s.inAll = s.listener.closable.PushBack(s)
	if s.address != nil {
		s.inAddress = s.address.closable.PushBack(s)
	}
}

// keepLocked makes s one that is not closed for another.
func (s *socket) keepLocked() {
	if s.inAll == nil {
		return
	}
	s.listener.closable.Remove(s.inAll)
	if s.address != nil {
		s.address.closable.Remove(s.inAddress)
	}
	s.inAll, s.inAddress = nil, nil
}

// Close closes the connection, which then does not count any more.
func (s *socket) Close() error {
	err := s.Conn.Close()
	l := s.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.closed {
		return err
	}
	s.closed = true
	s.keepLocked()
	l.open--
	if s.address != nil {
		s.address.open--
		l.forgetLocked(s)
	}
	return err
}

// CloseWrite lets net/http end a response to a request that it has not read to its end, without a reset.
func (s *socket) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
