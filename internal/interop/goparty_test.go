//go:build linux || darwin

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A goParty is a Go agent.
type goParty struct {
	*mesh.Mesh
	lines  *transcript
	logged *testutil.LogBuffer
	gate   chan struct{} // closed by the command "release", which messages of type slow wait for
	asking sync.WaitGroup

	mu      sync.Mutex
	cancels map[string]context.CancelFunc // requests of ours by id
	sidecar *process                      // the one it is attached to, if a test started it
}

func startGo(mode mesh.Mode) func(*testing.T, *stage, string) console {
	return func(t *testing.T, st *stage, id string) console {
		cfg := mesh.Config{Mode: mode, SignalingURL: st.signalingURL(), APIKey: id}
		if mode == mesh.Binary {
			cfg.Binary = theSidecar(t)
		}
		return newGoParty(t, cfg, nil)
	}
}

// startGoOnBase is a Go agent attached to a sidecar that knows no extensions.
func startGoOnBase(t *testing.T, st *stage, id string) console {
	p := startProcess(t, baseSidecarCommand(t), st.environ(id))
	p.awaitSocket(t)
	return newGoParty(t, mesh.Config{Mode: mesh.Attach, Socket: p.socket}, p)
}

func newGoParty(t *testing.T, cfg mesh.Config, sidecar *process) console {
	t.Helper()
	g := &goParty{
		lines: newTranscript(), logged: new(testutil.LogBuffer), sidecar: sidecar,
		gate: make(chan struct{}), cancels: make(map[string]context.CancelFunc),
	}
	// The log is shown with a failure only.
	cfg.Logger = zerolog.New(g.logged).Level(zerolog.DebugLevel).With().Timestamp().Logger()
	cfg.Network.MDNS = true // for browsers
	cfg.OnPeer = func(e mesh.PeerEvent) {
		if e.Connected {
			g.lines.add("+ " + e.Peer.ID)
			if e.Peer.Key != "" {
				g.lines.add(e.Peer.ID + " has key " + e.Peer.Key)
			}
			if e.Peer.Card != nil {
				g.showCard(e.Peer)
			}
		} else {
			g.lines.add("- " + e.Peer.ID)
		}
	}
	cfg.Observer.CardChanged = g.showCard
	cfg.OnError = func(err error) { g.lines.add("error: " + err.Error()) }
	cfg.Handlers = map[string]mesh.Handler{
		"ping": func(_ context.Context, m *mesh.Message) (any, error) { return nil, g.print(m) },
		"echo_request": func(_ context.Context, m *mesh.Message) (any, error) {
			return m.Payload, g.print(m)
		},
		"sleep_request": g.sleep,
		"count_request": mesh.TypedStream(g.count),
		"slow": func(ctx context.Context, m *mesh.Message) (any, error) {
			select {
			case <-g.gate:
			case <-ctx.Done():
			}
			var p struct{ I int }
			err := m.Decode(&p)
			g.lines.add(fmt.Sprintf("%s: slow %d", m.From, p.I)) // the whole message is long
			return nil, err
		},
		"": func(_ context.Context, m *mesh.Message) (any, error) {
			if strings.HasSuffix(m.Type, "_stream_chunk") {
				return nil, nil // nobody waits for it any more, or has asked for it
			}
			_ = g.print(m)
			if m.RequestID == "" {
				return nil, nil
			}
			return nil, mesh.NewError(mesh.CodeNoHandler, "no handler for "+m.Type, nil)
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	if g.Mesh, err = mesh.New(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *goParty) print(m *mesh.Message) error {
	g.lines.add(m.From + ": " + string(m.Raw))
	return nil
}

func (g *goParty) sleep(ctx context.Context, m *mesh.Message) (any, error) {
	_ = g.print(m)
	var p struct{ Seconds float64 }
	if err := m.Decode(&p); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(p.Seconds * float64(time.Second))):
		return map[string]string{"result": "slept"}, nil
	case <-ctx.Done():
		g.lines.add(m.From + " gave up on " + m.RequestID)
		return nil, ctx.Err()
	}
}

// maxCount is how far the agents count.
const maxCount = 1_000_000

type (
	countTo struct{ To int }
	counted struct {
		Counted int `json:"counted"`
	}
	counting struct {
		I int `json:"i"`
	}
)

func (g *goParty) count(ctx context.Context, from mesh.Peer, req countTo, emit func(counting) error) (*counted, error) {
	if req.To < 0 || req.To > maxCount {
		return nil, mesh.NewError("out_of_range", "not a number to count to", map[string]int{"max": maxCount})
	}
	for i := 1; i <= req.To; i++ {
		if err := emit(counting{i}); err != nil {
			if ctx.Err() != nil {
				g.lines.add(from.ID + " gave up on counting")
			}
			return nil, err
		}
	}
	return &counted{req.To}, nil
}

func (g *goParty) say(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	peer, text, _ := strings.Cut(rest, " ")
	switch verb {
	case "peers":
		var ids []string
		for _, p := range g.Peers() {
			ids = append(ids, p.ID)
		}
		g.lines.add("peers: " + strings.Join(ids, " "))
	case "send":
		g.report(g.Send(ctx, peer, decode(text)))
	case "broadcast":
		g.report(g.Broadcast(ctx, decode(rest)))
	case "connect":
		g.report(g.Connect(ctx, peer))
	case "request":
		g.asking.Go(func() { g.request(peer, decode(text)) })
	case "stream":
		g.asking.Go(func() { g.stream(peer, decode(text)) })
	case "cancel":
		g.mu.Lock()
		defer g.mu.Unlock()
		g.cancels[rest]()
	case "card":
		var card *mesh.Card
		if err := json.Unmarshal([]byte(rest), &card); err != nil {
			return err
		}
		g.report(g.SetCard(card))
	case "cards":
		for _, p := range g.Peers() {
			g.showCard(p)
		}
	case "skill":
		g.asking.Go(func() { g.skill(peer, json.RawMessage(text)) })
	case "offer":
		g.report(g.offer(rest))
	case "open":
		service, text, _ := strings.Cut(text, " ")
		g.asking.Go(func() { g.open(peer, service, text) })
	case "release":
		close(g.gate)
	default:
		return fmt.Errorf("no such command: %s", line)
	}
	return nil
}

func (g *goParty) showCard(p mesh.Peer) {
	if p.Card == nil {
		g.lines.add(p.ID + " has no card")
		return
	}
	text, err := json.Marshal(p.Card)
	g.report(err)
	g.lines.add(p.ID + " has card " + string(text))
}

// skill makes a request of any peer with a skill.
func (g *goParty) skill(skill string, payload json.RawMessage) {
	reply, err := mesh.Call[json.RawMessage](context.Background(), g.Mesh, mesh.BySkill(skill), "", payload)
	if err != nil {
		g.lines.add(fmt.Sprintf("error: skill %s: %v", skill, err))
		return
	}
	g.lines.add(fmt.Sprintf(`%s answers: {"type":"a_response","payload":%s}`, skill, reply))
}

// request has a context of its own, because it outlives the command.
func (g *goParty) request(peer string, m mesh.Message) {
	ctx, cancel := g.cancelled(m.RequestID)
	defer cancel()
	reply, err := g.Request(ctx, peer, m)
	if err != nil {
		g.failed(peer, m.RequestID, err)
		return
	}
	g.lines.add(peer + " answers: " + string(reply.Raw))
}

// stream prints the chunks of a response as they come. CallStream draws an id of its own.
func (g *goParty) stream(peer string, m mesh.Message) {
	ctx, cancel := g.cancelled(m.RequestID)
	defer cancel()
	var final json.RawMessage
	for chunk, err := range mesh.CallStream[json.RawMessage](ctx, g.Mesh, peer, m.Type, m.Payload, mesh.Final(&final)) {
		if err != nil {
			g.failed(peer, m.RequestID, err)
			return
		}
		g.lines.add(peer + " streams: " + string(chunk))
	}
	g.lines.add(fmt.Sprintf(`%s answers: {"type":"a_response","request_id":%q,"payload":%s}`, peer, m.RequestID, final))
}

// cancelled returns a context that the command "cancel" ends.
func (g *goParty) cancelled(requestID string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cancels[requestID] = cancel
	return ctx, cancel
}

// failed tells of a request that has failed. A response that reports a failure is a response all the same.
func (g *goParty) failed(peer, requestID string, err error) {
	if failed := (&mesh.RemoteError{}); errors.As(err, &failed) {
		text, _ := json.Marshal(map[string]any{"error": failed.Text, "code": failed.Code, "details": failed.Details})
		g.lines.add(fmt.Sprintf(`%s answers: {"type":%q,"request_id":%q,"payload":%s}`, peer, failed.Reply.Type, requestID, text))
		return
	}
	g.lines.add(fmt.Sprintf("error: request %s to %s: %v", requestID, peer, err))
}

// offer sends back what peers write to their streams to a service, until the party ends.
func (g *goParty) offer(service string) error {
	l, err := g.Listen(service)
	if err != nil {
		return err
	}
	g.lines.add("listens for " + service)
	g.asking.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.asking.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c) // who has opened it tells
			})
		}
	})
	return nil
}

