//go:build linux || darwin

package interop

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestRepliesPass: when a pause of everything becomes one of new work, the replies that it held go out. Otherwise two
// agents that are busy with each other would block each other for ever.
func TestRepliesPass(t *testing.T) {
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, agent := fakeSidecarFor(t, name)
			sidecar.greets()
			sidecar.says(`{"type":"pause","payload":{"peer_id":"bob","all":true}}`,
				`{"type":"message","payload":{"from_peer":"bob","message":{"type":"ping","request_id":"r1"}}}`)
			agent.awaits(t, "bob: ")
			agent.does(t, `send bob {"type":"new"}`, "peers")
			sidecar.hears(`"list_peers"`) // and neither the reply nor the message before it
			sidecar.says(`{"type":"peer_list","payload":{"peers":["bob"]}}`, `{"type":"pause","payload":{"peer_id":"bob"}}`)
			sidecar.hears(`"pong"`)
			sidecar.says(`{"type":"resume","payload":{"peer_id":"bob"}}`)
			sidecar.hears(`"new"`)
			agent.does(t, "quit")
			for !strings.HasPrefix(sidecar.hears(""), `{"type":"drain","payload":{"timeout_ms":`) {
				sidecar.says(`{"type":"peer_list","payload":{"peers":["bob"]}}`) // the agent asks whether anyone is there
			}
			sidecar.says(`{"type":"drained","payload":{"peers":["bob"],"unsent":[7]}}`)
			agent.awaits(t, "error: up to 7 messages to bob may not have arrived")
			sidecar.closes()
			if err := agent.quit(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReplacedAgent: an agent whose sidecar was replaced ends with an error that says so, and its requests as well.
func TestReplacedAgent(t *testing.T) {
	const replaced = `{"type":"signaling","payload":{"state":"replaced","error":"another instance has registered"}}`
	for name := range scripts {
		for _, x := range []struct {
			name, last string   // the last line of the sidecar
			lines      []string // of the agent
		}{
			{"replaced", replaced, []string{
				"error: replaced: another instance has registered",
				"error: request r1 to bob: replaced: another instance has registered",
			}},
			{"gone", "", []string{"error: request r1 to bob: the sidecar is gone", "error: the sidecar is gone"}},
		} {
			t.Run(name+"/"+x.name, func(t *testing.T) {
				t.Parallel()
				sidecar, agent := fakeSidecarFor(t, name)
				sidecar.greets()
				agent.awaits(t, "+ bob")
				agent.does(t, `request bob {"type":"a_request","request_id":"r1"}`)
				sidecar.hears(`"a_request"`)
				sidecar.says(x.last)
				sidecar.closes()
				var exit *exec.ExitError
				if err := agent.ends(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
					t.Errorf("the agent ended with %v, want status 1", err)
				}
				got := slices.DeleteFunc(agent.lines.all(), func(l string) bool { return !strings.HasPrefix(l, "error: ") })
				slices.Sort(got) // either may come first
				if !slices.Equal(got, x.lines) {
					t.Errorf("the agent printed %q, want %q", got, x.lines)
				}
			})
		}
	}
}

// TestByteOrderMark: a byte order mark before the first line of a sidecar or of the input is skipped.
func TestByteOrderMark(t *testing.T) {
	const mark = "\ufeff"
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, agent := fakeSidecarFor(t, name)
			sidecar.says(mark + `{"type":"peer_connected","payload":{"peer_id":"cho"}}`)
			sidecar.greets()
			agent.awaits(t, "+ bob")
			agent.does(t, mark+`send cho {"type":"first"}`)
			sidecar.hears(`"first"`)
			sidecar.says(mark + `{"type":"peer_connected","payload":{"peer_id":"dan"}}`)
			agent.awaits(t, "error: a line from the sidecar was skipped")
			if got := agent.lines.all(); !slices.Equal(got[:2], []string{"+ cho", "+ bob"}) {
				t.Errorf("the agent printed %q", got)
			}
		})
	}
}

// TestKeysOfPeers: an agent asks for the keys of its peers and shows them, and why a peer was refused.
func TestKeysOfPeers(t *testing.T) {
	for name := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sidecar, agent := fakeSidecarFor(t, name)
			if hello := sidecar.hears(`"hello"`); !strings.Contains(hello, `"identity"`) {
				t.Errorf("its hello names no feature identity: %s", hello)
			}
			sidecar.hears(`"list_peers"`)
			sidecar.says(`{"type":"ready","payload":{"protocol":1,"features":["error","flow","cancel","drain","identity"]}}`,
				`{"type":"peer_list","payload":{"peers":["bob","cho"],"keys":["bobskey=",""]}}`,
				`{"type":"peer_connected","payload":{"peer_id":"bob","key":"bobskey="}}`,
				`{"type":"peer_connected","payload":{"peer_id":"dan","key":"danskey="}}`,
				`{"type":"error","payload":{"code":"identity","message":"link to eve refused: its key has changed","target_peer":"eve"}}`,
				`{"type":"signaling","payload":{"state":"connecting","error":"the id is not ours","code":"identity"}}`)
			agent.awaits(t, "error: signaling ")
			want := []string{
				"+ bob", "bob has key bobskey=", "+ cho", "+ dan", "dan has key danskey=",
				"error: identity: link to eve refused: its key has changed", "error: signaling connecting: identity: the id is not ours",
			}
			if got := agent.lines.all(); !slices.Equal(got, want) {
				t.Errorf("the agent printed %q, want %q", got, want)
			}
			agent.does(t, "keys")
			agent.awaits(t, "dan has key danskey=")
			agent.awaits(t, "cho has no key")
			sidecar.says(`{"type":"peer_disconnected","payload":{"peer_id":"bob"}}`, `{"type":"peer_connected","payload":{"peer_id":"bob"}}`,
				`{"type":"error","payload":{"code":"internal","message":"bob has come again"}}`)
			agent.awaits(t, "error: internal: bob has come again")
			agent.does(t, "keys")
			agent.awaits(t, "bob has no key")
		})
	}
}

// does gives the agent commands.
func (s *scriptParty) does(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if err := s.say(c); err != nil {
			t.Fatal(err)
		}
	}
}

// awaits blocks until the agent has printed a line that begins with prefix.
func (s *scriptParty) awaits(t *testing.T, prefix string) {
	t.Helper()
	if _, ok := s.lines.find(1, func(l string) bool { return strings.HasPrefix(l, prefix) }); !ok {
		t.Fatalf("the agent did not print %s within %s but %q", prefix, patience, s.lines.all())
	}
}
