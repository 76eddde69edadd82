package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
)

// service is a local service: each connection gets what handle does.
func service(t *testing.T, network, address string, handle func(c end)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c.(end))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// summer responds with the checksum of all that it has read, once the other side has ended.
func summer(c end) {
	sum := sha256.New()
	if _, err := io.Copy(sum, c); err == nil {
		_, _ = c.Write(sum.Sum(nil))
	}
}

func connect(t *testing.T, network, address string) end {
	t.Helper()
	c, err := net.DialTimeout(network, address, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return c.(end)
}

// sums sends data, ends its direction, and checks the response of summer.
func sums(t *testing.T, c end, size int) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if _, err := c.Write(data); err != nil {
		t.Error(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(c)
	if want := sha256.Sum256(data); err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("the checksum of %d bytes is %x, %v, want %x", size, got, err, want)
	}
}

func TestServeForward(t *testing.T) {
	onMesh(t)
	to := service(t, "tcp", "127.0.0.1:0", summer)
	p := start(t, "serve", "sum", "--to", to, "--id", "bob")
	p.out.wait(t, "serving "+to+" at bob:sum")
	socket := filepath.Join(t.TempDir(), "s")
	tcp, unix := start(t, "forward", "0", "bob:sum"), start(t, "forward", "unix:"+socket, "bob:sum", "--json")
	address := tcp.out.after(t, "forwarding ")
	unix.out.wait(t, `{"local":"unix:`+socket+`","peer":"bob","service":"sum"}`)
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", fi, err)
	}
	var all sync.WaitGroup
	for _, size := range []int{0, 1, 100_000, 5 << 20} {
		all.Go(func() { sums(t, connect(t, "tcp", address), size) })
		all.Go(func() { sums(t, connect(t, "unix", socket), size) })
	}
	all.Wait()
	for _, p := range []*running{tcp, unix, p} {
		p.interrupt()
		p.ends(t, 0)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// A connection that comes before the peer waits for it, and not for ever.
func TestForwardWaits(t *testing.T) {
	onMesh(t)
	dir := t.TempDir()
	p := start(t, "forward", "unix:"+filepath.Join(dir, "p"), "nobody:sum", "--wait", "10ms")
	q := start(t, "forward", "unix:"+filepath.Join(dir, "q"), "bob:sum")
	p.err.wait(t, "waiting for nobody")
	q.err.wait(t, "waiting for bob")
	if n, err := connect(t, "unix", filepath.Join(dir, "p")).Read(make([]byte, 1)); err == nil {
		t.Errorf("nobody says %d bytes", n)
	}
	p.err.wait(t, "connection closed: wait for \"nobody\": not within 10ms; is it running")
	early := connect(t, "unix", filepath.Join(dir, "q"))
	b := start(t, "serve", "sum", "--to", service(t, "tcp", "127.0.0.1:0", summer), "--id", "bob")
	sums(t, early, 1000)
	q.out.wait(t, "forwarding ")
	for _, r := range []*running{p, q, b} {
		r.interrupt()
		r.ends(t, 0)
	}
	if got := p.out.String(); got != "" {
		t.Errorf("nobody is there: %q", got)
	}
}

// A service in a Unix socket; bytes that the service sends before and after the client's end.
func TestHalfClose(t *testing.T) {
	onMesh(t)
	socket := filepath.Join(t.TempDir(), "s")
	service(t, "unix", socket, func(c end) {
		_, _ = io.WriteString(c, "hello, ")
		text, _ := io.ReadAll(c)
		_, _ = c.Write(text)
	})
	p := start(t, "serve", "echo", "--to", "unix:"+socket, "--id", "bob")
	p.out.wait(t, "serving")
	m := joined(t, "alice", mesh.Config{})
	c := stream(t, m, "bob", "echo")
	hello := make([]byte, 7)
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != "hello, " {
		t.Fatalf("%q, %v", hello, err)
	}
	if _, err := io.WriteString(c, "world"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(c); err != nil || string(text) != "world" {
		t.Errorf("%q, %v", text, err)
	}
}

// reach waits for a peer.
func reach(t *testing.T, m *mesh.Mesh, peer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := m.WaitPeer(ctx, peer); err != nil {
		t.Fatal(err)
	}
}

// stream opens a stream with the library.
func stream(t *testing.T, m *mesh.Mesh, peer, service string) *mesh.Conn {
	t.Helper()
	reach(t, m, peer)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := m.Dial(ctx, peer, service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return c.(*mesh.Conn)
}

func TestServeRefuses(t *testing.T) {
	onMesh(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close() // and nobody listens there
	p := start(t, "serve", "nobody", "--to", closed.Addr().String(), "--id", "bob", "--allow", "alice,cmd")
	p.out.wait(t, "serving")
	m := joined(t, "alice", mesh.Config{})
	reach(t, m, "bob")
	if c, err := m.Dial(t.Context(), "bob", "nobody"); err == nil {
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes", n)
		}
		_ = c.Close()
	} else if !errors.Is(err, mesh.ErrStreamReset) { // it may be before Dial has returned
		t.Error(err)
	}
	p.err.wait(t, "mesh serve: the stream of alice is closed: dial tcp "+closed.Addr().String())

	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	carol := joined(t, "carol", mesh.Config{})
	if err := carol.WaitPeer(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	if _, err := carol.Dial(ctx, "bob", "nobody"); !errors.Is(err, mesh.ErrStreamRefused) {
		t.Errorf("Dial by one that is not allowed: %v", err)
	}
	for id, says := range map[string]string{"cmd": "mesh serve other --to", "dan": "nobody listens for the service"} {
		f := start(t, "forward", "0", "bob:other", "--id", id)
		c, err := net.Dial("tcp", f.out.after(t, "forwarding "))
		if err == nil { // it may be reset at once
			if n, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes", n)
			}
			_ = c.Close()
		}
		f.err.wait(t, says)
	}
}

// Of a peer that is killed, a connection breaks off, and does not end as if all had arrived. One that comes back is used.
func TestKilledPeer(t *testing.T) {
	onMesh(t)
	t.Setenv("MESH_RECOVERY_TIMEOUT", "3s")
	to := service(t, "tcp", "127.0.0.1:0", func(c end) {
		_, _ = io.WriteString(c, "part")
		_, _ = io.Copy(io.Discard, c)
	})
	var out, errs output
	p := startProcess(t, &out, &errs, "serve", "slow", "--to", to, "--id", "bob")
	f := start(t, "forward", "0", "bob:slow")
	c := connect(t, "tcp", f.out.after(t, "forwarding "))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	_ = c.(net.Conn).SetDeadline(time.Now().Add(3 * limit)) // a link may be silent for a while
	if n, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
	f.err.wait(t, "broke off")
	startProcess(t, &out, &errs, "serve", "slow", "--to", to, "--id", "bob")
	c = connect(t, "tcp", f.out.after(t, "forwarding "))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Error(err)
	}
}

// Signals end a process: cleanly where that is its normal end.
func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such signals")
	}
	onMesh(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		var out, errs output
		p := startProcess(t, &out, &errs, "dev", "--addr", "0")
		out.wait(t, "export SIGNALING_URL=ws://127.0.0.1:")
		if err := p.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", s, err, &errs)
		}
	}
}

