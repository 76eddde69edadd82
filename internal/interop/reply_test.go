//go:build linux || darwin

package interop

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// TestRepliesPass: a pause of everything that becomes one of new work lets the replies go that it held.
// Otherwise two agents that are busy with each other would wait for ever. The sidecar is the test.
func TestRepliesPass(t *testing.T) {
	for _, k := range []*kind{kindNamed("Python"), kindNamed("Node")} {
		t.Run(k.name, func(t *testing.T) {
			k.check(t)
			script := map[string][]string{"Python": {"python3", "python/agent.py"}, "Node": {"node", "node/agent.mjs"}}[k.name]
			socket := filepath.Join(shortDir(t), "s")
			l, err := sock.Listen(socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if l, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
				if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
					t.Fatal(err)
				}
			}
			agent := runScript(t, nil, script[0], script[1], "--socket", socket)
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewReader(conn)
			say := func(lines ...string) {
				t.Helper()
				if _, err := io.WriteString(conn, strings.Join(lines, "\n")+"\n"); err != nil {
					t.Fatal(err)
				}
			}
			// hears returns the next line of the agent, which must hold a text.
			hears := func(what string) string {
				t.Helper()
				line, err := said.ReadString('\n')
				if err != nil || !strings.Contains(line, what) {
					t.Fatalf("the agent wrote %q, %v; want %s", line, err, what)
				}
				return line
			}
			hears(`"hello"`)
			hears(`"list_peers"`)
			say(`{"type":"ready","payload":{"protocol":1,"features":["error","flow","cancel","drain"]}}`,
				`{"type":"peer_list","payload":{"peers":["bob"]}}`,
				`{"type":"pause","payload":{"peer_id":"bob","all":true}}`,
				`{"type":"message","payload":{"from_peer":"bob","message":{"type":"ping","request_id":"r1"}}}`)
			if _, ok := agent.lines.find(1, func(l string) bool { return strings.HasPrefix(l, "bob: ") }); !ok {
				t.Fatal("the agent did not print the ping")
			}
			for _, command := range []string{`send bob {"type":"new"}`, "peers"} {
				if err := agent.say(command); err != nil {
					t.Fatal(err)
				}
			}
			hears(`"list_peers"`) // and neither the reply nor the message before it
			say(`{"type":"peer_list","payload":{"peers":["bob"]}}`, `{"type":"pause","payload":{"peer_id":"bob"}}`)
			hears(`"pong"`)
			say(`{"type":"resume","payload":{"peer_id":"bob"}}`)
			hears(`"new"`)
			if err := agent.say("quit"); err != nil {
				t.Fatal(err)
			}
			for hears("") != fmt.Sprintln(`{"type":"drain","payload":{}}`) {
				say(`{"type":"peer_list","payload":{"peers":["bob"]}}`) // it asks whether anybody is there
			}
			say(`{"type":"drained","payload":{}}`)
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if err := agent.quit(); err != nil {
				t.Error(err)
			}
		})
	}
}
