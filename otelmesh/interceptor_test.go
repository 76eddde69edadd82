package otelmesh_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/otelmesh"
)

// A trace runs from alice through bob's handler to carol.
func TestTrace(t *testing.T) {
	s := newStage(t)
	s.join("carol", map[string]mesh.Handler{"count_request": mesh.Typed(countWords)})
	var carried string
	s.join("bob", map[string]mesh.Handler{"plan_request": func(ctx context.Context, msg *mesh.Message) (any, error) {
		carried = baggage.FromContext(ctx).Member("tenant").Value()
		return mesh.Call[words](ctx, msg.Mesh(), "carol", "count_request", text{"to be or not"})
	}})
	alice := s.join("alice", nil)
	member, err := baggage.NewMember("tenant", "blue")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	got, err := mesh.Call[words](baggage.ContextWithBaggage(t.Context(), bag), alice, "bob", "plan_request", nil)
	if err != nil || got.Words != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	if carried != "blue" {
		t.Errorf("bob's handler has the baggage %q", carried)
	}
	spans := s.ended(4)
	want := []string{"alice: client request plan_request", "bob: client request count_request", "bob: server handle plan_request", "carol: server handle count_request"}
	if !slices.Equal(titles(spans), want) {
		t.Fatalf("got %q, want %q", titles(spans), want)
	}
	asks, passes, handles, counts := spans[0], spans[1], spans[2], spans[3]
	if asks.Parent.IsValid() || handles.Parent.SpanID() != asks.SpanContext.SpanID() || !handles.Parent.IsRemote() ||
		passes.Parent.SpanID() != handles.SpanContext.SpanID() || passes.Parent.IsRemote() || counts.Parent.SpanID() != passes.SpanContext.SpanID() {
		t.Errorf("the parents are wrong: %+v", spans)
	}
	for i, want := range []map[string]string{
		{"messaging.operation.name": "request", "messaging.operation.type": "send", "messaging.destination.name": "plan_request", "mesh.peer.id": "bob", "messaging.message.body.size": ""},
		{"messaging.operation.name": "request", "messaging.operation.type": "send", "messaging.destination.name": "count_request", "mesh.peer.id": "carol"},
		{"messaging.operation.name": "handle", "messaging.operation.type": "process", "messaging.destination.name": "plan_request", "mesh.peer.id": "alice"},
		{"messaging.operation.name": "handle", "messaging.operation.type": "process", "messaging.destination.name": "count_request", "mesh.peer.id": "bob", "messaging.message.body.size": "23"},
	} {
		want["messaging.system"], want["error.type"] = "mesh", ""
		for key, value := range want {
			if got := attr(spans[i], key); got != value {
				t.Errorf("%s: %s is %q, want %q", title(spans[i]), key, got, value)
			}
		}
		if spans[i].SpanContext.TraceID() != asks.SpanContext.TraceID() || spans[i].Status.Code != codes.Unset {
			t.Errorf("%s is of trace %v, with status %v", title(spans[i]), spans[i].SpanContext.TraceID(), spans[i].Status)
		}
	}
	// Both ends have the id that the mesh has drawn.
	if id := attr(asks, "messaging.message.conversation_id"); id == "" || id != attr(handles, "messaging.message.conversation_id") {
		t.Errorf("the ids are %q and %q", id, attr(handles, "messaging.message.conversation_id"))
	}
	s.want(map[string]float64{
		"messaging.client.operation.duration{destination.name=plan_request operation.name=request}":  1,
		"messaging.client.operation.duration{destination.name=count_request operation.name=request}": 1,
		"messaging.client.sent.messages{destination.name=plan_request operation.name=request}":       1,
		"messaging.process.duration{destination.name=plan_request operation.name=handle}":            1,
		"messaging.process.duration{destination.name=count_request operation.name=handle}":           1,
		"messaging.client.consumed.messages{destination.name=count_request operation.name=handle}":   1,
	})
}

