package wire

import (
	"errors"
	"strconv"
)

// Code is the `code` of an `error` event: what went wrong, for programs.
type Code string

// The codes that this version writes. Readers must expect others from later versions.
const (
	// CodeMalformed: the line is not one JSON object in valid UTF-8 (or, from a peer, array).
	CodeMalformed Code = "malformed"
	// CodeUnknownType: the command's type is not known.
	CodeUnknownType Code = "unknown_type"
	// CodeInvalidField: a field is missing, present twice, or of the wrong kind.
	CodeInvalidField Code = "invalid_field"
	// CodeTooLarge: a line or message is longer than the limit, or than the peer can read.
	CodeTooLarge Code = "too_large"
	// CodeTooDeep: a line or message nests deeper than the limit.
	CodeTooDeep Code = "too_deep"
	// CodePeerNotConnected: there is no live link to the target peer.
	CodePeerNotConnected Code = "peer_not_connected"
	// CodePeerUnavailable: the target peer cannot be reached, or signaling does not know it.
	CodePeerUnavailable Code = "peer_unavailable"
	// CodePeerLost: the link to the peer ended before the message was delivered.
	CodePeerLost Code = "peer_lost"
	// CodeQueueFull: the queue to the peer is full; send again after it has resumed.
	CodeQueueFull Code = "queue_full"
	// CodeUnauthorized: the link's token was not accepted.
	CodeUnauthorized Code = "unauthorized"
	// CodeIdentity: the peer's identity was refused.
	CodeIdentity Code = "identity"
	// CodeNoStreams: the peer knows no streams.
	CodeNoStreams Code = "no_streams"
	// CodeNoService: nobody listens for the service at the peer.
	CodeNoService Code = "no_service"
	// CodeRefused: the listener has refused the stream.
	CodeRefused Code = "refused"
	// CodeTooManyStreams: there are as many streams as may be, or as wait for the listener.
	CodeTooManyStreams Code = "too_many_streams"
	// CodeStreamReset: the other end has given the stream up.
	CodeStreamReset Code = "stream_reset"
	// CodeInternal: a fault of the sidecar itself.
	CodeInternal Code = "internal"
)

// Error is what the parsers and [Reader] report about bad input, and what a sidecar tells an agent in
// an `error` event.
type Error struct {
	Code Code
	Text string // for people: names the field and, for input, the offset in bytes
}

// Error returns the code and the text.
func (e *Error) Error() string {
	return string(e.Code) + ": " + e.Text
}

// BadLine returns what is wrong with a line if err is about the line alone, or nil if the connection failed.
func BadLine(err error) *Error {
	if err == nil {
		return nil
	}
	var bad *Error
	if errors.As(err, &bad) {
		return bad
	}
	return nil
}

// problem returns an error about the field at path, found at an offset of the input.
func problem(code Code, path, text string, offset int) *Error {
	if path != "" {
		text = path + ": " + text
	}
	return &Error{Code: code, Text: text + " at byte " + strconv.Itoa(offset)}
}

func tooLarge(path, what string, length, limit int) *Error {
	if path != "" {
		path += ": "
	}
	return &Error{Code: CodeTooLarge, Text: path + what + " of " + strconv.Itoa(length) +
		" bytes, the limit is " + strconv.Itoa(limit)}
}

// firstError returns the first error that is not nil. A nil *Error must not become an error that is not
// nil, as it would by a plain return.
func firstError(errs ...*Error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
