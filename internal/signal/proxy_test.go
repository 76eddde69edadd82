package signal_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// proxy is an HTTP proxy that needs the credentials user:pass.
type proxy struct {
	*httptest.Server
	connect http.HandlerFunc // what CONNECT does; a tunnel by default
	target  string

	wg sync.WaitGroup

	mu   sync.Mutex
	seen []string // method and target of each request
}

// newProxy starts a proxy, with TLS unless conf is nil. If target is not empty, every tunnel leads there.
func newProxy(t *testing.T, conf *tls.Config, target string) *proxy {
	t.Helper()
	p := &proxy{target: target}
	p.connect = p.tunnel
	forward := &httputil.ReverseProxy{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: p.dial},
		Rewrite:   func(*httputil.ProxyRequest) {},
	}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.RequestURI)
		p.mu.Unlock()
		if r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYXNz" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method == http.MethodConnect {
			p.connect(w, r)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	if p.TLS = conf; conf != nil {
		p.StartTLS()
	} else {
		p.Start()
	}
	t.Cleanup(func() {
		p.Close()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if p.target != "" {
		addr = p.target
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func (p *proxy) tunnel(w http.ResponseWriter, r *http.Request) {
	server, err := p.dial(r.Context(), "tcp", r.RequestURI)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	client, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		_ = server.Close()
		return
	}
	_, _ = client.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	for _, pair := range [][2]io.ReadWriteCloser{{server, bufferedConn{client, rw}}, {client, server}} {
		p.wg.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = client.Close()
			_ = server.Close()
		})
	}
}

// bufferedConn is a connection whose first bytes may be in a buffer.
type bufferedConn struct {
	net.Conn
	r io.Reader
}

func (b bufferedConn) Read(p []byte) (int, error) { return b.r.Read(p) }

func (p *proxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// url returns the proxy's URL with credentials.
func (p *proxy) url(credentials string) *url.URL {
	u, err := url.Parse(strings.Replace(p.URL, "://", "://"+credentials+"@", 1))
	if err != nil {
		panic(err)
	}
	return u
}

// through returns f's configuration with a proxy.
func (f *fake) through(proxy func(*http.Request) (*url.URL, error), conf *tls.Config) signal.Config {
	cfg := f.clientConfig()
	cfg.HTTPClient = &http.Client{Transport: &http.Transport{Proxy: proxy, DisableKeepAlives: true, TLSClientConfig: conf}}
	return cfg
}

// TestProxy: a WebSocket goes through a proxy with CONNECT, with TLS or without.
func TestProxy(t *testing.T) {
	a := newAuthority(t)
	trust := &tls.Config{RootCAs: a.pool()}
	for _, c := range []struct {
		name          string
		server, proxy *tls.Config
		want          []string // of the requests that the proxy sees, with the server's address for %s
	}{ // first a handshake with the key, which this server does not take
		{"plain", nil, nil, []string{"CONNECT %s", "POST http://%s/api/token", "CONNECT %s"}},
		{"TLS to the server", a.serverConfig(time.Now().Add(time.Hour)), nil, []string{"CONNECT %s", "CONNECT %s", "CONNECT %s"}},
		{"TLS to the proxy", nil, a.serverConfig(time.Now().Add(time.Hour)), []string{"CONNECT %s", "POST http://%s/api/token", "CONNECT %s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, p := newFakeTLS(t, c.server), newProxy(t, c.proxy, "")
			r := newRecorder()
			stop := start(t, signal.New(f.through(http.ProxyURL(p.url("user:pass")), trust)), r)
			r.waitKind(t, "registered")
			want := slices.Clone(c.want)
			for i := range want {
				want[i] = fmt.Sprintf(want[i], f.host())
			}
			if got := p.requests(); !slices.Equal(got, want) {
				t.Errorf("the proxy saw %q, want %q", got, want)
			}
			stop()
		})
	}
}

func TestNoProxy(t *testing.T) {
	f, p := newFake(t), newProxy(t, nil, "")
	r := newRecorder()
	start(t, signal.New(f.through(func(*http.Request) (*url.URL, error) { return nil, nil }, nil)), r)
	r.waitKind(t, "registered")
	if got := p.requests(); len(got) > 0 {
		t.Errorf("the proxy saw %q", got)
	}
}

// TestProxyFailures: errors name the proxy and not its password. Only the WebSocket is to use it.
func TestProxyFailures(t *testing.T) {
	for _, c := range []struct {
		name, credentials string
		connect           http.HandlerFunc
		permanent         bool
		want              string
	}{
		{"wrong credentials", "user:hush", nil, true, "407 Proxy Authentication Required; put user:password@ into the proxy's URL"},
		{"forbidden", "user:pass", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, true, "403 Forbidden"},
		{"server not there", "user:pass", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, false, "502 Bad Gateway"},
		{"silent", "user:pass", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false, "deadline exceeded"},
		{"endless", "user:pass", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, false, "response to CONNECT"},
		{"hasty", "user:pass", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n"))
			_ = conn.Close()
		}, false, "cannot have sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, p := newFake(t), newProxy(t, nil, "")
			if c.connect != nil {
				p.connect = c.connect
			}
			proxyURL := p.url(c.credentials)
			client := signal.New(f.through(func(r *http.Request) (*url.URL, error) {
				if r.URL.Path == "/ws" {
					return proxyURL, nil
				}
				return nil, nil
			}, nil))
			if c.name == "silent" {
				signal.SetTiming(client, "request", 200*time.Millisecond)
			}
			r := newRecorder()
			stop := start(t, client, r)
			s := r.waitFailure(t)
			text := s.Err.Error()
			if s.Permanent != c.permanent || errors.Is(s.Err, signal.ErrRefused) || !strings.Contains(text, c.want) ||
				!strings.Contains(text, "proxy "+p.URL) && c.name != "silent" || strings.Contains(text, "hush") || strings.Contains(text, "tok-") {
				t.Errorf("status %+v, want an error with %q", s, c.want)
			}
			stop()
		})
	}
}

// TestProxyFromEnvironment runs a client in another process: net/http reads the environment once.
func TestProxyFromEnvironment(t *testing.T) {
	const child = "MESH_SIGNAL_TEST_CHILD"
	if os.Getenv(child) != "" {
		c, r := signal.New(signal.Config{Settings: signal.Settings{URL: "ws://mesh.test/ws", TokenURL: "http://mesh.test/api/token", APIKey: apiKey}}), newRecorder()
		start(t, c, r)
		e := r.wait(t, "end", func(e event) bool { return e.kind == "registered" || e.status.Err != nil })
		fmt.Println("child:", e.kind, e.status.Err)
		return
	}
	f := newFake(t)
	p := newProxy(t, nil, f.host())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyFromEnvironment$")
	cmd.Env = append(os.Environ(), child+"=1", "HTTP_PROXY="+p.url("user:pass").String(), "http_proxy=", "NO_PROXY=", "no_proxy=", "REQUEST_METHOD=")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "child: registered") {
		t.Errorf("%v: %s", err, out)
	}
	if got, want := p.requests(), []string{"CONNECT mesh.test:80", "POST http://mesh.test/api/token", "CONNECT mesh.test:80"}; !slices.Equal(got, want) {
		t.Errorf("the proxy saw %q, want %q", got, want)
	}
}