// Messages that want no response are traced, too.
func TestSend(t *testing.T) {
	s := newStage(t)
	bob := map[string]mesh.Handler{"note": func(context.Context, *mesh.Message) (any, error) { return nil, nil }}
	s.join("bob", bob)
	s.join("carol", bob)
	alice := s.join("alice", nil)
	if err := alice.Send(t.Context(), "bob", mesh.Message{Type: "note"}); err != nil {
		t.Fatal(err)
	}
	spans := s.ended(2)
	if want := []string{"alice: producer send note", "bob: consumer handle note"}; !slices.Equal(titles(spans), want) || spans[1].Parent.SpanID() != spans[0].SpanContext.SpanID() {
		t.Errorf("got %q", titles(spans))
	}
	if err := alice.Broadcast(t.Context(), mesh.Message{Type: "note"}); err != nil {
		t.Fatal(err)
	}
	spans = s.ended(3)
	want := []string{"alice: producer broadcast note", "bob: consumer handle note", "carol: consumer handle note"}
	if !slices.Equal(titles(spans), want) || spans[1].Parent.SpanID() != spans[0].SpanContext.SpanID() || spans[2].Parent.SpanID() != spans[0].SpanContext.SpanID() {
		t.Errorf("got %q", titles(spans))
	}
	s.want(map[string]float64{
		"messaging.client.sent.messages{destination.name=note operation.name=send}":       1,
		"messaging.client.sent.messages{destination.name=note operation.name=broadcast}":  1,
		"messaging.client.consumed.messages{destination.name=note operation.name=handle}": 3,
	})
}

