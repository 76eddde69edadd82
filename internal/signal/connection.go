package signal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/logs"
)

// connection is one WebSocket connection. Only run and what it calls in its own goroutine call the handler; the
// other goroutines only move bytes, and report to it by channels.
type connection struct {
	client  *Client
	ws      *websocket.Conn
	raw     net.Conn // below it; nil if unknown
	token   token
	handler Handler
	out     *Queue

	registered time.Time    // zero before the peer_list
	held       []Message    // received before it
	heldBytes  int          // what they cost
	heard      atomic.Int64 // messages read
}

// run connects, serves the connection to its end, and returns why it ended. Meanwhile it asks for the ICE
// servers.
func (cn *connection) run(parent context.Context) (up time.Duration, err error) {
	u, err := url.Parse(cn.client.cfg.URL)
	if err != nil {
		return 0, errors.New("URL: not a URL") // Config.Check says more
	}
	e := endpoint{url: u, noun: "WebSocket", suffix: "/ws"}
	ctx, fail := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	ice := make(chan []ICEServer, 1)
	fetchICE := func() {
		if cn.client.cfg.FetchICE {
			wg.Go(func() { cn.refreshICE(ctx, ice) })
		} else {
			ice <- nil
		}
	}
	direct := cn.token.key != ""
	if !direct {
		fetchICE()
	}
	if cn.ws, cn.raw, err = cn.client.dial(ctx, e, cn.token); err != nil {
		fail(nil)
		wg.Wait()
		return 0, err
	}
	if direct {
		if err := cn.welcome(ctx); err != nil {
			fail(nil)
			_ = cn.ws.CloseNow()
			return 0, fmt.Errorf("%v: %w", e, err)
		}
		fetchICE()
	}
	in := make(chan Message)
	var ends [4]error // of the reader, the writer, the pings and the probes
	for i, do := range []func() error{
		func() error { return cn.read(ctx, in) },
		func() error { return cn.write(ctx) },
		func() error { return cn.ping(ctx) },
		func() error { return cn.probe(ctx) },
	} {
		wg.Go(func() {
			ends[i] = do()
			fail(ends[i])
		})
	}
	cn.client.setOut(cn.token.PeerID, cn.out)
	err = cn.serve(ctx, in, ice)
	cn.client.setOut("", nil)
	fail(nil)
	_ = cn.ws.CloseNow()
	wg.Wait()
	err = reason(ends[0], err, ends[1], ends[2], ends[3])
	if !cn.registered.IsZero() {
		up = time.Since(cn.registered)
		cn.handler.Disconnected()
	}
	return up, fmt.Errorf("%v: %w", e, err)
}

