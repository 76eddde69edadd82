//go:build !js

package rtc_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// noUDP is a host on which no UDP socket can be opened.
type noUDP struct{ *rtc.Network }

var errNoUDP = errors.New("no UDP in this sandbox")

func (noUDP) ListenUDP(string, *net.UDPAddr) (transport.UDPConn, error)      { return nil, errNoUDP }
func (noUDP) ListenPacket(string, string) (net.PacketConn, error)            { return nil, errNoUDP }
func (noUDP) DialUDP(_ string, _, _ *net.UDPAddr) (transport.UDPConn, error) { return nil, errNoUDP }

// withoutUDP has a node run in such a sandbox, with one TURN server and, if not nil, a proxy.
func withoutUDP(t *testing.T, server string, proxy *url.URL, roots *x509.CertPool) func(*rtc.Config) {
	n, err := rtc.NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func(c *rtc.Config) {
		c.UseNet(noUDP{n})
		c.ICEServers = relays(server, "user")
		c.RelayOnly = true
		c.Proxy(func(*http.Request) (*url.URL, error) { return proxy, nil })
		c.RootCAs = func() (*x509.CertPool, error) { return roots, nil }
	}
}

const turnName = "turn.mesh.test"

// certificate returns a certificate for 127.0.0.1 and turnName that signs itself, and in PEM.
func certificate(t *testing.T) (cert tls.Certificate, roots *x509.CertPool, text []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{turnName},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, text
}

// streamTURN starts a TURN server that is reached by TCP, or TLS with a certificate, and returns its address.
func streamTURN(t *testing.T, cert *tls.Certificate) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	startTURN(t, nil, l)
	return at
}

// connectProxy is an HTTP proxy for CONNECT alone.
type connectProxy struct {
	*httptest.Server
	password string // "" if none is asked for
	names    map[string]string

	mu    sync.Mutex
	asked []string
}

func startProxy(t *testing.T, password string) *connectProxy {
	p := &connectProxy{password: password, names: make(map[string]string)}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *connectProxy) url(user string) *url.URL {
	return &url.URL{Scheme: "http", User: url.UserPassword(user, "proxy-secret"), Host: p.Listener.Addr().String()}
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	target := r.Host
	if at := p.names[target]; at != "" {
		target = at
	}
	p.mu.Unlock()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+p.password))
	if p.password != "" && r.Header.Get("Proxy-Authorization") != want {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	far, err := net.Dial("tcp", target)
	if err != nil || r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer far.Close()
	w.WriteHeader(http.StatusOK)
	near, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	go func() {
		_, _ = io.Copy(far, buffered)
		_ = far.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(near, far)
}

func (p *connectProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// talk checks that messages pass between two linked agents.
func talk(t *testing.T, a, b *agent) {
	t.Helper()
	linked(t, a, b)
	send(t, a.peer("b"), message(1, 50_000))
	send(t, b.peer("a"), message(2, 50_000))
	testutil.Eventually(t, "the messages", func() bool { return len(a.received("b")) == 1 && len(b.received("a")) == 1 })
}

// Agents that have no UDP link by a TURN server that they reach by TCP or TLS, also through a proxy.
func TestTURNWithoutUDP(t *testing.T) {
	t.Parallel()
	cert, roots, _ := certificate(t)
	plain, secure := streamTURN(t, nil), streamTURN(t, &cert)
	for name, c := range map[string]struct {
		url   string
		proxy bool
	}{
		"TCP":             {"turn:" + plain + "?transport=tcp", false},
		"TLS":             {"turns:" + secure, false},
		"TCP, with proxy": {"turn:" + plain + "?transport=tcp", true},
		"TLS, with proxy": {"turns:" + secure + "?transport=tcp", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var via *url.URL
			proxy := startProxy(t, "proxy-secret")
			if c.proxy {
				via = proxy.url("user")
			}
			h := newHub(t)
			set := withoutUDP(t, c.url, via, roots)
			a, b := start(t, h, "a", set).join(), start(t, h, "b", set).join()
			talk(t, a, b)
			if n := len(proxy.requests()); c.proxy != (n > 0) {
				t.Errorf("the proxy was asked %d times", n)
			}
		})
	}
}

// Servers that come later, from signaling, are reached by TLS, too.
func TestTURNServerComesLater(t *testing.T) {
	t.Parallel()
	cert, roots, _ := certificate(t)
	at := streamTURN(t, &cert)
	h := newHub(t)
	set := withoutUDP(t, "turn:127.0.0.1:9", nil, roots)
	a, b := start(t, h, "a", set), start(t, h, "b", set)
	a.ICEServers(relays("turns:"+at, "user"))
	b.ICEServers(relays("turns:"+at, "user"))
	a.join()
	b.join()
	talk(t, a, b)
}

// What keeps an agent from its TURN server is told, and no password with it.
func TestTURNNotReached(t *testing.T) {
	t.Parallel()
	cert, roots, _ := certificate(t)
	secure := streamTURN(t, &cert)
	for name, c := range map[string]struct {
		proxyUser string
		scheme    string
		roots     *x509.CertPool
		want      string
	}{
		"another authority": {"", "", x509.NewCertPool(), "certificate signed by unknown authority"},
		"wrong password":    {"eve", "http", roots, "407"},
		"SOCKS":             {"user", "socks5", roots, "only HTTP proxies"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := startProxy(t, "another-secret")
			var via *url.URL
			if c.proxyUser != "" {
				via = proxy.url(c.proxyUser)
				via.Scheme = c.scheme
			}
			var log testutil.LogBuffer
			h := newHub(t)
			a := start(t, h, "a", withoutUDP(t, "turns:"+secure, via, c.roots), func(cfg *rtc.Config) {
				cfg.ConnectTimeout = 2 * time.Second
				cfg.LogWebRTC = true
				cfg.Log = zerolog.New(&log)
			}).join()
			start(t, h, "b").join()
			a.Connect("b")
			var failed string
			testutil.Eventually(t, "the failure", func() bool {
				return get(a.recorder, func() bool {
					if err := a.failed["b"]; err != nil {
						failed = err.Text
					}
					return failed != ""
				})
			})
			if !strings.Contains(failed, c.want) {
				t.Errorf("the reason is %q, want %q in it", failed, c.want)
			}
			if all := failed + log.String(); strings.Contains(all, "proxy-secret") || strings.Contains(all, turnPassword) {
				t.Errorf("a password is shown: %s", all)
			}
		})
	}
}

