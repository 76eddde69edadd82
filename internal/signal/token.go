package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/coder/websocket"
)

// maxAnswer bounds the answers that are read.
const maxAnswer = 1 << 20

// token is the answer of the token exchange.
type token struct {
	Token  string `json:"token"`
	PeerID string `json:"peer_id"`
	Role   string `json:"role"`
	ice    []byte // the whole answer if it lists ICE servers, too, as our own server's does
}

func parseToken(b []byte) (token, error) {
	var t token
	if err := json.Unmarshal(b, &t); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) && te.Field != "" {
			return token{}, fmt.Errorf("%s: not a string", te.Field)
		}
		// The error text would quote a byte of the answer: harmless, and useful for an HTML page.
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

// exchange trades the API key for a token.
func (c *Client) exchange(ctx context.Context) (token, error) {
	u, err := url.Parse(c.cfg.TokenURL)
	if err != nil {
		return token{}, errors.New("TokenURL: not a URL")
	}
	body, err := c.request(ctx, http.MethodPost, u, "X-API-Key", c.key)
	if err != nil {
		return token{}, err
	}
	t, err := parseToken(body)
	if err != nil {
		return token{}, fmt.Errorf("POST %s: answer: %w", public(u), err)
	}
	return t, nil
}

// request sends one request, with a secret in the header key, and returns the body of a 200. Errors name
// the method and URL.
func (c *Client) request(ctx context.Context, method string, u *url.URL, key, secret string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timing.request)
	defer cancel()
	name := method + " " + public(u)
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, bare(err))
	}
	if secret != "" {
		req.Header.Set(key, secret)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, bare(err))
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(name, resp, body, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: answer: %w", name, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("%s: answer is longer than %d bytes", name, maxAnswer)
	}
	return body, nil
}

// bare is err without the URL that net/http puts in front, whose query may be secret.
func bare(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// statusError is what a status other than the expected one means.
func statusError(name string, resp *http.Response, body []byte, secret string) error {
	text := fmt.Sprintf("%s: %d %s", name, resp.StatusCode, http.StatusText(resp.StatusCode))
	if detail := serverText(body, secret); detail != "" {
		text += ": " + detail
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return &RefusedError{Detail: text + "; check the API key"}
	case code >= 300 && code < 400:
		return &MisconfiguredError{Detail: text + ": redirects are not followed; use the final URL"}
	}
	return errors.New(text)
}

// serverText is the server's own explanation, {"error": "..."}, made safe to print.
func serverText(body []byte, secret string) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	if secret != "" {
		e.Error = strings.ReplaceAll(e.Error, secret, "***")
	}
	text := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, e.Error))
	return string(text[:min(len(text), 200)])
}

// configURL is the token URL with its last element replaced.
func configURL(tokenURL string) (*url.URL, error) {
	u, err := url.Parse(tokenURL)
	if err != nil {
		return nil, errors.New("TokenURL: not a URL")
	}
	if path.Base(u.Path) != "token" {
		return nil, fmt.Errorf("TokenURL: %s does not end in /token, so the URL of config is unknown", public(u))
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "token") + "config"
	u.RawPath, u.RawQuery, u.Fragment = "", "", ""
	return u, nil
}

// fetchICE asks for the server's ICE servers; refresh is when to ask again, 0 for never.
func (c *Client) fetchICE(ctx context.Context, t token) (servers []ICEServer, refresh time.Duration, err error) {
	u, err := configURL(c.cfg.TokenURL)
	if err != nil {
		return nil, 0, err
	}
	// chatixia-mesh's registry answers anyone; the token lets a stricter server know who asks.
	body, err := c.request(ctx, http.MethodGet, u, "Authorization", "Bearer "+t.Token)
	if err != nil {
		return nil, c.timing.refresh, err
	}
	return c.readICE("GET "+public(u), body)
}

// readICE reads the answer to a request by that name, as fetchICE does.
func (c *Client) readICE(name string, body []byte) (servers []ICEServer, refresh time.Duration, err error) {
	servers, dropped, err := parseICEServers(body)
	if err != nil {
		return nil, c.timing.refresh, fmt.Errorf("%s: answer: %w", name, err)
	}
	for _, why := range dropped {
		c.cfg.Log.Warn().Str("request", name).Msg("ICE server left out: " + why)
	}
	if refresh = refreshIn(servers, time.Now()); refresh > 0 {
		refresh = max(refresh, c.timing.refresh)
	}
	return servers, refresh, nil
}

