//go:build linux || darwin

package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// baseMaxLine is the longest line that a base-only agent can read.
const baseMaxLine = 65536

// A baseAgent is an agent that knows only the eight base types, written from the protocol alone. It behaves like
// chatixia's own agents: it starts a sidecar, waits for the socket, and stops listening for good at a line that is
// too long or not UTF-8 JSON. That fails the test, as does every line that a base-only agent must not see.
type baseAgent struct {
	t       *testing.T
	sidecar *process
	conn    net.Conn
	lines   *transcript
	done    chan struct{} // closed when it stops listening
	writing sync.Mutex

	mu      sync.Mutex
	ended   bool
	pending map[string]string // peer asked by request id
}

// startBaseAgent is a base-only agent with the given sidecar.
func startBaseAgent(command func(*testing.T) *exec.Cmd) func(*testing.T, *stage, string) console {
	return func(t *testing.T, st *stage, id string) console {
		return newBaseAgent(t, startProcess(t, command(t), st.environ(id)))
	}
}

// sidecarCommand is the sidecar of this project, configured by its environment only.
func sidecarCommand(t *testing.T) *exec.Cmd { return exec.Command(theSidecar(t)) }

func newBaseAgent(t *testing.T, sidecar *process) *baseAgent {
	a := &baseAgent{
		t: t, sidecar: sidecar, conn: sidecar.connect(t), lines: newTranscript(),
		done: make(chan struct{}), pending: make(map[string]string),
	}
	go func() {
		defer close(a.done)
		if err := a.listen(); err != nil && !a.left() {
			a.t.Errorf("a base-only agent stopped listening: %v", err)
		}
	}()
	t.Cleanup(func() { _ = a.quit() })
	return a
}

func (a *baseAgent) left() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

func (a *baseAgent) listen() error {
	r := bufio.NewReaderSize(a.conn, baseMaxLine)
	for {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			return errors.New("the sidecar has ended")
		}
		if err != nil {
			return err // bufio.ErrBufferFull: too long
		}
		if !utf8.Valid(line) {
			return fmt.Errorf("not UTF-8: %q", line)
		}
		var e struct {
			Type    string
			Payload struct {
				PeerID  string `json:"peer_id"`
				From    string `json:"from_peer"`
				Peers   []string
				Message json.RawMessage
			}
		}
		var any any // fails at numbers beyond a double, some of which Python's parser rejects
		if err := errors.Join(json.Unmarshal(line, &e), json.Unmarshal(line, &any)); err != nil {
			return fmt.Errorf("%w: %q", err, line)
		}
		switch e.Type {
		case "peer_connected":
			a.lines.add("+ " + e.Payload.PeerID)
		case "peer_disconnected":
			a.lines.add("- " + e.Payload.PeerID)
		case "peer_list":
			a.lines.add(strings.TrimSpace("peers: " + strings.Join(e.Payload.Peers, " ")))
		case "message":
			a.message(e.Payload.From, e.Payload.Message)
		default:
			a.t.Errorf("a base-only agent got %s", line)
		}
	}
}

// message matches a response, or prints a message and responds to it.
func (a *baseAgent) message(from string, raw json.RawMessage) {
	m, ok := parse(string(raw), "")
	if !ok {
		a.t.Errorf("a base-only agent got the message %s", raw)
	}
	a.mu.Lock()
	asked, ok := a.pending[m.RequestID]
	if ok && asked == from {
		delete(a.pending, m.RequestID)
		a.mu.Unlock()
		a.lines.add(from + " answers: " + string(raw))
		return
	}
	a.mu.Unlock()
	a.lines.add(from + ": " + string(raw))
	reply := map[string]any{"request_id": m.RequestID, "payload": map[string]string{"error": "no handler for " + m.Type}}
	switch {
	case m.Type == "ping":
		reply = map[string]any{"type": "pong", "request_id": m.RequestID}
	case m.RequestID == "" || !strings.HasSuffix(m.Type, "_request"):
		return
	case m.Type == "echo_request":
		reply["payload"] = m.Payload
	}
	if reply["type"] == nil {
		reply["type"] = strings.TrimSuffix(m.Type, "_request") + "_response"
	}
	if err := a.command("send", map[string]any{"target_peer": from, "message": reply}); err != nil {
		a.t.Errorf("answering %s: %v", from, err)
	}
}

func (a *baseAgent) command(typ string, payload any) error {
	line, err := json.Marshal(event{typ, payload})
	if err != nil {
		return err
	}
	return a.raw(line)
}

// raw writes a line as it is.
func (a *baseAgent) raw(line []byte) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	_, err := a.conn.Write(append(line, '\n'))
	return err
}

func (a *baseAgent) say(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	peer, text, _ := strings.Cut(rest, " ")
	switch verb {
	case "peers":
		return a.command("list_peers", struct{}{})
	case "connect":
		return a.command("connect", map[string]string{"target_peer_id": peer})
	case "broadcast":
		return a.command("broadcast", map[string]json.RawMessage{"message": json.RawMessage(rest)})
	case "request":
		m, _ := parse(text, "")
		a.mu.Lock()
		a.pending[m.RequestID] = peer
		a.mu.Unlock()
		fallthrough
	case "send":
		return a.command("send", map[string]any{"target_peer": peer, "message": json.RawMessage(text)})
	}
	return fmt.Errorf("no such command: %s", line)
}

func (a *baseAgent) said() *transcript { return a.lines }

func (a *baseAgent) log() string { return a.sidecar.stderr.String() }

// quit closes the link, which ends the sidecar.
func (a *baseAgent) quit() error {
	if !a.end() {
		return nil
	}
	_ = a.conn.Close()
	<-a.done
	return a.sidecar.wait()
}

// kill makes the sidecar crash.
func (a *baseAgent) kill() {
	a.end()
	_ = a.sidecar.Process.Kill()
	<-a.done
	_ = a.conn.Close()
}

// end marks the link's end as expected. It returns true the first time.
func (a *baseAgent) end() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.ended
	a.ended = true
	return first
}
