package signal_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// authority is a certificate authority of a test's own.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, typ string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes a certificate for name, valid at 127.0.0.1 until notAfter, and its key.
func (a *authority) issue(name string, notAfter time.Time) (certFile, keyFile string) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+"-key.pem", "EC PRIVATE KEY", keyDER)
}

func (a *authority) serverConfig(notAfter time.Time) *tls.Config {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue("server", notAfter))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// TestPrivateAuthority: the token, the ICE servers and the WebSocket are fetched with the files' certificates.
func TestPrivateAuthority(t *testing.T) {
	a := newAuthority(t)
	conf := a.serverConfig(time.Now().Add(time.Hour))
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, a.pool()
	f := newFakeTLS(t, conf)
	f.config = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"iceServers":[{"urls":["stun:x"]}]}`))
	}
	cfg := f.clientConfig()
	cfg.FetchICE = true
	cfg.CAFile = a.file
	cfg.CertFile, cfg.KeyFile = a.issue("client", time.Now().Add(time.Hour))
	other := newAuthority(t)
	for name, change := range map[string]func(*signal.Config){
		"own transport": func(*signal.Config) {},
		"authorities of another transport": func(c *signal.Config) {
			c.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: other.pool()}}}
		},
		"besides those of another transport": func(c *signal.Config) {
			c.CAFile = other.file
			c.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool()}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			change(&cfg)
			r := newRecorder()
			start(t, signal.New(cfg), r)
			if e := r.waitKind(t, "ice"); e.ice[0].URLs[0] != "stun:x" {
				t.Fatalf("%+v", e)
			}
			r.waitKind(t, "registered")
		})
	}
}

// TestCertificatesAreReadAgain: a renewed client certificate is used at the next try.
func TestCertificatesAreReadAgain(t *testing.T) {
	a := newAuthority(t)
	conf := a.serverConfig(time.Now().Add(time.Hour))
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, a.pool()
	f := newFakeTLS(t, conf)
	cfg := f.clientConfig()
	cfg.CAFile = a.file
	cfg.CertFile, cfg.KeyFile = a.issue("client", time.Now().Add(-time.Hour))
	c, r := signal.New(cfg), newRecorder()
	signal.HurryUp(c)
	start(t, c, r)
	if s := r.waitFailure(t); !errors.Is(s.Err, signal.ErrMisconfigured) || !strings.Contains(s.Err.Error(), "client certificate") {
		t.Fatalf("status %+v", s)
	}
	a.issue("client", time.Now().Add(time.Hour))
	r.waitKind(t, "registered")
}

// TestTLSFailures: what no retry can mend is reported at once, with the URL.
func TestTLSFailures(t *testing.T) {
	a := newAuthority(t)
	good := newFakeTLS(t, a.serverConfig(time.Now().Add(time.Hour)))
	expired := newFakeTLS(t, a.serverConfig(time.Now().Add(-time.Hour)))
	plain := newFake(t)
	strict := a.serverConfig(time.Now().Add(time.Hour))
	strict.ClientAuth = tls.RequireAnyClientCert
	strictServer := newFakeTLS(t, strict)
	alert := listen(t, "\x15\x03\x01\x00\x02\x02\x0a")
	ssh := listen(t, "SSH-2.0-OpenSSH_9.6\r\n")
	trust := func(c *signal.Config) { c.CAFile = a.file }
	for _, c := range []struct {
		name, host string
		secure     bool
		change     func(*signal.Config)
		want       string
	}{
		{"unknown authority", good.host(), true, nil, "name that in CAFile"},
		{"another name", strings.Replace(good.host(), "127.0.0.1", "localhost", 1), true, trust, "localhost"},
		{"expired", expired.host(), true, trust, "expired"},
		{"no client certificate", strictServer.host(), true, trust, "does it ask for a client certificate"},
		{"TLS to plain HTTP", plain.host(), true, nil, `does not speak TLS there; use "http://` + plain.host()},
		{"plain HTTP to TLS", good.host(), false, nil, `400 Bad Request; if the server expects TLS, use "https://` + good.host()},
		{"plain HTTP to another TLS", alert, false, nil, `speaks TLS there; use "https://` + alert},
		{"another protocol", ssh, false, nil, "the response is not HTTP"},
		{"TLS to another protocol", ssh, true, nil, "does not speak TLS there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := signal.Config{Settings: signal.Settings{URL: "ws://" + c.host + "/ws", TokenURL: "http://" + c.host + "/api/token", APIKey: apiKey}}
			if c.secure {
				cfg.URL, cfg.TokenURL = "wss://"+c.host+"/ws", "https://"+c.host+"/api/token"
			}
			if c.change != nil {
				c.change(&cfg)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := signal.New(cfg).CheckCredentials(ctx)
			if !errors.Is(err, signal.ErrMisconfigured) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "POST "+cfg.TokenURL) {
				t.Errorf("token exchange: %v, want one with %q", err, c.want)
			}
			if c.name == "TLS to plain HTTP" || c.name == "plain HTTP to TLS" { // with a token exchange that works
				cfg.TokenURL, cfg.CAFile = plain.clientConfig().TokenURL, a.file
				r := newRecorder()
				start(t, signal.New(cfg), r)
				want := strings.Replace(c.want, `"http`, `"ws`, 1)
				if s := r.waitFailure(t); !s.Permanent || !strings.Contains(s.Err.Error(), want) || !strings.Contains(s.Err.Error(), cfg.URL) {
					t.Errorf("WebSocket: %+v, want an error with %q", s, want)
				}
			}
		})
	}
}

