package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

func testConnect(t *testing.T, p *pair) {
	for _, way := range p.ways() {
		a, b := way[0], way[1]
		if got := a.waitEvents(t, b.id, 0, 1); len(got) != 1 || got[0].Mesh() != a.Mesh || got[0].Peer.ID != b.id || !got[0].Connected || got[0].Err != nil {
			t.Errorf("%s was told %+v", a.id, got)
		}
		if got := a.Peers(); len(got) != 1 || got[0].ID != b.id || got[0].Since.IsZero() {
			t.Errorf("the peers of %s are %v", a.id, got)
		}
		if got := a.Signaling(); got.State != SignalingConnected || got.Err != nil || a.ID() != a.id {
			t.Errorf("%s is %q and has the state %+v", a.id, a.ID(), got)
		}
		if err := a.Connect(bounded(t), b.id); err != nil {
			t.Errorf("%s, connected already: %v", a.id, err)
		}
	}
	if got := p.alice.SidecarPID(); (got != 0) != (p.modes[0] == SelfExec || p.modes[0] == Binary) {
		t.Errorf("mode %v has a sidecar with process id %d", p.modes[0], got)
	}
}

func testSend(t *testing.T, p *pair) {
	const n = 1000
	ctx := bounded(t)
	var got [2]testutil.Record[*Message]
	for i, way := range p.ways() {
		way[1].on(t, "send_note", collect(&got[i]))
	}
	for i := range n {
		for _, way := range p.ways() {
			err := way[0].Send(ctx, way[1].id, Message{Type: "send_note", SourceAgent: "from", TargetAgent: "to", Payload: i})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, way := range p.ways() {
		for j, msg := range got[i].Wait(t, "the messages", func(m []*Message) bool { return len(m) >= n }) {
			var v int
			if err := msg.Decode(&v); err != nil || v != j || msg.From != way[0].id || msg.Type != "send_note" ||
				msg.RequestID != "" || msg.SourceAgent != "from" || msg.TargetAgent != "to" {
				t.Fatalf("message %d from %s to %s is %+v (%v)", j, way[0].id, way[1].id, msg, err)
			}
		}
	}
}

func testBroadcast(t *testing.T, p *pair) {
	const n = 100
	ctx := bounded(t)
	agents := []*agent{p.alice, p.bob, p.extra(t, "carol"), p.extra(t, "dave")}
	p.meet(t, agents[2:]...)
	got := make([]testutil.Record[*Message], len(agents))
	for i, a := range agents {
		a.on(t, "broadcast_note", collect(&got[i]))
	}
	for i := range n {
		for _, a := range agents[:2] {
			if err := a.Broadcast(ctx, Message{Type: "broadcast_note", Payload: i}); err != nil {
				t.Fatalf("%s: %v", a.id, err)
			}
		}
	}
	for i, a := range agents {
		for _, from := range agents[:2] {
			if from == a {
				continue
			}
			of := func(all []*Message) (values []string) {
				for _, m := range all {
					if m.From == from.id {
						values = append(values, string(m.Payload.(json.RawMessage)))
					}
				}
				return values
			}
			all := got[i].Wait(t, "the broadcasts", func(m []*Message) bool { return len(of(m)) >= n })
			for j, v := range of(all) {
				if v != fmt.Sprint(j) {
					t.Fatalf("broadcast %d from %s to %s is %s", j, from.id, a.id, v)
				}
			}
		}
	}
	for i, a := range agents[:2] {
		if m := got[i].All(); slices.ContainsFunc(m, func(m *Message) bool { return m.From == a.id }) {
			t.Errorf("%s got its own broadcast", a.id)
		}
	}
}

func testRequest(t *testing.T, p *pair) {
	ctx := bounded(t)
	for _, way := range p.ways() {
		asker, asked := way[0], way[1]
		for _, typ := range []string{"sum_request", "sum_query", "sum_prompt", "sum"} {
			asked.on(t, typ, func(_ context.Context, msg *Message) (any, error) {
				var v []int
				err := msg.Decode(&v)
				return v[0] + v[1], err
			})
			reply, err := asker.Request(ctx, asked.id, Message{Type: typ, SourceAgent: "me", TargetAgent: "you", Payload: []int{2, 3}})
			if err != nil {
				t.Fatal(err)
			}
			var sum int
			if err := reply.Decode(&sum); err != nil || sum != 5 {
				t.Errorf("%s: got %s, %v", typ, reply.Raw, err)
			}
			if reply.Type != "sum_response" || reply.From != asked.id || reply.RequestID == "" ||
				reply.SourceAgent != "you" || reply.TargetAgent != "me" {
				t.Errorf("%s: got %+v", typ, reply)
			}
		}
		works(t, asker, asked)

		// A handler sends a request to the agent that it works for, under the same request id.
		asker.on(t, "inner_request", echo)
		asked.on(t, "outer_request", func(ctx context.Context, msg *Message) (any, error) {
			reply, err := asked.Request(ctx, msg.From, Message{Type: "inner_request", RequestID: msg.RequestID, Payload: msg.Payload})
			if err != nil {
				return nil, err
			}
			return reply.Payload, nil
		})
		reply, err := asker.Request(ctx, asked.id, Message{Type: "outer_request", RequestID: "same", Payload: "deep"})
		if err != nil || string(reply.Payload.(json.RawMessage)) != `"deep"` || reply.RequestID != "same" {
			t.Errorf("a request from within a handler: got %+v, %v", reply, err)
		}
	}
}

// What a handler sends under the id of its request is no response, whatever its type.
func testNoResponse(t *testing.T, p *pair) {
	ctx := bounded(t)
	p.bob.on(t, "steps_request", func(ctx context.Context, msg *Message) (any, error) {
		for _, typ := range []string{"progress", "steps_response", "pong"} {
			step := Message{Type: typ, RequestID: msg.RequestID, Payload: 0}
			if err := msg.Mesh().Send(ctx, msg.From, step); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "TypedStream") {
				return nil, fmt.Errorf("send of %s: %w", typ, err)
			}
			if err := msg.Mesh().Broadcast(ctx, step); !errors.Is(err, ErrInvalid) {
				return nil, fmt.Errorf("broadcast of %s: %w", typ, err)
			}
		}
		chunk := Message{Type: "steps_stream_chunk", RequestID: msg.RequestID, Payload: 1}
		return "done", msg.Mesh().Send(ctx, msg.From, chunk)
	})
	if got, err := Call[string](ctx, p.alice.Mesh, "bob", "steps_request", nil); got != "done" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	works(t, p.bob, p.alice)
}

// What is said about a message arrives with it: Meta, and until when its asker waits.
func testMeta(t *testing.T, p *pair) {
	meta := map[string]string{"traceparent": "00-0af7-b7ad-01", "": "é\n"}
	var notes testutil.Record[*Message]
	p.bob.on(t, "meta_note", collect(&notes))
	p.bob.on(t, "meta_request", func(ctx context.Context, msg *Message) (any, error) {
		deadline, ok := ctx.Deadline()
		return []any{msg.Meta, ok && time.Until(deadline) > 0, time.Until(deadline) < 9*time.Second}, nil
	})
	ctx, cancel := context.WithTimeout(bounded(t), 9*time.Second)
	defer cancel()
	reply, err := p.alice.Request(ctx, "bob", Message{Type: "meta_request", Meta: meta})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal([]any{meta, true, true})
	if string(reply.Payload.(json.RawMessage)) != string(want) || reply.Meta != nil {
		t.Errorf("the handler got %s", reply.Raw)
	}
	for _, msg := range []Message{{Type: "meta_note", Meta: meta}, {Type: "meta_note"}} {
		if err := p.alice.Send(ctx, "bob", msg); err != nil {
			t.Fatal(err)
		}
	}
	got := notes.Wait(t, "the notes", func(m []*Message) bool { return len(m) == 2 })
	if !maps.Equal(got[0].Meta, meta) || got[1].Meta != nil {
		t.Errorf("notes with %q and %q", got[0].Meta, got[1].Meta)
	}
}

func testHandlerError(t *testing.T, p *pair) {
	const awful = "no such file: \"x\"\n\u2028 \\ é"
	const reported = 3 // of the requests below: by bob's own fault
	from := p.bob.reports.Len()
	p.bob.on(t, "fail_request", func(context.Context, *Message) (any, error) { return nil, errors.New(awful) })
	p.bob.on(t, "panic_request", func(context.Context, *Message) (any, error) { panic("out of paper") })
	p.bob.on(t, "unencodable_request", func(context.Context, *Message) (any, error) { return func() {}, nil })
	p.bob.on(t, "own_request", func(context.Context, *Message) (any, error) {
		return nil, fmt.Errorf("here: %w", NewError("out_of_paper", "tray 2", map[string]int{"tray": 2}))
	})
	p.bob.on(t, "mute_request", func(context.Context, *Message) (any, error) { return nil, errors.New("") })
	p.bob.on(t, "late_request", func(context.Context, *Message) (any, error) { return nil, context.DeadlineExceeded })
	p.bob.on(t, "nested_request", func(ctx context.Context, msg *Message) (any, error) {
		return msg.Mesh().Request(ctx, "alice", Message{Type: "unheard_of_request"})
	})
	p.bob.on(t, "huge_request", func(context.Context, *Message) (any, error) {
		return strings.Repeat("x", p.bob.limits.MaxMessage), nil
	})
	for typ, want := range map[string]struct {
		text string
		code Code
		is   error
	}{
		"fail_request":        {awful, CodeApp, nil},
		"panic_request":       {"internal error", CodeInternal, ErrInternal},
		"unencodable_request": {"internal error: the reply cannot be encoded", CodeInternal, ErrInternal},
		"unheard_of_request":  {"no handler", CodeNoHandler, ErrNoHandler},
		"own_request":         {"here: tray 2", "out_of_paper", nil},
		"mute_request":        {"app", CodeApp, nil}, // an empty text would be no failure
		"late_request":        {"context deadline exceeded", CodeDeadlineExceeded, context.DeadlineExceeded},
		"nested_request":      {"no handler", CodeApp, nil}, // it is not bob who has none
		"huge_request":        {"internal error: the reply is too large", CodeTooLarge, ErrTooLarge},
	} {
		_, err := p.alice.Request(bounded(t), "bob", Message{Type: typ})
		var remote *RemoteError
		var pe *PeerError
		if !errors.As(err, &remote) || !strings.Contains(remote.Text, want.text) || remote.Code != want.code || remote.Reply == nil {
			t.Errorf("%s: %v, code %q", typ, err, remote.Code)
		}
		for _, e := range []error{ErrInternal, ErrNoHandler, ErrTooLarge, ErrBusy, ErrInvalidArgument, context.DeadlineExceeded, context.Canceled} {
			if errors.Is(err, e) != (e == want.is) {
				t.Errorf("%s: %v is %v: %t", typ, err, e, errors.Is(err, e))
			}
		}
		if typ == "own_request" && string(remote.Details) != `{"tray":2}` {
			t.Errorf("the details are %s", remote.Details)
		}
		if typ == "fail_request" && remote != nil && remote.Text != want.text {
			t.Errorf("the text is %q", remote.Text)
		}
		if !errors.As(err, &pe) || pe.Op != "request" || pe.Peer != "bob" || pe.RequestID == "" {
			t.Errorf("%s: the error names no peer or request: %#v", typ, pe)
		}
	}
	p.bob.reports.Wait(t, "the reports", func(errs []error) bool { return len(errs) >= from+reported })
	works(t, p.alice, p.bob)
}

// What goes to a peer that is known not to be there fails at once, for that reason.
func testUnknownPeer(t *testing.T, p *pair) {
	ctx := bounded(t)
	for _, a := range []*agent{p.alice, p.bob} {
		_, requestErr := a.Request(ctx, "nobody", Message{Type: "x_request"})
		for op, err := range map[string]error{
			"request": requestErr,
			"send":    a.Send(ctx, "nobody", Message{Type: "x"}),
			"connect": a.Connect(ctx, "nobody"),
		} {
			var pe *PeerError
			if !errors.Is(err, ErrNotConnected) || !errors.As(err, &pe) || pe.Op != op || pe.Peer != "nobody" {
				t.Errorf("%s of %s: %v", op, a.id, err)
			}
		}
	}
	works(t, p.alice, p.bob)
}

func testLarge(t *testing.T, p *pair) {
	ctx := bounded(t)
	var got testutil.Record[string]
	p.bob.on(t, "large_request", func(_ context.Context, msg *Message) (any, error) {
		got.Add(hash(msg.Payload.(json.RawMessage)))
		return msg.Payload, nil
	})
	sizes := []int{64 << 10, 1 << 20, 8 << 20}
	if !p.full {
		sizes = sizes[:2]
	}
	for _, size := range sizes {
		sent := json.RawMessage(`"` + text(size) + `"`)
		reply, err := p.alice.Request(ctx, "bob", Message{Type: "large_request", Payload: sent})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if all := got.All(); all[len(all)-1] != hash(sent) {
			t.Errorf("%d bytes arrived changed", size)
		}
		if raw := reply.Payload.(json.RawMessage); !bytes.Equal(raw, sent) {
			t.Errorf("%d bytes: %d came back, and not the same", size, len(raw))
		}
	}
	if err := p.alice.Send(ctx, "bob", Message{Type: "large", Payload: json.RawMessage(`"` + strings.Repeat("x", 16<<20) + `"`)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	works(t, p.alice, p.bob)
}

// awkward returns a payload with everything in it that is easy to get wrong.
func awkward() json.RawMessage {
	var controls strings.Builder
	for c := range 0x20 {
		fmt.Fprintf(&controls, `\u%04x`, c)
	}
	return json.RawMessage("{\r\n\t\"controls\": \"" + controls.String() + "\",\r\n" +
		`"short": "\b\f\n\r\t\/\\\"", "quotes": "\"}}\n{\"type\":\"peer_disconnected\",\"payload\":{\"peer_id\":\"bob\"}}",` + "\n\n\r" +
		"\"raw\": \"\u007f \u0080 \u0085 \u00a0 \u2028 \u2029 \ufeff \uffff \U0001F600 e\u0301 \U0010FFFF </script>\",\r\n" +
		`"surrogates": ["\ud83d\ude00", "\ud800", "\udc00", "\udc00\ud800", "\ud800x"],` +
		`"nul": "\u0000", "\u0000": "a key", "": "no key", "\u0074ype": "escaped", "type": "plain", "type": "twice",` +
		`"request_id": 7, "payload": {"message": {"type": null}}, "target_peer": [], "error": "", "result": null,` +
		"\"numbers\":[1e400,-1E-400,-0,0.10,123456789012345678901234567890,1.0000000000000000000000001]\r\n,\n" +
		"\"spaces\" \t:\r\n [ \n ] , \"empty\":{\r},\"literals\":[true,false,null],\"deep\":" +
		strings.Repeat("[", 500) + strings.Repeat("]", 500) + "\n}")
}

func testAwkward(t *testing.T, p *pair) {
	const odd = "\"\\/\b\r\n\x00\x1f\x7f {}[],: \u2028\u2029\ufeff é 日本 \U0001F600"
	sent := Message{
		Type: odd + "_request", RequestID: "id " + odd, SourceAgent: "source " + odd, TargetAgent: "target " + odd,
		Payload: awkward(),
	}
	// The line ends between tokens become spaces. Nothing else changes.
	want := []byte(strings.NewReplacer("\r", " ", "\n", " ").Replace(string(awkward())))
	var got testutil.Record[*Message]
	p.bob.on(t, sent.Type, func(_ context.Context, msg *Message) (any, error) {
		got.Add(msg)
		return msg.Payload, nil
	})
	reply, err := p.alice.Request(bounded(t), "bob", sent)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Type != odd+"_response" || reply.RequestID != sent.RequestID || reply.SourceAgent != sent.TargetAgent || reply.TargetAgent != sent.SourceAgent {
		t.Errorf("the reply is %q", reply.Raw)
	}
	msg := got.All()[0]
	if msg.Type != sent.Type || msg.RequestID != sent.RequestID || msg.SourceAgent != sent.SourceAgent || msg.TargetAgent != sent.TargetAgent {
		t.Errorf("the request is %q", msg.Raw)
	}
	for name, payload := range map[string]any{"request": msg.Payload, "reply": reply.Payload} {
		raw := payload.(json.RawMessage)
		if !bytes.Equal(raw, want) {
			t.Errorf("payload of the %s:\n got %q\nwant %q", name, raw, want)
		}
		if !reflect.DeepEqual(decoded(t, raw), decoded(t, awkward())) {
			t.Errorf("payload of the %s means something else", name)
		}
	}
}

func decoded(t *testing.T, raw []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
