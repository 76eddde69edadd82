package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
)

// A Code says what kind of failure a request has ended with at the peer. Those below
// are this library's; an application has its own besides.
type Code string

const (
	// CodeNoHandler means that the peer has no handler for the type: ErrNoHandler.
	CodeNoHandler Code = "no_handler"
	// CodeBusy means that the peer handles as many requests as it allows: ErrBusy.
	CodeBusy Code = "busy"
	// CodeInvalidArgument means that the peer's handler cannot use the payload: ErrInvalidArgument.
	CodeInvalidArgument Code = "invalid_argument"
	// CodeTooLarge means that the handler's reply is too large to be sent: ErrTooLarge.
	CodeTooLarge Code = "too_large"
	// CodeInternal means a fault of the peer, such as a panic: ErrInternal.
	CodeInternal Code = "internal"
	// CodeCancelled means that the handler was cancelled: context.Canceled.
	CodeCancelled Code = "cancelled"
	// CodeDeadlineExceeded means that the handler ran out of time: context.DeadlineExceeded.
	CodeDeadlineExceeded Code = "deadline_exceeded"
	// CodeApp means any other error that the handler has returned.
	CodeApp Code = "app"
)

// maxCode is the length in bytes of the longest code that is taken from a peer.
const maxCode = 64

// sentinel returns the error that a code stands for, nil if for none.
func (c Code) sentinel() error {
	switch c {
	case CodeNoHandler:
		return ErrNoHandler
	case CodeBusy:
		return ErrBusy
	case CodeInvalidArgument:
		return ErrInvalidArgument
	case CodeTooLarge:
		return ErrTooLarge
	case CodeInternal:
		return ErrInternal
	case CodeCancelled:
		return context.Canceled
	case CodeDeadlineExceeded:
		return context.DeadlineExceeded
	}
	return nil
}

// codeOf returns the code for an error of handle that has none of its own. The code of a
// peer that the handler has asked is none of its asker's business.
func codeOf(err error) Code {
	var returned *handlerError
	switch {
	case !errors.As(err, &returned):
		return CodeNoHandler
	case errors.Is(err, context.DeadlineExceeded):
		return CodeDeadlineExceeded
	case errors.Is(err, context.Canceled):
		return CodeCancelled
	}
	return CodeApp
}

// An Error is what a handler returns to choose what the peer learns of a failure. The
// peer gets it as a *RemoteError.
type Error struct {
	Code    Code   // CodeApp if empty, or over 64 bytes long
	Text    string // for people
	Details any    // encoded as by encoding/json; nil means none
}

// NewError returns an *Error with a code, a text, and details for programs, which may be
// nil.
func NewError(code Code, text string, details any) error {
	return &Error{Code: code, Text: text, Details: details}
}

func (e *Error) Error() string { return e.Text }

// Is makes errors.Is hold for the error that the code stands for, as at the peer.
func (e *Error) Is(target error) bool { return is(e.Code, target) }

func is(c Code, target error) bool {
	s := c.sentinel()
	return s != nil && s == target //nolint:errorlint // this is what errors.Is calls
}

// A RemoteError is the error with which the peer responded to a request: that of its
// handler, or one of the peer's library. errors.Is finds the error of this package, or
// of package context, that its code stands for.
type RemoteError struct {
	Code    Code            // "" if the peer has told none, as base agents do
	Text    string          // of the error
	Details json.RawMessage // nil if there are none
	// Reply is the whole response, whose payload may hold more.
	Reply *Message
}

func (e *RemoteError) Error() string {
	return "mesh: the peer responded with an error: " + strings.TrimPrefix(e.Text, prefix)
}

// Is makes errors.Is hold for the error that the code stands for.
func (e *RemoteError) Is(target error) bool { return is(e.Code, target) }

// A failedPayload is the payload of a response to a request that has failed. Base agents
// know the text alone.
type failedPayload struct {
	Error   string `json:"error"`
	Code    Code   `json:"code,omitempty"`
	Details any    `json:"details,omitempty"`
}

// failure returns the error that a response reports, nil if it reports none.
func (m *Message) failure() error {
	raw, _ := m.Payload.(json.RawMessage)
	// Most responses are results, and some are large: look before decoding.
	if len(raw) == 0 || raw[0] != '{' || !bytes.Contains(raw, []byte("error")) && !bytes.Contains(raw, []byte(`\u`)) {
		return nil
	}
	var fields map[string]json.RawMessage
	e := &RemoteError{Reply: m}
	if json.Unmarshal(raw, &fields) != nil || json.Unmarshal(fields["error"], &e.Text) != nil || e.Text == "" {
		return nil
	}
	if json.Unmarshal(fields["code"], &e.Code) != nil || len(e.Code) > maxCode {
		e.Code = "" // it is the application's own
	}
	if e.Code == "" && e.Text == busyText { // as agents say that know no codes
		e.Code = CodeBusy
	}
	e.Details = fields["details"]
	return e
}
