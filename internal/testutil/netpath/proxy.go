//go:build !js

package netpath

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// readLimit bounds a message that passes a Proxy, in bytes.
const readLimit = 4 << 20

// A Proxy stands in front of a signaling server and passes on what agents and the server say to each other.
type Proxy struct {
	server   string // the WebSocket of the server
	up, down Pass
	http     http.Server
	addr     string
	work     sync.WaitGroup
}

// A Pass is what a proxy does with each message of one direction of a connection. Those of one direction come one at a time,
// in order.
type Pass func(*Conn, websocket.MessageType, []byte)

// A Conn is an agent's connection through a proxy. Its methods may be called concurrently; what they send after its end
// is lost.
type Conn struct {
	ctx           context.Context
	agent, server *websocket.Conn
}

// ToAgent sends the agent a message as if it came from the server. It blocks while the agent does not read.
func (c *Conn) ToAgent(typ websocket.MessageType, b []byte) { _ = c.agent.Write(c.ctx, typ, b) }

// ToServer sends the server a message as if it came from the agent.
func (c *Conn) ToServer(typ websocket.MessageType, b []byte) { _ = c.server.Write(c.ctx, typ, b) }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// NewProxy opens a proxy in front of the server with the given WebSocket, ws://host:port/.../ws. Up gets what agents say, and down
// what the server says; by default it is passed on.
func NewProxy(server string, up, down Pass) (*Proxy, error) {
	inner, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if up == nil {
		up = (*Conn).ToServer
	}
	if down == nil {
		down = (*Conn).ToAgent
	}
	p := &Proxy{server: server, up: up, down: down, addr: listener.Addr().String()}
	rest := &url.URL{Scheme: "http", Host: inner.Host, Path: strings.TrimSuffix(inner.Path, "/ws")}
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(rest) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { abort() },
	})
	mux.HandleFunc("/ws", p.serve)
	p.http.Handler = mux
	p.work.Go(func() { _ = p.http.Serve(listener) })
	return p, nil
}

// Addr returns the address and port at which the proxy is.
func (p *Proxy) Addr() string { return p.addr }

// URL returns the WebSocket of the proxy, for agents.
func (p *Proxy) URL() string { return "ws://" + p.addr + "/ws" }

// Close ends the proxy. The connections through it end with those to the server, which is to be closed before.
func (p *Proxy) Close() {
	_ = p.http.Close()
	p.work.Wait()
}

// serve passes on what an agent and the server say to each other, until one of them ends.
func (p *Proxy) serve(rw http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-API-Key", "Mesh-Register"} {
		if value := req.Header.Get(name); value != "" {
			header.Set(name, value)
		}
	}
	server, resp, err := websocket.Dial(ctx, p.server+"?"+req.URL.RawQuery, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		abort()
	}
	defer func() { _ = server.CloseNow() }()
	if welcome := resp.Header.Get("Mesh-Welcome"); welcome != "" {
		rw.Header().Set("Mesh-Welcome", welcome)
	}
	agent, err := websocket.Accept(rw, req, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = agent.CloseNow() }()
	c := &Conn{ctx, agent, server}
	p.work.Go(func() {
		defer cancel()
		c.pump(server, p.down)
	})
	c.pump(agent, p.up)
}

// abort ends a handler and its connection without a response: a server that is down gives none either.
func abort() { panic(http.ErrAbortHandler) }

// pump passes what comes from one of the two ends, until it ends.
func (c *Conn) pump(from *websocket.Conn, pass Pass) {
	from.SetReadLimit(readLimit)
	for {
		typ, b, err := from.Read(c.ctx)
		if err != nil {
			return
		}
		pass(c, typ, b)
	}
}