// A streamed reply is one span at each end, however many chunks it has.
func TestStream(t *testing.T) {
	s := newStage(t)
	s.join("bob", map[string]mesh.Handler{"spell_request": mesh.TypedStream(spell)})
	alice := s.join("alice", nil)
	for _, err := range mesh.CallStream[string](t.Context(), alice, "bob", "spell_request", text{"to be or"}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	spans := s.ended(2)
	if want := []string{"alice: client stream spell_request", "bob: server handle spell_request"}; !slices.Equal(titles(spans), want) || spans[1].Parent.SpanID() != spans[0].SpanContext.SpanID() {
		t.Fatalf("got %q", titles(spans))
	}
	for _, span := range spans {
		if attr(span, "mesh.stream.chunks") != "3" || attr(span, "mesh.stream.abandoned") != "" || span.Status.Code != codes.Unset {
			t.Errorf("%s: %v, %v", title(span), span.Attributes, span.Status)
		}
	}
	if id := attr(spans[0], "messaging.message.conversation_id"); id == "" || id != attr(spans[1], "messaging.message.conversation_id") {
		t.Errorf("the id is %q", id)
	}
	s.want(map[string]float64{
		"messaging.client.sent.messages{destination.name=spell_request operation.name=chunk}":       3,
		"messaging.client.operation.duration{destination.name=spell_request operation.name=stream}": 1,
	})
	for range mesh.CallStream[string](t.Context(), alice, "bob", "spell_request", text{strings.Repeat("on and on ", 100_000)}) {
		break
	}
	spans = s.ended(2)
	if got := attr(spans[0], "mesh.stream.abandoned"); got != "true" || spans[0].Status.Code != codes.Unset {
		t.Errorf("alice has left the loop: %v", spans[0])
	}
	if got := attr(spans[1], "error.type"); got != "cancelled" {
		t.Errorf("bob's handler has ended with %q", got)
	}
	seq := mesh.CallStream[string](t.Context(), alice, "bob", "spell_request", map[string]int{"text": 7})
	for range 2 { // what can be run again has a span each time
		for _, err := range seq {
			if !errors.Is(err, mesh.ErrInvalidArgument) {
				t.Error(err)
			}
		}
		if spans = s.ended(2); attr(spans[0], "error.type") != "invalid_argument" || spans[0].Status.Code != codes.Error {
			t.Errorf("%v", spans[0])
		}
	}
	func() {
		defer func() { _ = recover() }()
		for range mesh.CallStream[string](t.Context(), alice, "bob", "spell_request", text{"to"}) {
			panic("in the loop")
		}
	}()
	s.ended(2)
}

// A failure sets the status and the code, at the end where it is known.
func TestFailures(t *testing.T) {
	s := newStage(t)
	s.join("bob", map[string]mesh.Handler{
		"count_request": mesh.Typed(countWords),
		"print_request": func(context.Context, *mesh.Message) (any, error) {
			return nil, mesh.NewError("out_of_paper", "no paper", nil)
		},
		"fail_request": func(context.Context, *mesh.Message) (any, error) {
			return nil, errors.New("oops " + strings.Repeat("x", 1000))
		},
		"panic_request": func(context.Context, *mesh.Message) (any, error) { panic("oh") },
		"slow_request": func(ctx context.Context, _ *mesh.Message) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	alice := s.join("alice", nil)
	for _, tt := range []struct {
		peer, typ     string
		code, handler string // of the handler's span; "" if there is none
		counted       string // how alice's metrics call the code
	}{
		{"bob", "count_request", "invalid_argument", "invalid_argument", "invalid_argument"},
		{"bob", "print_request", "out_of_paper", "out_of_paper", "_OTHER"},
		{"bob", "fail_request", "app", "app", "app"},
		{"bob", "panic_request", "internal", "internal", "internal"},
		{"bob", "slow_request", "deadline_exceeded", "*", "deadline_exceeded"},
		{"bob", "unknown_request", "no_handler", "", "no_handler"},
		{"nobody", "count_request", "not_connected", "", "not_connected"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if tt.typ == "slow_request" {
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		}
		_, err := alice.Request(ctx, tt.peer, mesh.Message{Type: tt.typ})
		cancel()
		if err == nil {
			t.Errorf("%s: no error", tt.typ)
		}
		n := 1
		if tt.handler != "" {
			n = 2
		}
		spans := s.ended(n)
		if got := attr(spans[0], "error.type"); got != tt.code || spans[0].Status.Code != codes.Error || len(spans[0].Status.Description) > 256 || attr(spans[0], "messaging.message.conversation_id") == "" {
			t.Errorf("%s: %v with status %v, want %s", tt.typ, spans[0].Attributes, spans[0].Status, tt.code)
		}
		if n == 2 {
			// Whether the deadline or the cancel is first at bob is not certain.
			got := attr(spans[1], "error.type")
			if got != tt.handler && !(tt.handler == "*" && (got == "cancelled" || got == "deadline_exceeded")) || spans[1].Status.Code != codes.Error {
				t.Errorf("%s: the handler has %v with status %v", tt.typ, spans[1].Attributes, spans[1].Status)
			}
		}
		name := fmt.Sprintf("messaging.client.sent.messages{error.type=%s destination.name=%s operation.name=request}", tt.counted, tt.typ)
		s.want(map[string]float64{name: 1})
	}
	s.want(map[string]float64{"messaging.client.consumed.messages{error.type=out_of_paper destination.name=print_request operation.name=handle}": 1})
}

// What the program gives as the cause of a context's end is no code.
func TestCause(t *testing.T) {
	s := newStage(t)
	s.join("bob", map[string]mesh.Handler{"slow_request": func(ctx context.Context, _ *mesh.Message) (any, error) { <-ctx.Done(); return nil, nil }})
	alice := s.join("alice", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(errors.New("lost interest")) })
	if _, err := alice.Request(ctx, "bob", mesh.Message{Type: "slow_request"}); err == nil {
		t.Error("no error")
	}
	if got := attr(s.ended(2)[0], "error.type"); got != "cancelled" {
		t.Errorf("the code is %q", got)
	}
}

// What a peer writes into Meta is a trace's context, or nothing.
func TestHostileMeta(t *testing.T) {
	s := newStage(t)
	s.join("bob", map[string]mesh.Handler{"count_request": mesh.Typed(countWords)})
	mallory := s.net.Join("mallory", mesh.Config{})
	told := handled(t)
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	many := map[string]string{"traceparent": "00-" + id + "-" + parent + "-01"}
	for i := range 10_000 {
		many[fmt.Sprint("x", i)] = "y"
	}
	for name, tt := range map[string]struct {
		meta  map[string]string
		valid bool
	}{
		"right":           {map[string]string{"traceparent": "00-" + id + "-" + parent + "-01"}, true},
		"many names":      {many, true},
		"no hex":          {map[string]string{"traceparent": "00-" + strings.Repeat("g", 32) + "-" + parent + "-01"}, false},
		"zeros":           {map[string]string{"traceparent": "00-" + strings.Repeat("0", 32) + "-" + parent + "-01"}, false},
		"empty":           {map[string]string{"traceparent": ""}, false},
		"huge":            {map[string]string{"traceparent": strings.Repeat("00-", 1<<20)}, false},
		"long":            {map[string]string{"traceparent": "00-" + id + "-" + parent + "-01" + strings.Repeat("0", 1<<20)}, false},
		"huge tracestate": {map[string]string{"traceparent": "00-" + id + "-" + parent + "-01", "tracestate": strings.Repeat("a=b,", 1<<20)}, true},
		"huge baggage":    {map[string]string{"baggage": strings.Repeat("a=b,", 1<<20)}, false},
		"bad baggage":     {map[string]string{"baggage": ";;;=\x00\xff"}, false},
	} {
		reply, err := mallory.Request(t.Context(), "bob", mesh.Message{Type: "count_request", Payload: text{"a b"}, Meta: tt.meta})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(reply.Meta) != 0 {
			t.Errorf("%s: the response has %v", name, reply.Meta)
		}
		span := s.ended(1)[0]
		if got := span.Parent.IsValid(); got != tt.valid || got && span.SpanContext.TraceID().String() != id || span.SpanContext.TraceState().Len() != 0 {
			t.Errorf("%s: the span has the parent %v", name, span.Parent)
		}
	}
	if n := told(); n != 0 {
		t.Errorf("a peer has caused %d errors to be logged", n)
	}
}

// The span of what has started the mesh is not the parent of what peers ask for.
func TestStartedUnderSpan(t *testing.T) {
	s := newStage(t)
	in := otelmesh.Interceptor(s.options("bob")...)
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "start")
	defer span.End()
	member, _ := baggage.NewMember("a", "b")
	bag, _ := baggage.New(member)
	ctx = baggage.ContextWithBaggage(ctx, bag)
	for _, meta := range []map[string]string{nil, {"traceparent": "nonsense"}} {
		_, err := in.Handle(func(ctx context.Context, _ *mesh.Message) (any, error) {
			if baggage.FromContext(ctx).Len() != 0 {
				t.Error("there is baggage")
			}
			return nil, nil
		})(ctx, &mesh.Message{Type: "note", From: "alice", Meta: meta})
		if err != nil {
			t.Error(err)
		}
		if span := s.ended(1)[0]; span.Parent.IsValid() {
			t.Errorf("the span has the parent %v", span.Parent)
		}
	}
}

// The caller's Meta is its own, and stays.
func TestMeta(t *testing.T) {
	s := newStage(t)
	got := make(chan map[string]string, 1)
	s.join("bob", map[string]mesh.Handler{"note_request": func(_ context.Context, msg *mesh.Message) (any, error) {
		got <- msg.Meta
		return nil, nil
	}})
	for id, tt := range map[string]struct {
		option otelmesh.Option
		want   []string
	}{
		"alice": {otelmesh.WithPropagator(propagator), []string{"mine", "traceparent"}},
		"carol": {otelmesh.WithPropagator(propagation.NewCompositeTextMapPropagator()), []string{"mine"}},
		"dave":  {otelmesh.WithTracerProvider(noop.NewTracerProvider()), []string{"mine"}},
	} {
		mine := map[string]string{"mine": "1"}
		m := s.join(id, nil, tt.option)
		if _, err := m.Request(t.Context(), "bob", mesh.Message{Type: "note_request", Meta: mine}); err != nil {
			t.Fatal(err)
		}
		if keys := slices.Sorted(maps.Keys(<-got)); !slices.Equal(keys, tt.want) || len(mine) != 1 {
			t.Errorf("%s: bob got %q, and the caller has %v", id, keys, mine)
		}
	}
}

// However many types and codes peers and this program come up with, metrics have a bounded number.
func TestBoundedNames(t *testing.T) {
	s := newStage(t)
	const n = 300
	s.join("bob", map[string]mesh.Handler{
		"known_request": func(context.Context, *mesh.Message) (any, error) { return nil, nil },
		"": func(_ context.Context, msg *mesh.Message) (any, error) {
			return nil, mesh.NewError(mesh.Code("code_of_"+msg.Type), "no", nil)
		},
	}, otelmesh.WithNames("t7_request"))
	alice := s.join("alice", nil, otelmesh.WithNames("code_of_t7_request"))
	for i := range n {
		if _, err := alice.Request(t.Context(), "bob", mesh.Message{Type: fmt.Sprintf("t%d_request", i)}); err == nil {
			t.Fatal("no error")
		}
		if _, err := alice.Request(t.Context(), "bob", mesh.Message{Type: "known_request"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, typ := range []string{"\xff_request", strings.Repeat("x", 10_000) + "_request", ""} {
		_, _ = alice.Request(t.Context(), "bob", mesh.Message{Type: typ})
	}
	names := make(map[string]bool)
	for _, span := range s.spans.GetSpans() {
		names[title(span)] = true
		for _, a := range span.Attributes {
			if a.Value.Type() == attribute.STRING && len(a.Value.AsString()) > 128 {
				t.Errorf("%s has a long attribute %s", title(span), a.Key)
			}
		}
	}
	// 128 types at alice, and at bob the two that are known, the first of the others, and these.
	if len(names) > 128+1+4 {
		t.Errorf("there are %d names of spans", len(names))
	}
	got := s.metrics()
	if len(got) > 2*(128+2)+2*(128+64+10) {
		t.Errorf("there are %d metrics", len(got))
	}
	want := map[string]float64{
		"messaging.client.consumed.messages{error.type=code_of_t7_request destination.name=t7_request operation.name=handle}": 1,
		"messaging.client.consumed.messages{error.type=code_of_t8_request destination.name=_OTHER operation.name=handle}":     1,
		"messaging.client.consumed.messages{destination.name=known_request operation.name=handle}":                            n,
		"messaging.client.sent.messages{error.type=code_of_t7_request destination.name=t7_request operation.name=request}":    1,
		"messaging.client.sent.messages{error.type=_OTHER destination.name=t8_request operation.name=request}":                1,
		"messaging.client.sent.messages{destination.name=known_request operation.name=request}":                               n,
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %v, want %v", name, got[name], v)
		}
	}
}

// Many calls at once.
func TestConcurrent(t *testing.T) {
	s := newStage(t)
	s.join("bob", map[string]mesh.Handler{"": mesh.Typed(countWords)})
	alice := s.join("alice", nil)
	done := make(chan error)
	for i := range 100 {
		go func() {
			_, err := mesh.Call[words](t.Context(), alice, "bob", fmt.Sprintf("t%d_request", i%3), text{"a"})
			done <- err
		}()
	}
	for range 100 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.ended(200)
}

// Without providers there is nothing but what OpenTelemetry itself costs.
func BenchmarkInterceptor(b *testing.B) {
	next := func(context.Context, string, mesh.Message) (*mesh.Message, error) {
		return &mesh.Message{RequestID: "1"}, nil
	}
	for name, options := range map[string][]otelmesh.Option{
		"global": nil,
		"spans":  {otelmesh.WithTracerProvider(sdktrace.NewTracerProvider()), otelmesh.WithPropagator(propagator)},
		"unsampled": {otelmesh.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))),
			otelmesh.WithPropagator(propagator)},
	} {
		call := otelmesh.Interceptor(options...).Call(next)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := call(b.Context(), "bob", mesh.Message{Type: "count_request"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
