// Package local tells requests of programs on this machine from others.
package local

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The headers that show that a request comes through a proxy, in lower case: whole names, and how others begin.
var (
	proxyHeaders = []string{
		"via", "forwarded", "client-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "x-real-ip", "x-remote-addr",
		"x-remote-ip", "x-forwarded", "x-host", "x-scheme", "x-proxyuser-ip", "fastly-client-ip", "wl-proxy-client-ip",
		"cdn-loop", "x-amzn-trace-id", "x-amz-cf-id", "x-cloud-trace-context", "proxy-connection", "x-nginx-proxy",
	}
	proxyPrefixes = []string{
		"x-forwarded-", "x-original-", "x-proxy-", "cf-", "fly-", "x-envoy-", "x-azure-", "x-arr-", "x-appengine-",
		"x-goog-", "akamai-", "x-akamai-", "x-vercel-", "x-traefik-", "tailscale-",
	}
)

// Check returns why r is not from a program on this machine, or nil. The remote address is not enough: a proxy
// on this machine may forward requests from anywhere, and a browser on it those of any web page, which names itself
// in Origin, or, after DNS rebinding, only in Host.
func Check(r *http.Request) error {
	if !isLoopback(r.RemoteAddr) {
		return errors.New("the server accepts only clients on a loopback address")
	}
	if !isLocalHost(hostname(r.Host)) {
		return errors.New("the server accepts only requests for a loopback address or localhost (Host)")
	}
	// nginx speaks HTTP/1.0 by default, and adds no header; clients have not for decades.
	if !r.ProtoAtLeast(1, 1) || slices.ContainsFunc(headerNames(r), isProxyHeader) {
		return errors.New("the server does not accept requests that a proxy has forwarded")
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || !isLocalHost(u.Hostname()) {
			return errors.New("the server does not accept requests of web pages from other hosts")
		}
	}
	return nil
}

// isLoopback reports whether a remote address is one of this machine's own.
func isLoopback(hostport string) bool {
	addr, err := netip.ParseAddrPort(hostport)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}

func headerNames(r *http.Request) (names []string) {
	for name := range r.Header {
		names = append(names, strings.ToLower(name))
	}
	return names
}

func isProxyHeader(name string) bool {
	return slices.Contains(proxyHeaders, name) ||
		slices.ContainsFunc(proxyPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// hostname returns the host of a Host header, without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

func isLocalHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
