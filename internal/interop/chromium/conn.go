package chromium

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const (
	readLimit    = 256 << 20 // screenshots, and values of Eval
	writeTimeout = 30 * time.Second
	maxErrors    = 100 // kept for one page
)

type object map[string]any

// conn is the DevTools connection, shared by all pages ("flat" sessions).
type conn struct {
	ws     *websocket.Conn
	cancel context.CancelFunc
	done   chan struct{} // closed when the reader has ended
	err    error         // why, once done is closed

	mu      sync.Mutex
	last    int
	calls   map[int]chan response
	waiters map[event]chan struct{}
	errors  map[string][]string // by session
}

type event struct{ session, method string }

type response struct {
	result json.RawMessage
	err    error
}

func dial(ctx context.Context, url string) (*conn, error) {
	ws, resp, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	ws.SetReadLimit(readLimit)
	life, cancel := context.WithCancel(context.Background())
	c := &conn{
		ws: ws, cancel: cancel, done: make(chan struct{}),
		calls: map[int]chan response{}, waiters: map[event]chan struct{}{}, errors: map[string][]string{},
	}
	go c.read(life)
	return c, nil
}

func (c *conn) close() {
	c.cancel()
	<-c.done
}

// call makes one call and blocks until its result has come. session "" is the browser itself.
func (c *conn) call(ctx context.Context, session, method string, params, result any) error {
	if params == nil {
		params = object{}
	}
	answer := make(chan response, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.calls[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, id)
		c.mu.Unlock()
	}()
	msg := object{"id": id, "method": method, "params": params}
	if session != "" {
		msg["sessionId"] = session
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("chromium: %s: %w", method, err)
	}
	// Not with ctx, whose end would close the whole connection.
	write, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	if err := c.ws.Write(write, websocket.MessageText, b); err != nil {
		return fmt.Errorf("chromium: %s: %w", method, err)
	}
	select {
	case r := <-answer:
		if r.err != nil {
			return fmt.Errorf("chromium: %s: %w", method, r.err)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.result, result)
	case <-c.done:
		return fmt.Errorf("chromium: %s: %w", method, c.err)
	case <-ctx.Done():
		return fmt.Errorf("chromium: %s: %w", method, ctx.Err())
	}
}

// await returns a channel that is closed by the next event of that name. The caller must call stop in the end.
func (c *conn) await(session, method string) (happened <-chan struct{}, stop func()) {
	key, ch := event{session, method}, make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters[key] = ch
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.waiters[key] == ch {
			delete(c.waiters, key)
		}
	}
}

// thrown returns the uncaught exceptions of a session.
func (c *conn) thrown(session string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.errors[session]...)
}

type incoming struct {
	ID        int
	Method    string
	SessionID string
	Params    struct {
		SessionID        string
		ExceptionDetails *exception
	}
	Result json.RawMessage
	Error  *struct{ Message string }
}

type exception struct {
	Text      string
	Exception struct {
		Description string
		Value       any
	}
}

func (e *exception) String() string {
	switch {
	case e.Exception.Description != "":
		return e.Exception.Description
	case e.Exception.Value != nil:
		return fmt.Sprint(e.Text, " ", e.Exception.Value)
	}
	return e.Text
}

func (c *conn) read(ctx context.Context) {
	defer close(c.done)
	defer func() { _ = c.ws.CloseNow() }()
	for {
		_, b, err := c.ws.Read(ctx)
		if err != nil {
			c.err = fmt.Errorf("the DevTools connection has ended: %w", err)
			return
		}
		var in incoming
		if err := json.Unmarshal(b, &in); err != nil {
			c.err = fmt.Errorf("malformed DevTools message: %w", err)
			return
		}
		c.receive(&in)
	}
}

func (c *conn) receive(in *incoming) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.ID != 0 {
		r := response{result: in.Result}
		if in.Error != nil {
			r.err = errors.New(in.Error.Message)
		}
		if ch := c.calls[in.ID]; ch != nil {
			ch <- r // has room: each call has one response
			delete(c.calls, in.ID)
		}
		return
	}
	key := event{in.SessionID, in.Method}
	switch in.Method {
	case "Runtime.exceptionThrown":
		if list := c.errors[in.SessionID]; in.Params.ExceptionDetails != nil && len(list) < maxErrors {
			c.errors[in.SessionID] = append(list, in.Params.ExceptionDetails.String())
		}
	case "Target.detachedFromTarget":
		key = event{"", in.Method + ":" + in.Params.SessionID}
	}
	if ch := c.waiters[key]; ch != nil {
		close(ch)
		delete(c.waiters, key)
	}
}
