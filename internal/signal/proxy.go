package signal

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxProxyHeader bounds a proxy's response to CONNECT.
const maxProxyHeader = 64 << 10

// useTunnel makes hc reach u, a WebSocket without TLS, through a tunnel if an HTTP proxy is to be used. RFC
// 6455 section 4.1 asks for CONNECT; net/http, which takes the handshake for any GET, would hand it to the
// proxy itself. For TLS it uses CONNECT anyway, and SOCKS proxies are tunnels by nature.
func useTunnel(ctx context.Context, hc *http.Client, u *url.URL) error {
	t, ok := hc.Transport.(*http.Transport)
	if !ok || t.Proxy == nil || u.Scheme != "ws" && u.Scheme != "http" {
		return nil
	}
	target := &url.URL{Scheme: "http", Host: u.Host, Path: u.Path}
	proxy, err := t.Proxy((&http.Request{Method: http.MethodGet, URL: target, Host: u.Host}).WithContext(ctx))
	if err != nil || proxy == nil || proxy.Scheme != "http" && proxy.Scheme != "https" {
		return err
	}
	t = t.Clone()
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t.Proxy = nil
	// net/http may let a dial outlive its request, so ctx and not the dial's own context bounds it.
	t.DialContext = func(_ context.Context, network, addr string) (net.Conn, error) {
		return dialTunnel(ctx, dial, network, t, proxy, addr)
	}
	t.DisableKeepAlives = true
	hc.Transport = t
	return nil
}

// DialTunnel connects with dial to an HTTP proxy, over TLS with conf if the proxy's URL says so, and asks it for a tunnel to
// addr. Its errors do not show the proxy's password.
func DialTunnel(ctx context.Context, dial DialFunc, network string, conf *tls.Config, proxy *url.URL, addr string) (net.Conn, error) {
	if proxy.Scheme != "http" && proxy.Scheme != "https" {
		return nil, fmt.Errorf("proxy %s: only HTTP proxies are supported here", public(proxy))
	}
	return dialTunnel(ctx, dial, network, &http.Transport{TLSClientConfig: conf}, proxy, addr)
}

// A DialFunc is a method such as net.Dialer.DialContext.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func dialTunnel(ctx context.Context, dial DialFunc, network string, t *http.Transport, proxy *url.URL, addr string) (net.Conn, error) {
	conn, err := dial(ctx, network, proxyAddress(proxy))
	if err == nil {
		conn, err = openTunnel(ctx, conn, t, proxy, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", public(proxy), err)
	}
	return conn, nil
}

func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	switch {
	case port != "":
	case proxy.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

// openTunnel asks the proxy at the other end of conn for a tunnel to addr. It closes conn if that fails.
func openTunnel(ctx context.Context, conn net.Conn, t *http.Transport, proxy *url.URL, addr string) (net.Conn, error) {
	raw := conn
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	if proxy.Scheme == "https" {
		conf := t.TLSClientConfig.Clone()
		if conf == nil {
			conf = &tls.Config{}
		}
		if conf.ServerName == "" {
			conf.ServerName = proxy.Hostname()
		}
		conn = tls.Client(conn, conf)
	}
	err := requestTunnel(ctx, conn, t, proxy, addr)
	if !stop() {
		err = ctx.Err() // why the deadline was set
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// requestTunnel sends CONNECT and reads the response.
func requestTunnel(ctx context.Context, conn net.Conn, t *http.Transport, proxy *url.URL, addr string) error {
	header := t.ProxyConnectHeader.Clone()
	if header == nil {
		header = http.Header{}
	}
	if user := proxy.User; user != nil && header.Get("Proxy-Authorization") == "" {
		password, _ := user.Password()
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: header}).WithContext(ctx)
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxProxyHeader))
	resp, err := http.ReadResponse(r, req)
	switch {
	case err != nil:
		return fmt.Errorf("response to CONNECT %s: %w", addr, err)
	case resp.StatusCode != http.StatusOK:
		return proxyError(resp, addr)
	case r.Buffered() > 0:
		return errors.New("the proxy sent data that the server behind it cannot have sent")
	}
	return nil
}

func proxyError(resp *http.Response, addr string) error {
	text := fmt.Sprintf("CONNECT %s: %s", addr, statusText(resp))
	if retryable(resp.StatusCode) {
		return errors.New(text)
	}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		text += "; put user:password@ into the proxy's URL"
	}
	return &MisconfiguredError{Detail: text}
}