// reason returns the first error that says more than that the connection was closed on this side, which is
// all that the goroutines get that did not close it. The reader's comes first: it has the server's own words.
func reason(ends ...error) error {
	for _, err := range ends {
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return ends[0]
}

// serve registers once the ICE servers are known, or timing.patience is over, and then passes on what it
// receives until the connection or ctx ends.
func (cn *connection) serve(ctx context.Context, in <-chan Message, ice <-chan []ICEServer) error {
	patience := time.After(cn.client.timing.patience)
	var timeout <-chan time.Time
	var messages <-chan Message // in, once registered
	for {
		register := false
		select {
		case m := <-messages:
			cn.dispatch(m)
		case servers := <-ice:
			if servers != nil {
				cn.handler.ICEServers(servers)
			}
			register = messages == nil
		case <-patience:
			register = messages == nil
		case <-timeout:
			if cn.registered.IsZero() {
				return fmt.Errorf("no peer_list within %v of registering", cn.client.timing.register)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if register {
			timeout, messages = time.After(cn.client.timing.register), in
			if cn.token.registered {
				continue
			}
			if err := cn.sendRegister(); err != nil {
				return err
			}
		}
	}
}

func (cn *connection) sendRegister() error {
	payload, err := json.Marshal(cn.client.registration())
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return cn.client.Send(Message{Type: Register, Payload: payload})
}

func (c *Client) registration() RegisterPayload {
	p := RegisterPayload{Left: true, IfFree: c.cfg.IfFree}
	if p.IfFree {
		p.Started = new(int64) // earlier than that of any instance that comes back
	} else if ms := c.cfg.Started.UnixMilli(); ms >= 0 { // the zero time is long before 1970
		p.Started = &ms
	}
	return p
}

func (cn *connection) read(ctx context.Context, in chan<- Message) error {
	for {
		b, err := cn.readOne(ctx)
		if err != nil {
			return err
		}
		cn.heard.Add(1)
		m, err := ParseMessage(b)
		if err != nil {
			cn.client.noise.Warn().Err(err).Int("bytes", len(b)).Msg("unreadable signaling message dropped")
			continue
		}
		select {
		case in <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readOne reads one message. Once begun, it has timing.message to arrive: meanwhile nothing else does, and a server
// that goes on with its pings looks alive.
func (cn *connection) readOne(parent context.Context) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	_, r, err := cn.ws.Reader(ctx)
	if err != nil {
		return nil, lost(err)
	}
	timeout := time.AfterFunc(cn.client.timing.message, func() {
		reset(cn.raw)
		cancel(fmt.Errorf("a message was not complete within %v", cn.client.timing.message))
	})
	defer timeout.Stop()
	b, err := io.ReadAll(r)
	if late := context.Cause(ctx); err != nil && late != nil && parent.Err() == nil {
		return nil, late
	}
	if err != nil {
		return nil, lost(err)
	}
	return b, nil
}

// closedError is a close frame in words.
type closedError struct{ websocket.CloseError }

func (e closedError) Error() string {
	text := fmt.Sprintf("closed by the server with code %d", e.Code)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

func (e closedError) Unwrap() error { return e.CloseError }

func lost(err error) error {
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		return closedError{ce}
	}
	return fmt.Errorf("connection lost: %w", err)
}

func (cn *connection) write(ctx context.Context) error {
	beat := time.NewTicker(cn.client.timing.heartbeat)
	defer beat.Stop()
	heartbeat, err := json.Marshal(Message{Type: Heartbeat, PeerID: cn.token.PeerID, Payload: json.RawMessage("{}")})
	if err != nil {
		return err
	}
	for {
		for b, ok := cn.out.Pop(); ok; b, ok = cn.out.Pop() {
			if err := cn.writeOne(ctx, b); err != nil {
				return err
			}
		}
		select {
		case <-cn.out.Ready():
		case <-beat.C:
			cn.out.Push(heartbeat) // a full queue shows that the sender is alive, too
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (cn *connection) writeOne(ctx context.Context, b []byte) error {
	ctx, stop := cn.within(ctx, cn.client.timing.write)
	defer stop()
	err := cn.ws.Write(ctx, websocket.MessageText, b)
	if errors.Is(context.Cause(ctx), errSilent) {
		return fmt.Errorf("sending took over %v: %w", cn.client.timing.write, errSilent)
	}
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// refreshICE sends the ICE servers that came with the token, or asks for them, and asks again before
// credentials expire. After a failure it tries again, without dropping the connection; if the first try fails
// it sends nil.
func (cn *connection) refreshICE(ctx context.Context, ice chan<- []ICEServer) {
	for first := true; ; first = false {
		servers, wait, err := cn.iceServers(ctx, first)
		if err != nil && ctx.Err() == nil {
			cn.client.cfg.Log.Warn().Err(err).Msg("cannot get ICE servers from the signaling server")
		}
		if err == nil || first {
			select {
			case ice <- servers:
			case <-ctx.Done():
				return
			}
		}
		if wait <= 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (cn *connection) iceServers(ctx context.Context, first bool) (servers []ICEServer, refresh time.Duration, err error) {
	if first && cn.token.ice != nil {
		return cn.client.readICE("token exchange", cn.token.ice)
	}
	return cn.client.fetchICE(ctx, cn.token)
}

// dispatch passes one message to the handler, or logs why it is dropped.
func (cn *connection) dispatch(m Message) {
	if err := cn.accept(m); err != nil {
		cn.client.noise.Warn().Err(err).Str("type", logs.Cut(m.Type)).Msg("signaling message dropped")
	}
}

func (cn *connection) accept(m Message) error {
	switch m.Type {
	case PeerList:
		l, err := decodePeers(m.Payload, cn.token.PeerID)
		if err != nil {
			return err
		}
		cn.register(l)
		return nil
	case ErrorType, Left:
	case Offer, Answer, Candidate:
		if m.PeerID == "" || m.PeerID == cn.token.PeerID {
			return errors.New("peer_id: not another peer")
		}
		if m.TargetID != "" && m.TargetID != cn.token.PeerID {
			return errors.New("target_id: not this peer")
		}
	default:
		return errors.New("type: unknown")
	}
	if !cn.registered.IsZero() {
		cn.handler.Receive(m)
		return nil
	}
	// A server may relay messages before it sends the peer_list. The handler learns its own id from
	// Registered, so they are held until then.
	cost := holdCost + len(m.Payload)
	if cn.heldBytes+cost > holdLimit {
		return errors.New("too many messages before the peer_list")
	}
	m.Payload = bytes.Clone(m.Payload) // what was read may have been larger
	cn.held = append(cn.held, m)
	cn.heldBytes += cost
	return nil
}

// register handles a peer_list, usually the only one.
func (cn *connection) register(l PeersPayload) {
	if cn.registered.IsZero() {
		cn.registered = time.Now()
		cn.client.joined, cn.client.inUse = true, time.Time{}
		cn.client.cfg.Log.Info().Str("peer_id", cn.token.PeerID).Int("peers", len(l.Peers)).Msg("registered with the signaling server")
		cn.client.status(cn.handler, Status{State: Connected, PeerID: cn.token.PeerID})
	}
	cn.handler.Registered(cn.token.PeerID, l)
	held := cn.held
	cn.held, cn.heldBytes = nil, 0
	for _, m := range held {
		cn.handler.Receive(m)
	}
}

// decodePeers returns a peer_list's payload, with the ids sorted, without self, empty ids and duplicates.
func decodePeers(payload json.RawMessage, self string) (PeersPayload, error) {
	var p PeersPayload
	if err := Decode(payload, &p); err != nil {
		return PeersPayload{}, fmt.Errorf("payload: %w", err)
	}
	slices.Sort(p.Peers)
	p.Peers = slices.DeleteFunc(slices.Compact(p.Peers), func(id string) bool { return id == "" || id == self })
	return p, nil
}
