package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// token is the response of the token exchange.
type token struct {
	Token  string `json:"token"`
	PeerID string `json:"peer_id"`
	Role   string `json:"role"`
	ice    []byte // the whole response if it also lists ICE servers, as our own server's does
}

func parseToken(b []byte) (token, error) {
	var t token
	if err := json.Unmarshal(b, &t); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) && te.Field != "" {
			return token{}, fmt.Errorf("%s: not a string", te.Field)
		}
		// The error quotes a byte of the response: harmless, and useful for an HTML page.
		return token{}, fmt.Errorf("not a JSON object: %w", err)
	}
	for _, f := range []struct{ name, value string }{{"token", t.Token}, {"peer_id", t.PeerID}, {"role", t.Role}} {
		if f.value == "" {
			return token{}, fmt.Errorf("%s: missing or empty", f.name)
		}
	}
	var list iceList
	if json.Unmarshal(b, &list) == nil && list.ICEServers != nil {
		t.ice = b
	}
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
