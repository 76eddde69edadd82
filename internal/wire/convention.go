package wire

import "strings"

// The conventions of chatixia agents about message types: see "Messages" in docs/protocol.md.

// A ping and its response, whose types have no suffix.
const (
	MessagePing = "ping"
	MessagePong = "pong"
)

const (
	responseSuffix = "_response"
	chunkSuffix    = "_stream_chunk"
)

// requestSuffixes are the endings of a request's type, which its response replaces by _response.
var requestSuffixes = [...]string{"_request", "_query", "_prompt"}

// A Lane is a part of the messages to a peer whose order is kept. Messages of different lanes may overtake each other.
type Lane uint8

const (
	// LaneCalls is that of messages with a request_id: requests, their responses and the chunks before those. Cancels belong
	// to it.
	LaneCalls Lane = iota
	// LaneOrdered is that of all other messages.
	LaneOrdered
	// Lanes is how many there are.
	Lanes
)

// Lane returns the lane of a message.
func (m *Message) Lane() Lane {
	if len(m.RequestID) > 0 {
		return LaneCalls
	}
	return LaneOrdered
}

// CanRespond reports whether a message of this type may be the response to a request. Chunks of a
// streamed response carry the request's id and come before the response, and a request that happens to
// carry the same id is still a request.
func CanRespond(typ string) bool { return typ != MessagePing && !IsChunk(typ) && !isRequest(typ) }

// IsChunk reports whether a message of this type is a part of a streamed response.
func IsChunk(typ string) bool { return strings.HasSuffix(typ, chunkSuffix) }

// WantsResponse reports whether a message for which no call is pending is a request. Requests of types
// outside the convention count, but never a response that comes late: to respond to it would set off an
// endless exchange of errors.
func WantsResponse(typ, requestID string) bool {
	return requestID != "" && typ != MessagePong && !strings.HasSuffix(typ, responseSuffix) && !IsChunk(typ)
}

// isRequest reports whether a type is that of a request by convention.
func isRequest(typ string) bool {
	for _, s := range requestSuffixes {
		if strings.HasSuffix(typ, s) {
			return true
		}
	}
	return false
}

// ResponseType returns the type of the response to a request.
func ResponseType(typ string) string {
	if typ == MessagePing {
		return MessagePong
	}
	return requestBase(typ) + responseSuffix
}

// ChunkType returns the type of a part of the response to a request.
func ChunkType(typ string) string { return requestBase(typ) + chunkSuffix }

// requestBase returns the type of a request without the suffix that says that it is one.
func requestBase(typ string) string {
	for _, s := range requestSuffixes {
		if base, ok := strings.CutSuffix(typ, s); ok {
			return base
		}
	}
	return typ
}
