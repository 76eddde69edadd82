package signal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// maxResponse bounds the body of a response, in bytes.
const maxResponse = 1 << 20

// endpoint is one of the server's URLs, with what errors about it have to say.
type endpoint struct {
	method string // empty for the WebSocket
	url    *url.URL
	noun   string // what the server has there
	suffix string // how the path of a signaling server's URL normally ends
}

// String returns the method and the URL without secrets.
func (e endpoint) String() string { return strings.TrimPrefix(e.method+" "+public(e.url), " ") }

// request sends one request, with a secret in the header key unless that is empty, and returns the body of a
// 200. Errors name the method and URL.
func (c *Client) request(ctx context.Context, e endpoint, key, secret string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timing.request)
	defer cancel()
	ctx, _, stop := c.connecting(ctx)
	defer stop()
	hc, err := c.cfg.httpClient(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, e.method, e.url.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", e, bare(err))
	}
	if secret != "" && key != "" {
		req.Header.Set(key, secret)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, e.transportError(connectError(ctx, err))
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if resp.StatusCode != http.StatusOK {
		return nil, e.statusError(resp, body, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: reading the response: %w", e, err)
	}
	if len(body) > maxResponse {
		return nil, e.unexpected(fmt.Errorf("longer than %d bytes", maxResponse))
	}
	return body, nil
}

// dial opens the WebSocket. raw is the connection below it, nil if that is not known.
func (c *Client) dial(ctx context.Context, e endpoint, t token) (ws *websocket.Conn, raw net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timing.request)
	defer cancel()
	ctx, attempt, stop := c.connecting(ctx)
	defer stop()
	hc, err := c.cfg.httpClient(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := useTunnel(ctx, hc, e.url); err != nil {
		return nil, nil, e.transportError(err)
	}
	u, header := t.present(e.url)
	conn, resp, err := websocket.Dial(ctx, u, dialOptions(hc, header))
	if t.key != "" && !c.welcomed(e, conn, resp, err) {
		return nil, nil, errIndirect
	}
	switch {
	case err == nil:
		conn.SetReadLimit(readLimit)
		return conn, attempt.conn(), nil
	case resp == nil:
		return nil, nil, e.transportError(connectError(ctx, err))
	case resp.StatusCode == http.StatusSwitchingProtocols:
		return nil, nil, misconfigured(err, "%v: %s", e, hide(innermost(err).Error(), t.Token))
	}
	var body []byte
	if resp.Body != nil {
		body, _ = io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	}
	return nil, nil, e.statusError(resp, body, t.Token)
}

// present returns the URL and the header that carry t to the WebSocket at u. A header keeps it out of access
// logs, but chatixia-mesh's registry reads only the query, browsers cannot set headers, and credentials in the URL
// need the same one.
func (t token) present(u *url.URL) (string, http.Header) {
	if t.key != "" {
		return u.String(), t.directHeader()
	}
	if t.bearer && canSetHeaders && u.User == nil {
		return u.String(), http.Header{"Authorization": {"Bearer " + t.Token}}
	}
	with := *u
	q := with.Query()
	q.Set("token", t.Token)
	with.RawQuery = q.Encode()
	return with.String(), nil
}

func misconfigured(cause error, format string, args ...any) error {
	return &MisconfiguredError{Detail: fmt.Sprintf(format, args...), Err: cause}
}

// unexpected returns the error for a response that the endpoint of a signaling server does not give.
func (e endpoint) unexpected(err error) error {
	return misconfigured(err, "%v: unexpected response: %v%s", e, err, e.where())
}

// statusError returns the error for a status other than the expected one, with what it means.
func (e endpoint) statusError(resp *http.Response, body []byte, secret string) error {
	text := fmt.Sprintf("%v: %s", e, statusText(resp))
	if explanation := serverText(body, secret); explanation != "" {
		text += ": " + explanation
	} else {
		text += e.statusHint(resp, secret)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return &RefusedError{Detail: text}
	case retryable(code):
		return responseError{text}
	}
	return misconfigured(nil, "%s", text)
}

// statusText returns the status with its standard text, whatever text the server has sent.
func statusText(resp *http.Response) string {
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", http.StatusText(resp.StatusCode)))
}

// retryable reports whether the same request may succeed later.
func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// statusHint returns what to do about a status that the server does not explain, after a semicolon.
func (e endpoint) statusHint(resp *http.Response, secret string) string {
	websocket := e.method == ""
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized && strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic"):
		return "; it asks for Basic authentication: put user:password@ into the URL"
	case code == http.StatusUnauthorized && websocket:
		return "; is the token exchange of the same server?"
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return "; check the API key"
	case code >= 300 && code < 400:
		return "; redirects are not followed" + e.redirect(resp, secret)
	case code == http.StatusBadRequest && !e.secure():
		return fmt.Sprintf("; if the server expects TLS, use %q", e.toggled())
	case websocket && (code == http.StatusUpgradeRequired || code == http.StatusNotImplemented):
		return "; the server, or a proxy in front of it, does not let a WebSocket through"
	}
	return e.where()
}