// open writes a line to a stream, and adds what comes back.
func (g *goParty) open(peer, service, text string) {
	c, err := g.Dial(context.Background(), peer, service)
	if err != nil {
		g.lines.add(fmt.Sprintf("error: stream to %s/%s: %v", peer, service, err))
		return
	}
	defer func() { _ = c.Close() }()
	g.asking.Go(func() { // meanwhile, as the peer writes while it reads
		_, _ = io.WriteString(c, text+"\n") // if it fails, so does reading
		_ = c.(*mesh.Conn).CloseWrite()
	})
	answer, err := io.ReadAll(c)
	if err != nil {
		g.lines.add(fmt.Sprintf("error: stream to %s/%s: %v", peer, service, err))
		return
	}
	g.lines.add(fmt.Sprintf("%s/%s answers: %s", peer, service, strings.TrimSuffix(string(answer), "\n")))
}

func (g *goParty) report(err error) {
	if err != nil {
		g.lines.add("error: " + err.Error())
	}
}

// decode makes a Message from its text.
func decode(text string) mesh.Message {
	var m message
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		panic(err) // a mistake in the test
	}
	out := mesh.Message{Type: m.Type, RequestID: m.RequestID}
	if m.Payload != nil {
		out.Payload = m.Payload
	}
	return out
}

func (g *goParty) said() *transcript { return g.lines }

func (g *goParty) quit() error {
	err := g.Close()
	g.asking.Wait()
	if g.sidecar != nil {
		err = errors.Join(err, g.sidecar.wait())
	}
	return err
}

func (g *goParty) log() string {
	if g.sidecar != nil {
		return g.logged.String() + g.sidecar.stderr.String()
	}
	return g.logged.String()
}
