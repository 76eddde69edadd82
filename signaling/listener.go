package signaling

import (
	"container/heap"
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
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
// address. When there are too many, a new one takes the place of another one of the address that has the most, WebSockets
// apart: of one that is in no request, if there is any, and of the one whose last request is the longest ago. Where all
// are WebSockets it is closed at once. So neither idle connections nor many of them from a few addresses shut others out.
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
	outside         *logs.Outside

	mu        sync.Mutex
	open      int
	exempted  address // the connections that are not bounded per address
	addresses map[netip.Prefix]*address
	heaviest  byClosable // those in addresses
}

// address is what a Listener knows of the connections from one address. It is guarded by Listener.mu.
type address struct {
	open     int
	closable list.List // of *socket: that with the oldest request is in front; without WebSockets
	index    int       // in Listener.heaviest
}

// byClosable is a heap (container/heap), with the address that has the most closable connections in front.
type byClosable []*address

func (b byClosable) Len() int           { return len(b) }
func (b byClosable) Less(i, j int) bool { return b[i].closable.Len() > b[j].closable.Len() }
func (b byClosable) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

func (b *byClosable) Push(x any) {
	a := x.(*address)
	a.index = len(*b)
	*b = append(*b, a)
}

func (b *byClosable) Pop() any {
	last := len(*b) - 1
	a := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return a
}

// socket is one connection of a Listener. All but Conn is guarded by Listener.mu.
type socket struct {
	net.Conn
	listener *Listener
	source   netip.Prefix
	address  *address
	closed   bool
	active   bool          // in a request
	place    *list.Element // in address.closable; nil if not closable
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
		outside:   s.outside,
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
			l.outside.At(zerolog.WarnLevel, out.source).Stringer("remote", out.RemoteAddr()).
				Msg("connection closed to make room for a new one: too many are open")
			_ = out.Close()
		}
		if ok {
			return s, nil
		}
		l.outside.At(zerolog.WarnLevel, s.source).Stringer("remote", c.RemoteAddr()).
			Msg("connection refused: too many are open")
		_ = c.Close()
	}
}

// admit adds s if there is room for it, or if there will be when out is closed.
func (l *Listener) admit(s *socket, exempt bool) (out *socket, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.address = &l.exempted
	if !exempt {
		s.address = l.addresses[s.source]
		if s.address == nil {
			s.address = &address{}
			l.addresses[s.source] = s.address
			heap.Push(&l.heaviest, s.address)
		}
	}
	switch {
	case !exempt && s.address.open >= l.maxEach:
		out = s.address.first()
	case l.open >= l.maxAll:
		if len(l.heaviest) > 0 {
			out = l.heaviest[0].first()
		}
		if out == nil {
			out = l.exempted.first()
		}
	default:
		ok = true
	}
	if out != nil {
		out.keepLocked()
		ok = true
	}
	if ok {
		l.open++
		s.address.open++
	}
	l.forgetLocked(s)
	return out, ok
}

// first returns the connection to close first, nil if there is none.
func (a *address) first() *socket {
	for e := a.closable.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*socket); !s.active {
			return s
		}
	}
	if e := a.closable.Front(); e != nil {
		return e.Value.(*socket)
	}
	return nil
}

// forgetLocked removes the address of s from the table if no connection is open from there.
func (l *Listener) forgetLocked(s *socket) {
	if s.address != &l.exempted && s.address.open == 0 {
		delete(l.addresses, s.source)
		heap.Remove(&l.heaviest, s.address.index)
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
	s.active = state == http.StateActive
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
	s.place = s.address.closable.PushBack(s)
	s.weighLocked()
}

// weighLocked puts the address of s in its place among the others.
func (s *socket) weighLocked() {
	if l := s.listener; s.address != &l.exempted {
		heap.Fix(&l.heaviest, s.address.index)
	}
}

// keepLocked makes s one that is not closed for another.
func (s *socket) keepLocked() {
	if s.place == nil {
		return
	}
	s.address.closable.Remove(s.place)
	s.place = nil
	s.weighLocked()
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
	s.address.open--
	l.forgetLocked(s)
	return err
}

// CloseWrite lets net/http end a response to a request that it has not read to its end, without a reset.
func (s *socket) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