func (f *fake) host() string { return f.Listener.Addr().String() }

// listen starts a server that sends text on every connection, and returns its address.
func listen(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = conn.Write([]byte(text))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// TestPathHint: the error about a wrong path names the usual one.
func TestPathHint(t *testing.T) {
	f := newFake(t)
	for path, want := range map[string]string{
		"":         `"...%s", such as "%s%s"`,
		"/":        `such as "%s%s"`,
		"/mesh":    `such as "%s/mesh%s"`,
		"%s/":      `such as "%s%s"`,
		"/nowhere": `such as "%s/nowhere%s"`,
	} {
		for _, suffix := range []string{"/ws", "/api/token"} {
			cfg := f.clientConfig()
			base := f.URL
			if suffix == "/ws" {
				base = "ws" + strings.TrimPrefix(f.URL, "http")
			}
			url := base + strings.Replace(path, "%s", suffix, 1)
			want := want
			if strings.HasPrefix(want, `"...`) {
				want = fmt.Sprintf(want, suffix, base, suffix)
			} else {
				want = fmt.Sprintf(want, base, suffix)
			}
			if suffix == "/ws" {
				cfg.URL = url
			} else {
				cfg.TokenURL = url
			}
			r := newRecorder()
			stop := start(t, signal.New(cfg), r)
			if s := r.waitFailure(t); !s.Permanent || !strings.Contains(s.Err.Error(), want) || !strings.Contains(s.Err.Error(), "404") {
				t.Errorf("%s: %+v, want an error with %s", url, s, want)
			}
			stop()
		}
	}
}

// TestBasicAuthentication: credentials in the URLs go with every request, the refresh of ICE servers included. There the
// key says who asks, since the token has no room.
func TestBasicAuthentication(t *testing.T) {
	f := newFake(t)
	handler := f.Config.Handler
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "p w" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	})
	f.config = func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("X-API-Key"); got != apiKey {
			t.Errorf("X-API-Key %q", got)
		}
		_, _ = w.Write([]byte(`{"iceServers":[{"urls":["stun:x"]}]}`))
	}
	cfg := f.clientConfig()
	cfg.FetchICE = true
	cfg.URL = strings.Replace(cfg.URL, "://", "://u:p%20w@", 1)
	cfg.TokenURL = strings.Replace(cfg.TokenURL, "://", "://u:p%20w@", 1)
	r := newRecorder()
	start(t, signal.New(cfg), r)
	r.waitKind(t, "ice")
	r.waitKind(t, "registered")
}

// TestFilesNeedATransport: certificates cannot be added to a transport of another kind.
func TestFilesNeedATransport(t *testing.T) {
	cfg := newFake(t).clientConfig()
	cfg.CAFile = newAuthority(t).file
	cfg.HTTPClient = &http.Client{Transport: roundTripper{}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := signal.New(cfg).Run(ctx, newRecorder()); err == nil || !strings.Contains(err.Error(), "CAFile") {
		t.Fatalf("error %v", err)
	}
}

type roundTripper struct{ http.RoundTripper }

// The authorities for others than the signaling server are those of the file as it is now.
func TestRootCAs(t *testing.T) {
	if pool, err := (signal.Config{}).RootCAs(); pool != nil || err != nil {
		t.Errorf("without a file: %v, %v", pool, err)
	}
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	c := signal.Config{Settings: signal.Settings{CAFile: file, CertFile: "/none", KeyFile: "/none"}}
	if _, err := c.RootCAs(); err == nil {
		t.Error("no error for a file that is not there")
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	pool, err := c.RootCAs()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Certificate().Verify(x509.VerifyOptions{Roots: pool}); err != nil {
		t.Error(err)
	}
}
