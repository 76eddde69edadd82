package mesh

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/chatixia-ai/mesh/internal/strict"
)

// Typed returns a Handler of a function that takes and returns values of its own types:
// the payload of the request is decoded into Req, and what the function returns is the
// payload of the response, both by the tags of encoding/json. A member that Req has no field
// for, a value of another type, and the absence of a field with the tag
// `mesh:"required"` fail the request with CodeInvalidArgument and the path of the field,
// and the function does not run.
//
//	mesh.Config{Handlers: map[string]mesh.Handler{"count_request": mesh.Typed(count)}}
func Typed[Req, Res any](f func(ctx context.Context, from Peer, req Req) (Res, error)) Handler {
	return func(ctx context.Context, msg *Message) (any, error) {
		var req Req
		if err := msg.decodeArgument(&req); err != nil {
			return nil, err
		}
		return f(ctx, msg.peer(), req)
	}
}

// decodeArgument decodes the payload of a request into v.
func (m *Message) decodeArgument(v any) error {
	raw, err := payload(m.Payload) // which an interceptor may have set
	switch {
	case err != nil:
		return err
	case raw == nil:
		raw = json.RawMessage("null")
	}
	err = strict.Unmarshal(raw, v, "payload")
	if at := (*strict.FieldError)(nil); errors.As(err, &at) {
		return NewError(CodeInvalidArgument, at.Error(), struct {
			Field string `json:"field"`
		}{at.Path})
	}
	return err
}

// peer returns the sender of a message received, as it is now.
func (m *Message) peer() Peer {
	if m.mesh != nil {
		if p, live := m.mesh.livePeer(m.From); live {
			return p
		}
	}
	return Peer{ID: m.From}
}

// Call makes a request of a type and decodes the response into Res; see Request. peer is the id of one, or BySkill. Members
// that Res has no field for are ignored, so that a peer may say more in later versions.
//
//	res, err := mesh.Call[Counted](ctx, m, "bob", "count_request", Count{Text: text})
func Call[Res any, To ~string](ctx context.Context, m *Mesh, peer To, typ string, req any) (res Res, err error) {
	reply, err := m.requestTo(ctx, asTarget(peer), Message{Type: typ, Payload: req})
	if err != nil {
		return res, err
	}
	return res, reply.decodeResponse("request", &res)
}
