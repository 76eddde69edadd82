package otelmesh

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"

	"github.com/chatixia-ai/mesh"
)

// Interceptor returns an interceptor that traces what a mesh sends, asks and handles, and measures how long that takes. The context
// of a trace travels in Message.Meta, so that a trace goes from one agent through the handler of another into that handler's own calls.
//
//	what                 span, kind                       metrics
//	Send, Broadcast      "send note", producer            messaging.client.operation.duration, messaging.client.sent.messages
//	Request, Call        "request count_request", client  the same
//	CallStream           "stream count_request", client   the same; until the loop ends
//	chunks of a reply    none                             messaging.client.sent.messages
//	handling a message   "handle note", consumer          messaging.process.duration, messaging.client.consumed.messages
//	handling a request   "handle count_request", server   the same
//
// A failure has its code as error.type: that of the peer's response, or of this agent, such as "not_connected" and "peer_gone".
//
// Peers choose message types and codes, so metrics and the names of spans tell a bounded number apart, and call the others "_OTHER".
// Told apart are the first 128 types that this program sends, one type for each handler (so that those of the handler of "" are
// "_OTHER" once there was a second one), the codes of this library, the first 64 others of this program's own handlers, and those of
// WithNames. Metrics have no ids of peers and requests. Spans have all of these, shortened.
//
// Put it first in Config.Interceptors, so that what the others refuse is seen; after one that tries again, to see each attempt.
func Interceptor(options ...Option) mesh.Interceptor {
	c := newConfig(options)
	meter := c.meter()
	t := &tracing{
		config: c,
		tracer: c.tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		client: made(meter.Float64Histogram(messagingconv.ClientOperationDuration{}.Name(), metric.WithUnit("s"), seconds,
			metric.WithDescription(messagingconv.ClientOperationDuration{}.Description()))),
		process: made(meter.Float64Histogram(messagingconv.ProcessDuration{}.Name(), metric.WithUnit("s"), seconds,
			metric.WithDescription(messagingconv.ProcessDuration{}.Description()))),
		sent: made(meter.Int64Counter(messagingconv.ClientSentMessages{}.Name(), metric.WithUnit("{message}"),
			metric.WithDescription("Number of messages that were sent, or could not be."))),
		consumed: made(meter.Int64Counter(messagingconv.ClientConsumedMessages{}.Name(), metric.WithUnit("{message}"),
			metric.WithDescription(messagingconv.ClientConsumedMessages{}.Description()))),
	}
	return mesh.Interceptor{Send: t.send, Call: t.call, Stream: t.stream, Handle: t.handle}
}

