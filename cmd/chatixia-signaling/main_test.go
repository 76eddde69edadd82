package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/dotenv"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

const patience = testutil.Patience

// asCommand makes the test binary the command itself.
const asCommand = "CHATIXIA_SIGNALING_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

type vars map[string]string

func (v vars) lookup(name string) (string, bool) {
	value, ok := v[name]
	return value, ok
}

// start runs the command with JSON logs and returns its URL, with a function that stops it and
// returns everything it has logged.
func start(t *testing.T, env vars, args ...string) (url string, stop func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{"-addr", "127.0.0.1", "-log-format", "json"}, args...), env.lookup, w)
		_ = w.Close()
	}()
	lines := make(chan string, 1000)
	go func() {
		for sc := bufio.NewScanner(r); sc.Scan(); {
			lines <- sc.Text()
		}
		close(lines)
	}()
	var all strings.Builder
	timeout := time.After(patience)
	for url == "" {
		select {
		case line, ok := <-lines:
			var entry struct{ URL string }
			_ = json.Unmarshal([]byte(line), &entry)
			all.WriteString(line + "\n")
			if url = entry.URL; !ok {
				cancel()
				t.Fatalf("run ended with %v:\n%s", <-done, &all)
			}
		case <-timeout:
			t.Fatalf("not listening within %v:\n%s", patience, &all)
		}
	}
	stopped := false
	stop = func() string {
		if stopped {
			return all.String()
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		for line := range lines {
			all.WriteString(line + "\n")
		}
		return all.String()
	}
	t.Cleanup(func() { stop() })
	return url, stop
}

func request(t *testing.T, method, url, key string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key)
	req.Close = true // leaves no connection behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// write makes a file in the working directory, which is the test's own.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const keysFile = `{"keys":{"key-one-of-tests":{"peer_id":"agent-001","role":"agent"}}}`

