package main

import (
	"bufio"
	"context"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/signaling"
)

// asHello makes the test binary the program.
const asHello = "HELLO_TEST_RUN"

// patience bounds a test. It is generous because the machine may be busy.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(asHello) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func hello(t *testing.T, url string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), asHello+"=1", "SIGNALING_URL="+url)
	return c
}

// server is a signaling server.
func server(t *testing.T) (url string) {
	t.Helper()
	s, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(func() { _ = s.Close(); web.Close() })
	return "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
}

func TestHello(t *testing.T) {
	url := server(t)
	bob := hello(t, url, "bob")
	out, err := bob.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "joined as bob\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if got, err := hello(t, url, "alice", "bob", "to be", "or not to be").Output(); string(got) != "6 words\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := bob.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(lines)
	if err := bob.Wait(); string(rest) != "counting for \"alice\"\n" || err != nil {
		t.Errorf("bob: %q, %v", rest, err)
	}
}

func TestErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"usage: hello NAME":                    {"alice", "bob"},
		"go run ./cmd/chatixia-signaling -dev": {"alice"},
	} {
		got, err := hello(t, "ws://127.0.0.1:1/ws", args...).CombinedOutput()
		if err == nil || !strings.Contains(string(got), want) {
			t.Errorf("%q: %q, %v", args, got, err)
		}
	}
}

// The README shows this program whole.
func TestReadme(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("README.md does not show examples/hello/main.go as it is: copy it into the block")
	}
}
