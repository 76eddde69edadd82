//go:build linux || darwin

package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// The heirs hold the agent's connection as descriptor 3. A talker says there what it reads, a listener reads what comes.
const (
	talker   = `while read -r line; do printf '%s\n' "$line" >&3; done`
	listener = `cat <&3 >/dev/null & read -r line; kill $!`
)

// agentOf is the process of an agent that has given a copy of its connection to a child, its heir. It says first.
func agentOf(first, script string) {
	conn, err := sock.Dial(context.Background(), os.Getenv("MESH_TEST_SOCKET"))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.WriteString(conn, first)
	file, err := conn.(*net.UnixConn).File()
	if err != nil {
		fmt.Println(err)
		return
	}
	heir := exec.Command("sh", "-c", script)
	heir.Stdin, heir.ExtraFiles = os.Stdin, []*os.File{file}
	if err := heir.Start(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(heir.Process.Pid)
	<-time.After(testutil.Patience)
}

// A family is an agent with an heir, both processes.
type family struct {
	t     *testing.T
	agent *exec.Cmd
	in    io.WriteCloser // the heir reads it
	heir  int
}

// newFamily has the process of this test run once more, as agentOf.
func (h *hosted) newFamily() *family {
	h.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+h.t.Name()+"$")
	cmd.Env = append(os.Environ(), "MESH_TEST_SOCKET="+h.path)
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	f := &family{t: h.t, agent: cmd, in: in}
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = in.Close() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		f.heir, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		h.t.Fatalf("the agent said %q: %v", line, err)
	}
	return f
}

// kill kills the agent's first process.
func (f *family) kill() {
	f.t.Helper()
	if err := f.agent.Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	_, _ = f.agent.Process.Wait() // it was killed
}

// lives checks that the heir still runs.
func (f *family) lives() {
	f.t.Helper()
	if err := syscall.Kill(f.heir, 0); err != nil {
		f.t.Errorf("the heir: %v", err)
	}
}

// When the agent's process is killed, its sidecar ends, also if another process holds the connection.
func TestHostOutlivedByCopy(t *testing.T) {
	if os.Getenv("MESH_TEST_SOCKET") != "" {
		agentOf(hello+"\n"+`{"type":"list_peers"}`+"\n", talker)
		return
	}
	h := hostWith(t, Host{Settings: alone(""), heirs: 100 * time.Millisecond})
	f := h.newFamily()
	f.lives()
	f.kill()
	if err := h.ended(); err != nil {
		t.Error(err)
	}
	f.lives()
	if n := h.log.Count("another one holds its connection"); n != 1 {
		t.Errorf("that is in the log %d times", n)
	}
}

// An agent that becomes a daemon once it has connected goes on, whether it has said something before or not: what it says
// after its first process has ended counts. Then the end of file ends the sidecar.
func TestHostDaemon(t *testing.T) {
	if os.Getenv("MESH_TEST_SOCKET") != "" {
		agentOf(os.Getenv("MESH_TEST_FIRST"), talker)
		return
	}
	for name, first := range map[string]string{"said hello": hello + "\n", "silent": ""} {
		t.Setenv("MESH_TEST_FIRST", first)
		h := hostWith(t, Host{Settings: alone(""), heirs: 3 * time.Second})
		f := h.newFamily()
		if first != "" {
			h.servesSomeone()
		}
		f.kill()
		h.log.Wait(t, "has ended, but not its connection")
		if _, err := io.WriteString(f.in, `{"type":"list_peers"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		h.log.Wait(t, "another one goes on as the agent")
		h.waits()
		f.lives()
		if err := f.in.Close(); err != nil { // the heir ends
			t.Error(err)
		}
		if err := h.ended(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// So does one that only listens, and has said all that it has to say before its first process ended.
func TestHostListeningDaemon(t *testing.T) {
	if os.Getenv("MESH_TEST_SOCKET") != "" {
		agentOf(hello+"\n", listener)
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells whether the other end reads")
	}
	settings := newSignaling(t)
	h := hostWith(t, Host{Settings: settings("alice"), heirs: 5 * time.Second})
	f := h.newFamily()
	h.servesSomeone()
	f.kill()
	h.log.Wait(t, "has ended, but not its connection")
	newAgent(t, settings("bob")).greeted().expect("peer_connected") // as alice's heir hears
	h.log.Wait(t, "another one goes on as the agent")
	h.waits()
	f.lives()
	if err := f.in.Close(); err != nil { // the heir ends
		t.Error(err)
	}
	if err := h.ended(); err != nil {
		t.Error(err)
	}
}
