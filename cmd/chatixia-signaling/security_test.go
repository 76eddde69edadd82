package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestOldSettings: keys and secrets that were made for another server work, if the operator says so.
func TestOldSettings(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", `{"keys":{"ak_dev_001":{"peer_id":"agent-001","role":"agent"}}}`)
	write(t, ".env", "PORT=0\nAPI_KEYS_FILE=keys.json\nSIGNALING_SECRET=short\nTURN_URL=turn:t\nTURN_SECRET=short\n")
	url, stop := start(t, nil, "-allow-weak-secrets", "-allow-anonymous-turn")
	if status, body := request(t, "POST", url+"/api/token", "ak_dev_001"); status != 200 {
		t.Errorf("token: %d %s", status, body)
	}
	if _, body := request(t, "GET", url+"/api/config", ""); !strings.Contains(body, "turn:t") {
		t.Errorf("config: %s", body)
	}
	if log := stop(); !strings.Contains(log, "AllowWeakSecrets") || !strings.Contains(log, "AllowAnonymousTURN") {
		t.Errorf("the log does not say what weakens the server:\n%s", log)
	}
}

// TestPlainHTTPWarning: keys over plain HTTP on anything but loopback are in the log at the start.
func TestPlainHTTPWarning(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	certify(t, "cert.pem", "key.pem", 1)
	for _, c := range []struct {
		name string
		args []string
		want bool
	}{
		{"every address", []string{"-addr", "0.0.0.0"}, true},
		{"loopback", nil, false},
		{"TLS", []string{"-addr", "0.0.0.0", "-tls-cert", "cert.pem", "-tls-key", "key.pem"}, false},
	} {
		_, stop := start(t, vars{"PORT": "0", "API_KEYS_FILE": "keys.json"}, c.args...)
		if got := strings.Contains(stop(), "unencrypted"); got != c.want {
			t.Errorf("%s: warning %v, want %v", c.name, got, c.want)
		}
	}
}

// TestFewDescriptors is the attack of clients that connect and say nothing more, on a process that may have few files
// open: others still get in, and who is in stays.
func TestFewDescriptors(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no limit of open files on Windows")
	}
	url := startProcess(t, 300)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	join := func(name string) *websocket.Conn {
		t.Helper()
		_, body := request(t, "POST", url+"/api/token", name)
		var token struct{ Token string }
		if err := json.Unmarshal([]byte(body), &token); err != nil {
			t.Fatal(err)
		}
		conn, _, err := websocket.Dial(ctx, url+"/ws?token="+token.Token, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		return conn
	}
	first := join("first")
	for i := range 400 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if i%10 == 0 {
			continue // says nothing at all; the others keep the connection after a request
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err == nil && i < 250 {
			_, _ = c.Read(make([]byte, 1))
		}
	}
	second := join("second")
	for name, c := range map[string]*websocket.Conn{"first": first, "second": second} {
		if err := c.Write(ctx, websocket.MessageText, []byte(`{"type":"register","peer_id":"`+name+`"}`)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, b, err := c.Read(ctx); err != nil || !strings.Contains(string(b), "peer_list") {
			t.Fatalf("%s: %s, %v", name, b, err)
		}
	}
}

// startProcess runs the command in development mode, with at most so many descriptors, and returns its URL.
func startProcess(t *testing.T, descriptors int) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" -dev -port 0 -log-format json`, descriptors), exe)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{asCommand + "=1", "GOCOVERDIR=" + cmd.Dir}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			var entry struct{ URL string }
			if json.Unmarshal(sc.Bytes(), &entry) == nil && entry.URL != "" {
				ready <- entry.URL
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	select {
	case url := <-ready:
		return url
	case <-read:
		t.Fatal("the process ended")
	case <-time.After(patience):
		t.Fatal("not listening")
	}
	return ""
}

// TestReload: renewed certificate files are used at once, a connection that is open stays, and files that do not fit
// together, as between two writes, change nothing.
func TestReload(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	certify(t, "cert.pem", "key.pem", 1)
	url, stop := start(t, vars{"PORT": "0", "API_KEYS_FILE": "keys.json"}, "-tls-cert", "cert.pem", "-tls-key", "key.pem")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	serial := func() int64 {
		t.Helper()
		resp, err := client.Get(url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.ProtoMajor != 1 {
			t.Errorf("%s", resp.Proto)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if !strings.HasPrefix(url, "https://") || serial() != 1 {
		t.Fatalf("%s has another certificate", url)
	}
	conn := dialTLS(t, client, url)
	certify(t, "cert.pem", "other.pem", 2) // its key is not there yet
	if got := serial(); got != 1 {
		t.Errorf("certificate %d with a half of the files", got)
	}
	if err := os.Rename("other.pem", "key.pem"); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("certificate %d, want the new one", got)
	}
	if err := os.Remove("key.pem"); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 {
		t.Errorf("certificate %d without files, want the last", got)
	}
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"register","peer_id":"agent-001"}`)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := conn.Read(t.Context()); err != nil || !strings.Contains(string(b), "peer_list") {
		t.Errorf("the open connection: %s, %v", b, err)
	}
	_ = conn.CloseNow()
	log := stop()
	for _, want := range []string{"TLS certificate reloaded", "cannot be used", `"signaling_url":"wss://`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}

func dialTLS(t *testing.T, client *http.Client, url string) *websocket.Conn {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/api/token", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", "key-one-of-tests")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var token struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&token); err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.Dial(t.Context(), url+"/ws?token="+token.Token, &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestHandshakeFlood: TLS handshakes that fail do not fill the log.
func TestHandshakeFlood(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	certify(t, "cert.pem", "key.pem", 1)
	url, stop := start(t, vars{"PORT": "0", "API_KEYS_FILE": "keys.json"}, "-tls-cert", "cert.pem", "-tls-key", "key.pem")
	for range 200 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, c) // until the server has seen it
		_ = c.Close()
	}
	if log := stop(); strings.Count(log, "\n") > 30 || !strings.Contains(log, "TLS handshake error") {
		t.Errorf("%d lines in the log:\n%.2000s", strings.Count(log, "\n"), log)
	}
}

// certify writes a certificate with a serial number, and its key, to two files.
func certify(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Clean(certFile), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, filepath.Clean(keyFile), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}