// redirect returns where the redirect leads, in the scheme of the endpoint, after a semicolon.
func (e endpoint) redirect(resp *http.Response, secret string) string {
	to, err := resp.Location()
	if err != nil {
		return ""
	}
	if strings.HasPrefix(e.url.Scheme, "ws") {
		to.Scheme = strings.Replace(to.Scheme, "http", "ws", 1)
	}
	return fmt.Sprintf("; use %q", hide(public(to), secret))
}

// where returns what the URL would normally look like, after a semicolon.
func (e endpoint) where() string {
	better := *e.url
	better.Path, better.RawPath = path.Join("/", better.Path), ""
	if !strings.HasSuffix(better.Path, e.suffix) {
		better.Path = path.Join(better.Path, e.suffix)
	}
	if better.Path == e.url.Path {
		return fmt.Sprintf("; is there a signaling server at %s?", e.url.Host)
	}
	return fmt.Sprintf("; a signaling server normally has its %s at \"...%s\", such as %q", e.noun, e.suffix, public(&better))
}

func (e endpoint) secure() bool { return e.url.Scheme == "https" || e.url.Scheme == "wss" }

// toggled returns the URL with TLS if it is without, and the other way round.
func (e endpoint) toggled() string {
	u := *e.url
	if e.secure() {
		u.Scheme = strings.TrimSuffix(u.Scheme, "s")
	} else {
		u.Scheme += "s"
	}
	return public(&u)
}

// transportError returns the error for a request that got no response, with what it means.
func (e endpoint) transportError(err error) error {
	err = bare(err)
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var remote *net.OpError
	var known *MisconfiguredError
	switch text := err.Error(); {
	case errors.As(err, &known):
		return misconfigured(err, "%v: %v", e, err)
	case errors.As(err, &unknown):
		return misconfigured(err, "%v: %v; if its certificate is from an authority of your own, name that in CAFile", e, err)
	case errors.As(err, &certificate):
		return misconfigured(err, "%v: %v", e, err)
	case errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record):
		return misconfigured(err, "%v: the server does not speak TLS there; use %q", e, e.toggled())
	case strings.Contains(text, `malformed HTTP response "\x15\x03`): // a TLS alert
		return misconfigured(err, "%v: the server speaks TLS there; use %q", e, e.toggled())
	case strings.Contains(text, "malformed HTTP"):
		return misconfigured(err, "%v: the response is not HTTP%s", e, e.where())
	case errors.As(err, &remote) && remote.Op == "remote error" && !strings.HasSuffix(text, "internal error"):
		return misconfigured(err, "%v: the server refuses the TLS connection (%v); "+
			"does it ask for a client certificate (CertFile, KeyFile)?", e, remote.Err)
	}
	return fmt.Errorf("%v: %w", e, err)
}

// bare returns err without the URL that net/http puts in front of it, whose query may be secret.
func bare(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// innermost returns the error at the end of the chain.
func innermost(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// serverText returns the server's own explanation, {"error": "..."}, made safe to print.
func serverText(body []byte, secret string) string {
	var e struct {
		Error string `json:"error"`
	}
	if Decode(body, &e) != nil {
		return ""
	}
	text := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, hide(e.Error, secret)))
	return string(text[:min(len(text), 400)])
}

// hide replaces secret in a server's text, but not where it is a part of a longer word: a key of development
// may be as short as one letter.
func hide(text, secret string) string {
	if secret == "" {
		return text
	}
	if !utf8.ValidString(secret) { // no part of a regular expression
		return strings.ReplaceAll(text, secret, "***")
	}
	alone := regexp.MustCompile(`(^|[^\pL\pN])` + regexp.QuoteMeta(secret) + `($|[^\pL\pN])`)
	for range 2 { // two next to each other share what is between them
		text = alone.ReplaceAllString(text, "${1}***${2}")
	}
	return text
}