func TestDev(t *testing.T) {
	onMesh(t)
	p := start(t, "dev", "--addr", "127.0.0.1:0", "--json")
	p.out.wait(t, "\n")
	var s shownServer
	if err := json.Unmarshal([]byte(p.out.String()), &s); err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(s.URL, "ws://"), "/ws")
	cli("dev", "--addr", address).want(t, 1, address+" is taken", "choose another port")
	t.Setenv("SIGNALING_URL", "ws://127.0.0.1:1/ws") // which a flag takes the place of
	q := start(t, "serve", "x", "--to", "1", "--signaling", s.URL)
	q.out.wait(t, "serving 127.0.0.1:1 at cmd-")
	p.err.wait(t, "peer registered")
	p.interrupt()
	p.ends(t, 0)
	cli("dev", "--addr", "0.0.0.0:0").want(t, 2, "other machines")
	cli("dev", "--addr", "unix:/x").want(t, 2, "--addr")
}

// An agent is never thrown off.
func TestIDInUse(t *testing.T) {
	onMesh(t)
	m := joined(t, "alice", mesh.Config{})
	cli("serve", "x", "--to", "1", "--id", "alice").want(t, 1, "another instance has the peer id", "--id")
	t.Setenv("API_KEY", "alice")
	cli("serve", "x", "--to", "1").want(t, 1, "another instance has the peer id", "API key of its own")
	if m.Err() != nil || m.Signaling().State != mesh.SignalingConnected {
		t.Errorf("the agent has ended: %v", m.Err())
	}
	t.Setenv("API_KEY", "")
	for _, command := range [][]string{{"serve", "x", "--to", "1"}, {"listen"}, {"forward", "0", "alice:x"}} {
		id := "tool-" + command[0]
		p := start(t, append(command, "--id", id)...)
		p.out.wait(t, "ing ")
		joined(t, id, mesh.Config{}) // which gets the id
		p.ends(t, 1, "replaced by another instance", "another --id")
	}
	t.Setenv("API_KEY", "bob")
	cli("serve", "x", "--to", "1", "--id", "carol").want(t, 1, `for the id "bob", not "carol"`)
}

func TestServiceUsage(t *testing.T) {
	onMesh(t)
	taken := service(t, "tcp", "127.0.0.1:0", summer)
	for _, tc := range []struct {
		line   string
		status int
		want   string
	}{
		{"serve x", 2, "--to"},
		{"serve x --to nowhere", 2, `"nowhere"`},
		{"serve x --to unix:", 2, "empty"},
		{"serve a:b --to 1", 2, "service"},
		{"serve --to 1", 2, "one service"},
		{"serve x y --to 1", 2, "one service"},
		{"serve -- cat", 2, "one service"},
		{"serve x --", 2, "no program"},
		{"serve x --to 1 -- cat", 2, "both"},
		{"serve x -- nonesuch", 1, "nonesuch"},
		{"mcp bob", 2, "PEER:SERVICE"},
		{"forward 8000", 2, "arg"},
		{"forward x bob:http", 2, `"x"`},
		{"forward 1:2:3 bob:http", 2, `"1:2:3"`},
		{"forward 0 bob", 2, "PEER:SERVICE"},
		{"forward 0 :http", 2, "PEER:SERVICE"},
		{"forward " + taken + " bob:http", 1, taken + " is taken"},
		{"serve x --to 1 --api-key-file none", 1, "--api-key-file"},
		{"serve x --to 1 --signaling nonsense", 2, "--signaling"},
	} {
		cli(strings.Fields(tc.line)...).want(t, tc.status, tc.want)
	}
}

// Without a signaling server a command says where it has looked, and what to do.
func TestNoServer(t *testing.T) {
	onMesh(t)
	cli("serve", "x", "--to", "1", "--signaling", "ws://127.0.0.1:1/ws").want(t, 1, "ws://127.0.0.1:1/ws", "mesh dev", "refused")
	p := start(t, "serve", "x", "--to", "1", "-v", "--signaling", "ws://127.0.0.1:1/ws")
	p.err.wait(t, "refused")
	p.cancel(signalError{syscall.SIGTERM})
	p.ends(t, 143)
}
