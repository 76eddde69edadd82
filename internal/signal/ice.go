package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ICEServer is one STUN or TURN server, as in the W3C's RTCIceServer.
type ICEServer struct {
	// URLs are stun:, stuns:, turn: or turns: URLs (RFC 7064, RFC 7065).
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// UnmarshalJSON accepts a single string for urls too, as the W3C's dictionary allows.
func (s *ICEServer) UnmarshalJSON(b []byte) error {
	var raw struct {
		URLs       json.RawMessage `json:"urls"`
		Username   string          `json:"username"`
		Credential string          `json:"credential"`
	}
	if err := Decode(b, &raw); err != nil {
		return err
	}
	var urls []string
	var one string
	if err := json.Unmarshal(raw.URLs, &one); err == nil && one != "" {
		urls = []string{one}
	} else if err := json.Unmarshal(raw.URLs, &urls); err != nil {
		return errors.New("urls: not a string or a list of strings")
	}
	*s = ICEServer{URLs: urls, Username: raw.Username, Credential: raw.Credential}
	return nil
}

// configURL returns the token URL with its last element replaced.
func configURL(tokenURL string) (*url.URL, error) {
	u, err := url.Parse(tokenURL)
	if err != nil {
		return nil, errors.New("TokenURL: not a URL")
	}
	if path.Base(u.Path) != "token" {
		return nil, fmt.Errorf("TokenURL: %s does not end in /token, so the URL for the ICE servers is unknown", public(u))
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "token") + "config"
	u.RawPath, u.RawQuery, u.Fragment = "", "", ""
	return u, nil
}

// fetchICE asks for the server's ICE servers. refresh is the time after which to ask again, 0 for never.
func (c *Client) fetchICE(ctx context.Context, t token) (servers []ICEServer, refresh time.Duration, err error) {
	u, err := configURL(c.cfg.TokenURL)
	if err != nil {
		return nil, 0, err
	}
	// chatixia-mesh's registry serves anyone; the token tells a stricter server who asks. Credentials in the
	// URL, for a proxy in front of the server, need the same header: then it is the key, as for the token.
	header, secret := "Authorization", "Bearer "+t.Token
	if u.User != nil {
		header, secret = "X-API-Key", c.cfg.APIKey
	}
	e := endpoint{method: http.MethodGet, url: u, noun: "ICE servers", suffix: "/api/config"}
	body, err := c.request(ctx, e, header, secret)
	if err != nil {
		return nil, c.timing.refresh, err
	}
	return c.readICE(e.String(), body)
}

// readICE reads the response to the request called name, and returns what fetchICE does.
func (c *Client) readICE(name string, body []byte) (servers []ICEServer, refresh time.Duration, err error) {
	servers, dropped, err := parseICEServers(body)
	if err != nil {
		return nil, c.timing.refresh, fmt.Errorf("%s: unexpected response: %w", name, err)
	}
	for _, why := range dropped {
		c.noise.Warn().Str("request", name).Str("reason", why).Msg("ICE server left out")
	}
	if refresh = refreshIn(servers, time.Now()); refresh > 0 {
		refresh = max(refresh, c.timing.refresh)
	}
	return servers, refresh, nil
}

// iceList is a response with ICE servers that have not been parsed.
type iceList struct {
	ICEServers []json.RawMessage `json:"iceServers"`
}

// parseICEServers reads {"iceServers": [...]}. A server that WebRTC would reject is left out, with the reason
// in dropped, so that it does not cost the others.
func parseICEServers(b []byte) (servers []ICEServer, dropped []string, err error) {
	var body iceList
	if err := Decode(b, &body); err != nil {
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

// Check returns why WebRTC would refuse the server or never reach it, or nil, by RFC 7064 (stun:host[:port]) and RFC
// 7065 (turn:host[:port][?transport=udp or tcp]).
func (s ICEServer) Check() error {
	if len(s.URLs) == 0 {
		return errors.New("urls: empty")
	}
	for _, u := range s.URLs {
		if err := checkICEURL(u); err != nil {
			return fmt.Errorf("urls: %q: %w", PublicICEURL(u), err)
		}
		if strings.HasPrefix(u, "turn") && (s.Username == "" || s.Credential == "") {
			return fmt.Errorf("urls: %q needs a username and a credential", PublicICEURL(u))
		}
	}
	return nil
}

// PublicICEURL returns what may be printed of something that is meant for the URL of an ICE server: without what stands
// before an @, where URLs of other schemes have a password.
func PublicICEURL(u string) string {
	at := strings.LastIndexByte(u, '@')
	if at < 0 {
		return u
	}
	scheme, _, _ := strings.Cut(u[:at], ":")
	if !slices.Contains([]string{"stun", "stuns", "turn", "turns"}, scheme) {
		return "***" + u[at:]
	}
	return scheme + ":***" + u[at:]
}

// PublicICEURLs is PublicICEURL for those of one server, separated by commas.
func PublicICEURLs(urls []string) string {
	public := make([]string, len(urls))
	for i, u := range urls {
		public[i] = PublicICEURL(u)
	}
	return strings.Join(public, ",")
}

func checkICEURL(u string) error {
	scheme, rest, _ := strings.Cut(u, ":")
	address, query, hasQuery := strings.Cut(rest, "?")
	turn := scheme == "turn" || scheme == "turns"
	switch {
	case !turn && scheme != "stun" && scheme != "stuns":
		return errors.New("the scheme must be stun, stuns, turn or turns")
	case hasQuery && (!turn || query != "transport=udp" && query != "transport=tcp"):
		return errors.New("only a TURN URL may have a query, transport=udp or transport=tcp")
	case strings.Contains(address, "@"):
		return errors.New("no user name and password may stand in the URL; they have fields of their own")
	case address == "" || strings.ContainsAny(address, "/ \t"):
		return fmt.Errorf("a host name or address must follow %q, as in %s:example.org:3478", scheme+":", scheme)
	}
	if !strings.Contains(strings.TrimPrefix(address, "["), ":") || strings.HasSuffix(address, "]") {
		address += ":3478"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return fmt.Errorf("%q is not a host name or address", host)
	}
	return nil
}

// refreshIn returns the time after which to ask for new credentials: three quarters of what is left of those
// that expire first, 0 if none expire.
func refreshIn(servers []ICEServer, now time.Time) time.Duration {
	var first time.Duration
	for _, s := range servers {
		expiry := TURNExpiry(s.Username)
		if expiry.IsZero() {
			continue
		}
		left := max(expiry.Sub(now), time.Nanosecond)
		if first == 0 || left < first {
			first = left
		}
	}
	return max(first*3/4, min(first, 1))
}
