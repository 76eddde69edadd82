package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
)

// Our own server takes the API key in the WebSocket's handshake, registers the client in the same step, and says in the
// first message, welcome, what the token exchange would have said: a join without three of its five round trips. Other
// servers refuse a handshake without a token, which costs two, once.

// HeaderRegister is the header of the handshake with the payload of a register message, an EarlyRegister.
const HeaderRegister = "Mesh-Register"

// HeaderWelcome is the header of the response that announces a welcome.
const HeaderWelcome = "Mesh-Welcome"

// errIndirect means that the server does not take keys in the handshake, or not this one. The token exchange says why.
var errIndirect = errors.New("the API key was not accepted in the WebSocket's handshake")

// direct reports whether to present the key in the handshake: only where the token exchange would send it, too. That is
// the same host by the same scheme, and the place where a server of ours has both.
func (c *Client) direct() bool {
	if c.indirect || !canSetHeaders || c.key == "" {
		return false
	}
	ws, err := url.Parse(c.cfg.URL)
	if err != nil {
		return false
	}
	tokens, err := url.Parse(c.cfg.TokenURL)
	if err != nil {
		return false
	}
	scheme := strings.Replace(ws.Scheme, "ws", "http", 1)
	prefix, ok := strings.CutSuffix(ws.Path, "/ws")
	return ok && tokens.Path == prefix+"/api/token" && tokens.Scheme == scheme && strings.EqualFold(tokens.Host, ws.Host) &&
		ws.User == nil && tokens.User == nil && ws.RawQuery == "" && tokens.RawQuery == ""
}

// directToken is what stands for a token in the handshake: the key, and the registration, unless the id has to be checked
// before.
func (c *Client) directToken() (token, error) {
	t := token{key: c.key}
	p := EarlyRegister{RegisterPayload: c.registration()}
	if own := c.cfg.OwnID; own != nil {
		var known bool
		if p.PeerID, known = own(); !known {
			return t, nil
		}
	}
	register, err := json.Marshal(p)
	if err != nil {
		return token{}, fmt.Errorf("register: %w", err)
	}
	t.own, t.register = p.PeerID, string(register)
	return t, nil
}

func (t token) directHeader() http.Header {
	h := http.Header{"X-Api-Key": {t.key}}
	if t.register != "" {
		h.Set(HeaderRegister, t.register)
	}
	return h
}

// welcomed looks at the outcome of a handshake with the key, and reports whether it leads on. If not, the token exchange
// does, or says what is wrong.
func (c *Client) welcomed(e endpoint, conn *websocket.Conn, resp *http.Response, err error) bool {
	switch {
	case err == nil && resp.Header.Get(HeaderWelcome) != "":
		return true
	case err == nil:
		_ = conn.CloseNow()
		c.indirect = true
	case resp == nil:
		return !permanent(e.transportError(err)) // an outage is one, whatever is asked for
	default:
		c.indirect = !retryable(resp.StatusCode)
	}
	return false
}

// welcome reads the first message of a connection that was opened with the key, which makes its token complete.
func (cn *connection) welcome(parent context.Context) error {
	ctx, cancel := context.WithTimeout(parent, cn.client.timing.request)
	defer cancel()
	typ, b, err := cn.ws.Read(ctx)
	if err != nil && (parent.Err() != nil || ctx.Err() == nil) {
		return lost(err)
	}
	m, parseErr := ParseMessage(b)
	if err != nil || parseErr != nil || typ != websocket.MessageText || m.Type != Welcome {
		cn.client.indirect = true
		return errIndirect
	}
	t, err := parseToken(m.Payload)
	if err != nil {
		return fmt.Errorf("%s: payload: %w", Welcome, err)
	}
	if check := cn.client.cfg.CheckID; check != nil {
		if err := check(t.PeerID); err != nil {
			return misconfigured(err, "%v", err)
		}
	}
	t.registered = cn.token.register != "" && (cn.token.own == "" || cn.token.own == t.PeerID)
	cn.token = t
	return nil
}
