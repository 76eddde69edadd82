package signal

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"
)

// Probe says that the connection is needed now, as it is while a link to a peer has no path: for the next 5 s a
// server that does not respond is found out, and dialled again, within 2 s. alive, if not nil, is called once the server
// has responded, unless another Probe or the end of the connection comes first. Probe does not block.
func (c *Client) Probe(alive func()) {
	c.mu.Lock()
	c.probed, c.alive = time.Now(), alive
	attempt := c.connect
	limit := c.connectLimitLocked()
	c.mu.Unlock()
	if attempt != nil && time.Since(attempt.began) > limit {
		attempt.giveUp()
	}
	select {
	case c.probes <- struct{}{}:
	default:
	}
}

// urgent reports whether there was a Probe a short while ago.
func (c *Client) urgent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.probed.IsZero() && time.Since(c.probed) < c.timing.urgent
}

// answered reports the response to a Probe.
func (c *Client) answered() {
	c.mu.Lock()
	alive := c.alive
	c.alive = nil
	c.mu.Unlock()
	if alive != nil {
		alive()
	}
}

// connectLimitLocked returns how long a connect may take after a Probe. The system repeats a lost packet of it later and
// later, so another try is the sooner way to a server that can be reached again; but where it has taken longer before, as
// with a name server that does not respond, it may again.
func (c *Client) connectLimitLocked() time.Duration { return max(c.timing.probe, 2*c.connected) }

// connect is how one request gets its connection.
type connect struct {
	began  time.Time
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	done bool // it has one
	raw  net.Conn
}

var errConnect = errors.New("no connection in time; trying again")

// connecting returns a context for one request, which ends early if the request has no connection in time after a Probe,
// and a function that must be called at the request's end.
func (c *Client) connecting(ctx context.Context) (context.Context, *connect, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	attempt := &connect{began: time.Now(), cancel: cancel}
	c.mu.Lock()
	c.connect = attempt
	limit := c.connectLimitLocked()
	c.mu.Unlock()
	timer := time.AfterFunc(limit, func() {
		if c.urgent() {
			attempt.giveUp()
		}
	})
	stop := func() {
		timer.Stop()
		cancel(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.connect == attempt {
			c.connect = nil
		}
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			if err == nil && attempt.finish(nil) {
				c.mu.Lock()
				c.connected = time.Since(attempt.began)
				c.mu.Unlock()
			}
		},
		GotConn: func(info httptrace.GotConnInfo) { attempt.finish(info.Conn) },
	}), attempt, stop
}

// finish notes that there is a connection, and reports whether that is new.
func (a *connect) finish(raw net.Conn) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first = !a.done
	a.done = true
	if raw != nil {
		a.raw = raw
	}
	return first
}

// giveUp ends the request unless it has a connection.
func (a *connect) giveUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.done {
		a.cancel(errConnect)
	}
}

// connectError returns why a request with a context of connecting failed.
func connectError(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errConnect) {
		return errConnect
	}
	return err
}

func (a *connect) conn() net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.raw
}

var errMoved = errors.New("connection lost: this host no longer has its address")

// moved reports whether a connection begins at an address that this host no longer has.
func moved(conn net.Conn) bool {
	if conn == nil {
		return false
	}
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	addrs, err := net.InterfaceAddrs()
	return ok && err == nil && !slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(local.IP)
	})
}

// reset has the system forget a connection on which nothing arrives, instead of closing it: what is left of it must not
// reach the server later, when the way there is whole again, and look like the end of a client.
func reset(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			_ = c.SetLinger(0)
			return
		case interface{ NetConn() net.Conn }: // TLS
			conn = c.NetConn()
		default:
			return
		}
	}
}
