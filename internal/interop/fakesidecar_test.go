//go:build linux || darwin

package interop

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// scripts are the example agents in other languages, by the kind of party.
var scripts = map[string][2]string{
	"Python": {"python3", "python/agent.py"},
	"Node":   {"node", "node/agent.mjs"},
}

// A fakeSidecar is a sidecar whose lines the test writes and reads.
type fakeSidecar struct {
	t    *testing.T
	conn net.Conn
	said *bufio.Reader // by the agent
}

// fakeSidecarFor starts an example agent with a fake sidecar.
func fakeSidecarFor(t *testing.T, name string) (*fakeSidecar, *scriptParty) {
	t.Helper()
	return fakeSidecarOf(t, name, scripts[name][1])
}

// fakeSidecarOf starts a script in the language of an example agent with a fake sidecar.
func fakeSidecarOf(t *testing.T, name, script string, flags ...string) (*fakeSidecar, *scriptParty) {
	t.Helper()
	kindNamed(name).check(t)
	socket := filepath.Join(testutil.ShortDir(t), "s")
	l, err := sock.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if l, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
		if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	agent := runScript(t, nil, scripts[name][0], script, append(flags, "--socket", socket)...)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &fakeSidecar{t: t, conn: conn, said: bufio.NewReader(conn)}, agent
}

// greets ends the handshake: the agent has one peer, bob.
func (s *fakeSidecar) greets() {
	s.t.Helper()
	s.hears(`"hello"`)
	s.hears(`"list_peers"`)
	s.says(`{"type":"ready","payload":{"protocol":1,"features":["error","flow","cancel","drain","identity"]}}`,
		`{"type":"peer_list","payload":{"peers":["bob"]}}`)
}

// greetsWithCards is the same for a sidecar that knows cards. It returns the agent's hello.
func (s *fakeSidecar) greetsWithCards() (hello string) {
	s.t.Helper()
	hello = s.hears(`"hello"`)
	s.hears(`"list_peers"`)
	s.says(`{"type":"ready","payload":{"protocol":1,"features":["error","flow","cancel","drain","identity","cards"]}}`,
		`{"type":"peer_list","payload":{"peers":["bob"]}}`)
	return hello
}

func (s *fakeSidecar) says(lines ...string) {
	s.t.Helper()
	if _, err := io.WriteString(s.conn, strings.Join(lines, "\n")+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

// hears returns the next line of the agent, which must hold a text.
func (s *fakeSidecar) hears(what string) string {
	s.t.Helper()
	line, err := s.said.ReadString('\n')
	if err != nil || !strings.Contains(line, what) {
		s.t.Fatalf("the agent wrote %q, %v; want %s", line, err, what)
	}
	return line
}

// closes ends the link.
func (s *fakeSidecar) closes() {
	s.t.Helper()
	if err := s.conn.Close(); err != nil {
		s.t.Error(err)
	}
}
