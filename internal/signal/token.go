package signal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// maxPeerID is the length of the longest peer id that a sidecar uses, in bytes.
const maxPeerID = 256

// token is the response of the token exchange.
type token struct {
	Token  string `json:"token"`
	PeerID string `json:"peer_id"`
	Role   string `json:"role"`
	ice    []byte // the whole response if it also lists ICE servers, as our own server's does
	bearer bool   // the server takes the token in the header Authorization, as our own server does

	// In place of a token, before the welcome: see directToken.
	key, register string
	own           string // the id to be registered with; empty for any
	// After it.
	registered bool // by the handshake
}

func parseToken(b []byte) (token, error) {
	var t token
	if err := Decode(b, &t); err != nil {
		// The error may quote a byte of the response: harmless, and useful for an HTML page.
		return token{}, err
	}
	for _, f := range []struct{ name, value string }{{"token", t.Token}, {"peer_id", t.PeerID}, {"role", t.Role}} {
		if f.value == "" {
			return token{}, fmt.Errorf("%s: missing or empty", f.name)
		}
	}
	if len(t.PeerID) > maxPeerID {
		return token{}, fmt.Errorf("peer_id: %d bytes, the limit is %d", len(t.PeerID), maxPeerID)
	}
	var list iceList
	if Decode(b, &list) == nil && list.ICEServers != nil {
		t.ice = b
	}
	var more struct {
		Bearer bool `json:"bearer"`
	}
	t.bearer = Decode(b, &more) == nil && more.Bearer
	return t, nil
}

// exchange exchanges the API key for a token.
func (c *Client) exchange(ctx context.Context, key string) (token, error) {
	u, err := url.Parse(c.cfg.TokenURL)
	if err != nil {
		return token{}, errors.New("TokenURL: not a URL") // Config.Check says more
	}
	e := endpoint{method: http.MethodPost, url: u, noun: "token exchange", suffix: "/api/token"}
	body, err := c.request(ctx, e, "X-API-Key", key)
	if err != nil {
		return token{}, err
	}
	t, err := parseToken(body)
	if err != nil {
		return token{}, e.unexpected(err)
	}
	if check := c.cfg.CheckID; check != nil {
		if err := check(t.PeerID); err != nil {
			return token{}, misconfigured(err, "%v: %v", e, err)
		}
	}
	return t, nil
}
