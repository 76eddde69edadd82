//go:build !js

package rtc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// turnTimeout bounds the way to a TURN server by TCP, with proxy and TLS. A connection does not close before.
const turnTimeout = 10 * time.Second

// turnDialer connects to TURN servers by TCP (golang.org/x/net/proxy.Dialer). pion's own way has no bound of time, knows
// no proxies and no other authorities than the system's; and what such a dialer returns it takes for a server's
// connection without TLS, even for turns URLs.
type turnDialer struct {
	ctx   context.Context // ends dials
	host  *host
	proxy func(*http.Request) (*url.URL, error)
	roots func() (*x509.CertPool, error) // nil: the system's

	mu sync.Mutex
	// secure has the addresses of turns URLs, of the present servers and of those before: a connection that began with
	// them may still ask.
	secure, before map[string]bool
}

// use says which servers there are.
func (d *turnDialer) use(servers []webrtc.ICEServer) {
	secure := make(map[string]bool)
	for _, s := range servers {
		for _, u := range s.URLs {
			if uri, err := stun.ParseURI(u); err == nil && uri.Scheme == stun.SchemeTypeTURNS {
				secure[net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))] = true
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secure, d.before = secure, d.secure
}

func (d *turnDialer) isSecure(address string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.secure[address] || d.before[address]
}

// Dial connects to the TURN server at an address, whose host may be a name.
func (d *turnDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, turnTimeout)
	defer cancel()
	conf, err := d.tls()
	if err != nil {
		return nil, err
	}
	c, err := d.connect(ctx, network, address, conf)
	if err != nil || !d.isSecure(address) {
		return c, err
	}
	conf.ServerName, _, _ = net.SplitHostPort(address)
	secured := tls.Client(c, conf)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return secured, nil
}

func (d *turnDialer) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.roots == nil {
		return conf, nil
	}
	var err error
	conf.RootCAs, err = d.roots()
	return conf, err
}

// connect connects directly, or through the proxy that is to be used for an HTTPS server of that address.
func (d *turnDialer) connect(ctx context.Context, network, address string, conf *tls.Config) (net.Conn, error) {
	proxy, err := d.proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: address}})
	if err != nil {
		return nil, fmt.Errorf("the setting of the proxy for %s cannot be used", address) // the error may show a password
	}
	if proxy == nil {
		addr, err := d.host.ResolveTCPAddr(network, address)
		if err != nil {
			return nil, err
		}
		return d.dial(ctx, network, addr.String())
	}
	if network == "tcp6" { // pion asks by both families; how the proxy reaches the server is its own business
		return nil, fmt.Errorf("%s is asked through the proxy once", address)
	}
	return signal.DialTunnel(ctx, d.dial, "tcp", conf, proxy, address)
}

// dial connects from an address that the settings allow.
func (d *turnDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	if !d.host.filter.IsZero() {
		ip, err := d.host.from(network)
		if err != nil {
			return nil, err
		}
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
	}
	return dialer.DialContext(ctx, network, address)
}