// The proxy is that of HTTPS_PROXY, and only it looks the server's name up. The environment of a process counts from its
// start, so the agents run in another one.
func TestTURNProxyOfEnvironment(t *testing.T) {
	const caVar = "MESH_TEST_TURN_CA"
	if file := os.Getenv(caVar); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		h := newHub(t)
		set := withoutUDP(t, "turns:"+turnName+":443?transport=tcp", nil, roots)
		environment := func(c *rtc.Config) { c.Proxy(nil) }
		a, b := start(t, h, "a", set, environment).join(), start(t, h, "b", set, environment).join()
		talk(t, a, b)
		return
	}
	cert, _, text := certificate(t)
	proxy := startProxy(t, "proxy-secret")
	proxy.names[turnName+":443"] = streamTURN(t, &cert)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTURNProxyOfEnvironment$")
	cmd.Env = append(os.Environ(), caVar+"="+file, "HTTPS_PROXY="+proxy.url("user").String(), "NO_PROXY=", "no_proxy=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	asked := proxy.requests()
	if len(asked) == 0 {
		t.Error("the proxy was not asked")
	}
	for _, r := range asked {
		if r != "CONNECT "+turnName+":443" {
			t.Errorf("the proxy was asked to %q", r)
		}
	}
}

// A TURN server, or a proxy, that accepts a connection and says nothing keeps no node from closing.
func TestSilentTURNServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, proxy := range map[string]*url.URL{"server": nil, "proxy": {Scheme: "http", Host: l.Addr().String()}} {
		accepted := make(chan net.Conn, 10)
		go func() {
			if c, err := l.Accept(); err == nil {
				accepted <- c
			}
		}()
		h := newHub(t)
		a := start(t, h, "a", withoutUDP(t, "turns:"+l.Addr().String(), proxy, nil)).join()
		start(t, h, "b").join()
		a.Connect("b")
		defer testutil.Take(t, name+": a connection", accepted).Close()
		began := time.Now()
		if a.close(t); time.Since(began) > 5*time.Second {
			t.Errorf("%s: closing took %s", name, time.Since(began))
		}
	}
}