// iceList is an answer with ICE servers, of whatever kind.
type iceList struct {
	ICEServers []json.RawMessage `json:"iceServers"`
}

// parseICEServers reads {"iceServers": [...]}. One server that WebRTC would reject must not cost the
// others, so it is left out, with the reason in dropped.
func parseICEServers(b []byte) (servers []ICEServer, dropped []string, err error) {
	var body iceList
	if err := json.Unmarshal(b, &body); err != nil {
		return nil, nil, fmt.Errorf("iceServers: %w", err)
	}
	servers = []ICEServer{}
	for i, raw := range body.ICEServers {
		var s ICEServer
		err := json.Unmarshal(raw, &s)
		if err == nil {
			err = s.Check()
		}
		if err != nil {
			dropped = append(dropped, fmt.Sprintf("iceServers[%d]: %v", i, err))
			continue
		}
		servers = append(servers, s)
	}
	return servers, dropped, nil
}

// Check finds what would make WebRTC refuse a server, or never reach it: RFC 7064 (stun:host[:port]) and
// RFC 7065 (turn:host[:port][?transport=udp or tcp]).
func (s ICEServer) Check() error {
	if len(s.URLs) == 0 {
		return errors.New("urls: empty")
	}
	for _, u := range s.URLs {
		if err := checkICEURL(u); err != nil {
			return fmt.Errorf("urls: %q: %w", u, err)
		}
		if strings.HasPrefix(u, "turn") && (s.Username == "" || s.Credential == "") {
			return fmt.Errorf("urls: %q needs a username and a credential", u)
		}
	}
	return nil
}

func checkICEURL(u string) error {
	scheme, rest, _ := strings.Cut(u, ":")
	address, query, hasQuery := strings.Cut(rest, "?")
	turn := scheme == "turn" || scheme == "turns"
	switch {
	case !turn && scheme != "stun" && scheme != "stuns":
		return errors.New("want the scheme stun, stuns, turn or turns")
	case hasQuery && (!turn || query != "transport=udp" && query != "transport=tcp"):
		return errors.New("after the question mark only transport=udp or transport=tcp may follow, for TURN")
	case address == "" || strings.ContainsAny(address, "/@ \t"):
		return fmt.Errorf("want a host name or address right after %q, as in %s:example.org:3478", scheme+":", scheme)
	}
	if !strings.Contains(strings.TrimPrefix(address, "["), ":") || strings.HasSuffix(address, "]") {
		address += ":3478"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q: want 1 to 65535", port)
	}
	if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return fmt.Errorf("%q is no host name or address", host)
	}
	return nil
}

// refreshIn is when to ask for new credentials: after three quarters of what is left of the first that
// expires. 0 means that none does. Ephemeral user names are "<unix expiry>:<anything>" (the TURN REST
// API draft, draft-uberti-behave-turn-rest).
func refreshIn(servers []ICEServer, now time.Time) time.Duration {
	var first time.Duration
	for _, s := range servers {
		digits, _, ok := strings.Cut(s.Username, ":")
		expiry, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil || expiry > 1<<40 {
			continue
		}
		left := max(time.Unix(expiry, 0).Sub(now), time.Nanosecond)
		if first == 0 || left < first {
			first = left
		}
	}
	return max(first*3/4, min(first, 1))
}

// dial opens the WebSocket; name is its URL without secrets.
func (c *Client) dial(ctx context.Context, t token) (conn *websocket.Conn, name string, err error) {
	u, err := url.Parse(c.cfg.URL)
	if err != nil {
		return nil, "", errors.New("URL: not a URL")
	}
	name = public(u)
	// The header would keep the token out of access logs, but chatixia-mesh's registry reads only
	// the query.
	q := u.Query()
	q.Set("token", t.Token)
	u.RawQuery = q.Encode()
	ctx, cancel := context.WithTimeout(ctx, c.timing.request)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{HTTPClient: c.http})
	if err == nil {
		conn.SetReadLimit(readLimit)
		return conn, name, nil
	}
	if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		var body []byte
		if resp.Body != nil {
			body, _ = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		}
		return nil, name, statusError(name, resp, body, t.Token)
	}
	err = bare(err)
	if strings.Contains(err.Error(), t.Token) {
		err = errors.New(strings.ReplaceAll(err.Error(), t.Token, "***"))
	}
	return nil, name, fmt.Errorf("%s: %w", name, err)
}
