//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

func TestServeProgram(t *testing.T) {
	onMesh(t)
	p := start(t, "serve", "sum", "--id", "bob", "--", "sh", "-c", `echo "hello $MESH_PEER_ID"; sha256sum; echo done >&2`)
	p.out.wait(t, "at bob:sum")
	m := joined(t, "alice", mesh.Config{})
	for range 3 { // one process for each
		c := stream(t, m, "bob", "sum")
		_, _ = c.Write([]byte("text"))
		_ = c.CloseWrite()
		want := "hello alice\n982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1  -\n"
		if text, err := io.ReadAll(c); err != nil || string(text) != want {
			t.Errorf("%q, %v", text, err)
		}
	}
	p.err.wait(t, "done\n")
	p.interrupt()
	p.ends(t, 0)
}

// A program that ends ends the stream, though the peer has not; one that fails is told of.
func TestProgramEnds(t *testing.T) {
	onMesh(t)
	p := start(t, "serve", "x", "--id", "bob", "--", "sh", "-c", "echo bye; exit 3")
	p.out.wait(t, "at bob:x")
	c := stream(t, joined(t, "alice", mesh.Config{}), "bob", "x")
	if text, err := io.ReadAll(c); err != nil || string(text) != "bye\n" {
		t.Errorf("%q, %v", text, err)
	}
	p.err.wait(t, "the program for alice has ended: exit status 3")
	testutil.Eventually(t, "the end of the stream", func() bool {
		_, err := c.Write([]byte("x"))
		return err != nil
	})
}

// A program and what it has started end with the stream, also if they do not want to, and with the link.
func TestProgramIsEnded(t *testing.T) {
	for _, trap := range []string{"", "trap '' TERM; "} {
		onMesh(t)
		p := start(t, "serve", "x", "--id", "bob", "--", "sh", "-c", trap+"sleep 1000 & echo $$ $!; while :; do wait; sleep 0.1; done")
		p.out.wait(t, "at bob:x")
		m := joined(t, "alice", mesh.Config{})
		c := stream(t, m, "bob", "x")
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		_ = m.Close()
		for _, field := range strings.Fields(string(b[:n])) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			gone(t, pid)
		}
		p.interrupt()
		p.ends(t, 0)
	}
}

// gone blocks until a process has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	defer func() {
		if t.Failed() { // it is still there
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	testutil.Eventually(t, fmt.Sprintf("the end of process %d", pid), func() bool {
		stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return syscall.Kill(pid, 0) != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestMCP(t *testing.T) {
	onMesh(t)
	p := start(t, "serve", "mcp/echo", "--id", "bob", "--", "sh", "-c", `read line; echo "{\"got\":$line}"; exec cat`)
	p.out.wait(t, "at bob:mcp/echo")
	q := start(t, "mcp", "bob:echo")
	if _, err := io.WriteString(q.in, "{\"id\":1}\n"); err != nil {
		t.Fatal(err)
	}
	q.out.wait(t, "{\"got\":{\"id\":1}}\n")
	_, _ = io.WriteString(q.in, "rest")
	_ = q.in.Close()
	q.ends(t, 0)
	if got := q.out.String(); got != "{\"got\":{\"id\":1}}\nrest" {
		t.Errorf("standard output is %q", got)
	}
	cli("mcp", "bob:other").hasStatus(t, 1, "nobody listens", "mesh serve mcp/other")

	q = start(t, "mcp", "bob:echo") // whose server is interrupted
	_, _ = io.WriteString(q.in, "1\n")
	q.out.wait(t, "{\"got\":1}\n")
	p.interrupt()
	q.ends(t, 1, "mesh mcp: bob:mcp/echo: the stream was reset: the peer has given the stream up") // and has not said all
}

// An MCP client that is gone without a word, as one that was killed, does not end mesh mcp by SIGPIPE: the peer is told.
func TestMCPClientGone(t *testing.T) {
	onMesh(t)
	t.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	p := start(t, "serve", "mcp/yes", "--id", "bob", "--", "sh", "-c", "echo $$; exec yes")
	p.out.wait(t, "at bob:mcp/yes")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs output
	q := startProcess(t, w, &errs, "mcp", "bob:yes", "--id", "alice")
	_ = w.Close()
	var pid int
	if _, err := fmt.Fscanln(r, &pid); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	_ = q.Wait() // the status tells
	if got := q.ProcessState.ExitCode(); got != 128+int(syscall.SIGPIPE) || errs.String() != "" {
		t.Errorf("mesh mcp has ended with %v: %s", q.ProcessState, errs.String())
	}
	gone(t, pid)
	p.err.wait(t, "the stream of alice broke off: ")
}

// A reader of a command's output may have enough of it, as head has: the command leaves the mesh, and says nothing.
func TestNobodyReads(t *testing.T) {
	onMesh(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var errs output
	p := startProcess(t, w, &errs, "listen", "--id", "carol")
	_ = w.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "listening as carol\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_ = r.Close()
	cli("send", "carol", "note", "hi").hasStatus(t, 0)
	_ = p.Wait() // the status tells
	if got := p.ProcessState.ExitCode(); got != 128+int(syscall.SIGPIPE) || errs.String() != "" {
		t.Errorf("mesh listen has ended with %v: %s", p.ProcessState, errs.String())
	}
}

// A receiver that cannot write, as with a full disk, says so, and why.
func TestCopyToFullDisk(t *testing.T) {
	onMesh(t)
	t.Chdir(t.TempDir())
	if err := errors.Join(os.Mkdir("in", 0o700), os.WriteFile("big", make([]byte, 4<<20), 0o600), os.WriteFile("small", []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out, errs output
	p := exec.Command("sh", "-c", `ulimit -f 1024; exec "$0" "$@"`, os.Args[0], "recv", "in", "--id", "bob", "--once")
	p.Env, p.Stdout, p.Stderr = append(os.Environ(), asCommand+"=1"), &out, &errs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	cli("cp", "big", "small", "bob:").hasStatus(t, 1, "big: the peer: ", "file too large")
	_ = p.Wait() // the status tells
	if b, err := os.ReadFile("in/small"); string(b) != "x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat("in/big"); err == nil {
		t.Error("what is not complete has the name of the file")
	}
}