// seconds are the bounds that the conventions ask for, and finer ones: on a network of one's own a request takes less than 5 ms.
var seconds = metric.WithExplicitBucketBoundaries(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

type tracing struct {
	*config
	tracer          trace.Tracer
	client, process metric.Float64Histogram
	sent, consumed  metric.Int64Counter
}

// An operation is one thing that is sent, asked or handled, from its begin to its end.
type operation struct {
	span     trace.Span
	began    time.Time
	duration metric.Float64Histogram
	count    metric.Int64Counter
	op, typ  string // as in metrics
}

// begin begins an operation, on a message of a type that metrics call by a name.
func (t *tracing) begin(ctx context.Context, op string, kind trace.SpanKind, opType attribute.KeyValue, peer, name string, msg *mesh.Message) (context.Context, *operation) {
	attrs := make([]attribute.KeyValue, 0, 8)
	attrs = append(attrs, attrSystem, semconv.MessagingOperationName(op), opType, semconv.MessagingDestinationName(cut(msg.Type, maxName)))
	if peer != "" {
		attrs = append(attrs, keyPeer.String(cut(peer, maxName)))
	}
	if msg.RequestID != "" {
		attrs = append(attrs, conversation(msg.RequestID))
	}
	if raw, ok := msg.Payload.(json.RawMessage); ok {
		attrs = append(attrs, semconv.MessagingMessageBodySize(len(raw)))
	}
	o := &operation{began: time.Now(), duration: t.client, count: t.sent, op: op, typ: name}
	ctx, o.span = t.tracer.Start(ctx, op+" "+name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
	return ctx, o
}

// end ends an operation: with the code of its failure if it has failed, as it is and as metrics call it.
func (o *operation) end(ctx context.Context, failure, code, text string) {
	if failure != "" && o.span.IsRecording() {
		o.span.SetAttributes(semconv.ErrorTypeKey.String(cut(failure, maxName)))
		o.span.SetStatus(codes.Error, cut(text, maxText))
	}
	if o.duration.Enabled(ctx) || o.count.Enabled(ctx) {
		set := metric.WithAttributeSet(messageSet(o.op, o.typ, code))
		o.duration.Record(ctx, time.Since(o.began).Seconds(), set)
		o.count.Add(ctx, 1, set)
	}
	o.span.End()
}

// messageSet returns the attributes of a metric.
func messageSet(op, typ, code string) attribute.Set {
	attrs := []attribute.KeyValue{attrSystem, semconv.MessagingOperationName(op), semconv.MessagingDestinationName(typ), {}}
	if code == "" {
		return attribute.NewSet(attrs[:3]...)
	}
	attrs[3] = semconv.ErrorTypeKey.String(code)
	return attribute.NewSet(attrs...)
}

// endClient ends an operation of this agent.
func (t *tracing) endClient(ctx context.Context, o *operation, err error) {
	if err == nil {
		o.end(ctx, "", "", "")
		return
	}
	code := codeOf(ctx, err)
	o.end(ctx, code, t.code.foreign(code), err.Error())
}

// conversation is the attribute for the id of a request.
func conversation(id string) attribute.KeyValue {
	return semconv.MessagingMessageConversationID(cut(id, maxName))
}

// noteID notes the id of a request, which the mesh has drawn meanwhile.
func (o *operation) noteID(sent *mesh.Message, reply *mesh.Message, err error) {
	if sent.RequestID != "" || !o.span.IsRecording() {
		return
	}
	var failed *mesh.PeerError
	switch {
	case reply != nil:
		o.span.SetAttributes(conversation(reply.RequestID))
	case errors.As(err, &failed) && failed.RequestID != "":
		o.span.SetAttributes(conversation(failed.RequestID))
	}
}

func (t *tracing) send(next mesh.SendFunc) mesh.SendFunc {
	return func(ctx context.Context, peer string, msg mesh.Message) error {
		if msg.RequestID != "" && strings.HasSuffix(msg.Type, chunkSuffix) {
			err := next(ctx, peer, msg)
			t.chunk(ctx, err)
			return err
		}
		op := "send"
		if peer == "" {
			op = "broadcast"
		}
		ctx, o := t.begin(ctx, op, trace.SpanKindProducer, semconv.MessagingOperationTypeSend, peer, t.types.own(msg.Type), &msg)
		inject(ctx, t.propagator, &msg)
		err := next(ctx, peer, msg)
		t.endClient(ctx, o, err)
		return err
	}
}

// What the types of chunks of a streamed reply, and of responses, end in.
const (
	chunkSuffix    = "_stream_chunk"
	responseSuffix = "_response"
)

// wantsResponse reports whether a message that is handled is a request.
func wantsResponse(msg *mesh.Message) bool {
	return msg.RequestID != "" && !strings.HasSuffix(msg.Type, responseSuffix) && !strings.HasSuffix(msg.Type, chunkSuffix)
}

// chunk counts a chunk that a handler has emitted. There may be thousands, so that they have no spans.
func (t *tracing) chunk(ctx context.Context, err error) {
	name, code := other, ""
	run, _ := ctx.Value(runKey{}).(*run)
	if run != nil {
		name = run.name
	}
	switch {
	case err != nil:
		code = t.code.foreign(codeOf(ctx, err))
	case run != nil:
		run.chunks.Add(1)
	}
	if t.sent.Enabled(ctx) {
		t.sent.Add(ctx, 1, metric.WithAttributeSet(messageSet("chunk", name, code)))
	}
}

func (t *tracing) call(next mesh.CallFunc) mesh.CallFunc {
	return func(ctx context.Context, peer string, msg mesh.Message) (*mesh.Message, error) {
		ctx, o := t.begin(ctx, "request", trace.SpanKindClient, semconv.MessagingOperationTypeSend, peer, t.types.own(msg.Type), &msg)
		inject(ctx, t.propagator, &msg)
		reply, err := next(ctx, peer, msg)
		o.noteID(&msg, reply, err)
		t.endClient(ctx, o, err)
		return reply, err
	}
}

func (t *tracing) stream(next mesh.StreamFunc) mesh.StreamFunc {
	return func(ctx context.Context, peer string, msg mesh.Message) iter.Seq2[*mesh.Message, error] {
		return func(yield func(*mesh.Message, error) bool) {
			msg := msg // the loop may be run again
			ctx, o := t.begin(ctx, "stream", trace.SpanKindClient, semconv.MessagingOperationTypeSend, peer, t.types.own(msg.Type), &msg)
			inject(ctx, t.propagator, &msg)
			var failed error
			chunks, over := 0, false
			defer func() { // also when the loop's body panics
				if o.span.IsRecording() {
					o.span.SetAttributes(keyChunks.Int(chunks))
					if !over {
						o.span.SetAttributes(keyAbandoned.Bool(true))
					}
				}
				t.endClient(ctx, o, failed)
			}()
			for reply, err := range next(ctx, peer, msg) {
				switch {
				case err != nil:
					failed, over = err, true
				case strings.HasSuffix(reply.Type, chunkSuffix):
					chunks++
				default:
					over = true
				}
				if over || chunks == 1 {
					o.noteID(&msg, reply, err)
				}
				if !yield(reply, err) {
					return
				}
			}
		}
	}
}

// A run is the work of a handler on a message, in its context.
type run struct {
	name   string // of the type, as in metrics
	chunks atomic.Int64
}

type runKey struct{}

func (t *tracing) handle(next mesh.Handler) mesh.Handler {
	r := &route{names: t.types}
	return func(ctx context.Context, msg *mesh.Message) (reply any, err error) {
		name, kind := r.name(msg.Type), trace.SpanKindConsumer
		if wantsResponse(msg) {
			kind = trace.SpanKindServer
		}
		ctx = extract(ctx, t.propagator, msg.Meta)
		ctx, o := t.begin(ctx, "handle", kind, semconv.MessagingOperationTypeProcess, msg.From, name, msg)
		o.duration, o.count = t.process, t.consumed
		work := &run{name: name}
		returned := false
		defer func() {
			if n := work.chunks.Load(); n > 0 {
				o.span.SetAttributes(keyChunks.Int64(n))
			}
			switch {
			case !returned:
				o.end(ctx, string(mesh.CodeInternal), string(mesh.CodeInternal), "the handler panicked or ended its goroutine")
			case err != nil:
				code := handlerCode(err)
				o.end(ctx, code, t.code.own(code), err.Error())
			default:
				o.end(ctx, "", "", "")
			}
		}()
		reply, err = next(context.WithValue(ctx, runKey{}, work), msg)
		returned = true
		return reply, err
	}
}

// A route names the types that come to one handler: one type, or those that have no handler of their own.
type route struct {
	names *names
	first atomic.Pointer[string]
	many  atomic.Bool
}

func (r *route) name(typ string) string {
	if r.names.has(typ) {
		return typ
	}
	first := r.first.Load()
	if first == nil && usable(typ) {
		if r.first.CompareAndSwap(nil, &typ) {
			return typ
		}
		first = r.first.Load()
	}
	switch {
	case first == nil || *first != typ:
		r.many.Store(true)
		return other
	case r.many.Load():
		return other
	}
	return typ
}