func TestServes(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	env := vars{"PORT": "0", "API_KEYS_FILE": "keys.json", "SIGNALING_SECRET": strings.Repeat("hush", 9), "TURN_URL": "turn:t", "TURN_SECRET": strings.Repeat("whisper", 5)}
	url, stop := start(t, env)
	if status, body := request(t, "GET", url+"/healthz", ""); status != 200 {
		t.Errorf("healthz: %d %s", status, body)
	}
	if status, body := request(t, "POST", url+"/api/token", "key-one-of-tests"); status != 200 || !strings.Contains(body, "agent-001") {
		t.Errorf("token: %d %s", status, body)
	}
	if status, _ := request(t, "POST", url+"/api/token", "key-two-of-tests"); status != 401 {
		t.Errorf("wrong key: %d", status)
	}
	if _, body := request(t, "GET", url+"/api/config", "key-one-of-tests"); !strings.Contains(body, `"turn:t"`) || !strings.Contains(body, ":mesh") {
		t.Errorf("config: %s", body)
	}
	if _, body := request(t, "GET", url+"/api/config", ""); strings.Contains(body, "turn") {
		t.Errorf("config for anyone: %s", body)
	}
	log := stop()
	for _, want := range []string{"listening", "stopping", "stopped", `"token_url":"` + url + `/api/token"`, `"signaling_url":"ws` + strings.TrimPrefix(url, "http") + `/ws"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}
	for _, secret := range []string{"hush", "whisper", "key-one-of-tests", "key-two-of-tests"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log tells %q:\n%s", secret, log)
		}
	}
}

func TestDevelopment(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	url, stop := start(t, vars{"API_KEYS_FILE": "keys.json"}, "-dev", "-port", "0")
	if status, body := request(t, "POST", url+"/api/token", "whoever"); status != 200 || !strings.Contains(body, "whoever") {
		t.Errorf("token: %d %s", status, body)
	}
	if log := stop(); !strings.Contains(log, "keys file not used") {
		t.Errorf("the log does not mention the unused keys file:\n%s", log)
	}
}

// TestPrecedence: a flag overrides the environment, the environment overrides .env, and empty counts as unset.
func TestPrecedence(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".env", "\ufeff# local\nPORT=1000\nTURN_URL=turn:file\nSIGNALING_SECRET='file secret'\nexport API_KEYS_FILE=\"file.json\"\n")
	write(t, "secret", "\ufeffsecret of the file\n") // with the byte order mark of some editors
	for _, c := range []struct {
		name string
		env  vars
		args []string
		want settings
	}{
		{"file", nil, nil, settings{port: "1000", turnURL: "turn:file", secret: "file secret", keysFile: "file.json"}},
		{"environment", vars{"PORT": "2000", "TURN_URL": "turn:env", "SIGNALING_SECRET": "env", "API_KEYS_FILE": "env.json"}, nil,
			settings{port: "2000", turnURL: "turn:env", secret: "env", keysFile: "env.json"}},
		{"flags", vars{"PORT": "2000"}, []string{"-port", "3000", "-turn-url", "turn:flag", "-secret-file", "secret", "-keys-file", "flag.json", "-turn-secret-file", "secret"},
			settings{port: "3000", turnURL: "turn:flag", secret: "secret of the file", turnSecret: "secret of the file", keysFile: "flag.json"}},
		{"empty", vars{"PORT": "", "TURN_URL": "", "SIGNALING_SECRET": "", "API_KEYS_FILE": ""}, nil, settings{port: "8080"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			env, err := dotenv.Load(".env", c.env.lookup)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseSettings(c.args, env.Get, io.Discard)
			c.want.logFormat, c.want.logLevel, c.want.given = "text", "info", got.given
			if err != nil || got != c.want {
				t.Fatalf("%+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

func TestBadDotEnv(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".env", "SIGNALING_SECRET hunter2\n= \"\n")
	_, stop := start(t, nil, "-dev", "-port", "0")
	if log := stop(); !strings.Contains(log, ".env") || strings.Contains(log, "hunter2") {
		t.Errorf("want a warning without what is in the file:\n%s", log)
	}
}

func TestErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	write(t, "broken.json", `{"keys":{"key-one-of-tests":{}}}`)
	write(t, "empty", "\n")
	write(t, "weak.json", `{"keys":{"ak_dev_001":{"peer_id":"agent-001","role":"agent"}}}`)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	for _, c := range []struct {
		name  string
		env   vars
		args  []string
		want  []string
		usage bool
	}{
		{"no keys", nil, nil, []string{"-keys-file", "API_KEYS_FILE", "-dev", `"peer_id"`}, false},
		{"keys file missing", vars{"API_KEYS_FILE": "none.json"}, nil, []string{"none.json", "-keys-file", "API_KEYS_FILE", `{"keys": {"`}, false},
		{"keys file not JSON", nil, []string{"-keys-file", "empty"}, []string{"empty", `{"keys": {"`, `"peer_id"`}, false},
		{"keys file broken", nil, []string{"-keys-file", "broken.json"}, []string{"broken.json", "peer_id: empty"}, false},
		{"published secret", vars{"API_KEYS_FILE": "keys.json", "SIGNALING_SECRET": "dev-secret-change-me"}, nil, []string{"Secret: ", "SIGNALING_SECRET"}, false},
		{"TURN URL alone", vars{"API_KEYS_FILE": "keys.json", "TURN_URL": "turn:x"}, nil, []string{"TURNSecret", "TURN_SECRET"}, false},
		{"secret file missing", nil, []string{"-dev", "-secret-file", "none"}, []string{"-secret-file", "none"}, false},
		{"secret file empty", nil, []string{"-dev", "-turn-secret-file", "empty"}, []string{"-turn-secret-file", "empty"}, false},
		{"port taken", nil, []string{"-dev", "-port", taken}, []string{taken, "-port", "PORT"}, false},
		{"port too large", vars{"PORT": "65536"}, []string{"-dev"}, []string{"PORT", `"65536"`}, true},
		{"port by name", nil, []string{"-dev", "-port", "http"}, []string{"-port", `"http"`}, true},
		{"unknown flag", nil, []string{"-bogus"}, []string{"-bogus", "-h"}, true},
		{"argument", nil, []string{"-dev", "8080"}, []string{`"8080"`, "-h"}, true},
		{"weak secret", vars{"API_KEYS_FILE": "keys.json", "SIGNALING_SECRET": "x"}, nil, []string{"Secret: 1 bytes", "-allow-weak-secrets"}, false},
		{"weak key", nil, []string{"-keys-file", "weak.json"}, []string{"Keys: ", `"agent-001"`, "-allow-weak-secrets", "API_KEYS_FILE"}, false},
		{"certificate alone", nil, []string{"-dev", "-tls-cert", "x"}, []string{"-tls-cert", "-tls-key"}, true},
		{"certificate missing", nil, []string{"-dev", "-tls-cert", "none.pem", "-tls-key", "none.pem"}, []string{"none.pem", "-tls-cert"}, false},
		{"bad proxy", nil, []string{"-trusted-proxies", "10.0.0.1,proxy"}, []string{"-trusted-proxies", `"proxy"`}, true},
		{"proxy in development", nil, []string{"-dev", "-trusted-proxies", "10.0.0.1"}, []string{"-trusted-proxies", "TrustedProxies"}, false},
		{"negative limit", nil, []string{"-dev", "-max-guesses", "-1"}, []string{"-max-guesses", "-1"}, true},
		{"log level", nil, []string{"-dev", "-log-level", "loud"}, []string{"-log-level", `"loud"`}, true},
		{"log format", nil, []string{"-dev", "-log-format", "xml"}, []string{"-log-format", `"xml"`}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			err := run(t.Context(), c.args, c.env.lookup, &stderr)
			if err == nil {
				t.Fatal("no error")
			}
			if errors.Is(err, errUsage) != c.usage {
				t.Errorf("usage error: %v, want %v", !c.usage, c.usage)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %s", err, want)
				}
			}
			if strings.Contains(err.Error()+stderr.String(), "key-one-of-tests") {
				t.Errorf("the key is told: %q %q", err, &stderr)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var stderr bytes.Buffer
	env := vars{"PORT": "4711", "TURN_URL": "turn:private"}
	if err := run(t.Context(), []string{"-h"}, env.lookup, &stderr); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("error %v, want flag.ErrHelp", err)
	}
	help := stderr.String()
	for _, want := range []string{"-addr", "-port", "-keys-file", "-secret-file", "-turn-url", "-turn-secret-file", "-dev", "-log-format", "-log-level", "-version",
		"-tls-cert", "-tls-key", "-trusted-proxies", "-max-connections", "-max-per-address", "-max-guesses", "-max-queue", "-max-queue-total",
		"-allow-weak-secrets", "-allow-anonymous-turn",
		"PORT", "API_KEYS_FILE", "SIGNALING_SECRET", "TURN_URL", "TURN_SECRET", "default 8080", ".env", "but 100 or more"} {
		if !strings.Contains(help, want) {
			t.Errorf("-h does not mention %s", want)
		}
	}
	if strings.Contains(help, "4711") || strings.Contains(help, "private") {
		t.Errorf("-h shows the environment of the moment:\n%s", help)
	}
}

func TestDisplayHost(t *testing.T) {
	addr := &net.TCPAddr{IP: net.IPv6unspecified, Port: 80}
	for host, want := range map[string]string{"": "localhost:80", "0.0.0.0": "localhost:80", "::": "localhost:80", "::1": "[::1]:80", "example.org": "example.org:80"} {
		if got := displayHost(host, addr); got != want {
			t.Errorf("displayHost(%q) = %q, want %q", host, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	var stderr bytes.Buffer
	env := vars{"PORT": "not a port"}
	if err := run(t.Context(), []string{"-version"}, env.lookup, &stderr); !errors.Is(err, errVersion) || stderr.Len() > 0 {
		t.Fatalf("error %v, stderr %q", err, &stderr)
	}
}

// TestProcess runs the whole command: exit status, and an end by signal.
func TestProcess(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Dir = t.TempDir()
		cmd.Env = []string{asCommand + "=1", "GOCOVERDIR=" + cmd.Dir, "SYSTEMROOT=" + os.Getenv("SYSTEMROOT")}
		return cmd
	}
	for _, c := range []struct {
		args []string
		code int
	}{{[]string{"-h"}, 0}, {[]string{"-version"}, 0}, {nil, 1}, {[]string{"-bogus"}, 2}} {
		cmd := command(c.args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.code {
			t.Errorf("%q: exit status %d, want %d: %s", c.args, got, c.code, out)
		}
		if len(c.args) == 1 && c.args[0] == "-version" && !strings.HasPrefix(string(out), "chatixia-signaling ") {
			t.Errorf("%q prints %q", c.args, out)
		}
	}
	if runtime.GOOS == "windows" {
		return // a process cannot be sent SIGTERM there
	}
	cmd := command("-dev", "-port", "0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for sc := bufio.NewScanner(stderr); sc.Scan(); {
		_, _ = fmt.Fprintln(&log, sc.Text())
		if strings.Contains(sc.Text(), "listening") {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), "stopped") {
		t.Errorf("after SIGTERM: %v\n%s", err, &log)
	}
}
