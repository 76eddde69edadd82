package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// An error names the package once and says what failed, on what, and why.
func TestErrorTexts(t *testing.T) {
	for want, err := range map[string]error{
		`mesh: send to "bob": no live link to the peer`:                        &PeerError{Op: "send", Peer: "bob", Err: ErrNotConnected},
		`mesh: request to "bob" (id "r1"): the peer is gone`:                   &PeerError{Op: "request", Peer: "bob", RequestID: "r1", Err: ErrPeerGone},
		`mesh: wait for "bob": context deadline exceeded`:                      &PeerError{Op: "wait", Peer: "bob", Err: context.DeadlineExceeded},
		`mesh: reply to "bob" (id "r1"): closed`:                               &PeerError{Op: "reply", Peer: "bob", RequestID: "r1", Err: ErrClosed},
		`mesh: handle "note" from "bob": out of paper`:                         &PeerError{Op: "handle", Type: "note", Peer: "bob", Err: errors.New("out of paper")},
		`mesh: receive "x" from "bob" (id "r1"): response dropped: no request`: &PeerError{Op: "receive", Type: "x", Peer: "bob", RequestID: "r1", Err: errors.New("mesh: response dropped: no request")},
		`mesh: broadcast did not reach "bob", "carol": the peer is gone`: &BroadcastError{Failed: []*PeerError{
			{Op: "broadcast", Peer: "bob", Err: ErrPeerGone}, {Op: "broadcast", Peer: "carol", Err: ErrPeerGone}}},
		`mesh: Config.Socket = "/s": it is taken`:                                             &ConfigError{Field: "Socket", Value: "/s", Err: errors.New("it is taken")},
		`mesh: Config.APIKey: control character`:                                              &ConfigError{Field: "APIKey", Err: errors.New("control character")},
		`mesh: start of the sidecar (mode Attach, /s): this process was started as a sidecar`: &StartError{Mode: Attach, Path: "/s", Err: errors.New("mesh: this process was started as a sidecar")},
		`mesh: the peer responded with an error: busy`:                                        &RemoteError{Text: "busy"},
		`mesh: the sidecar is gone: connection to the sidecar: EOF`:                           because(ErrSidecarLost, errors.New("connection to the sidecar: EOF")),
		`mesh: the sidecar keeps ending right after its start: start of the sidecar (mode SelfExec, x): boom`: because(ErrCrashLoop,
			&StartError{Mode: SelfExec, Path: "x", Err: errors.New("boom")}),
		`mesh: the signaling server refused the credentials: POST http://h/api/token: 401 Unauthorized`: public(
			fmt.Errorf("token: %w", &signal.RefusedError{Detail: "POST http://h/api/token: 401 Unauthorized"})),
		`mesh: signaling is misconfigured: GET http://h/: 404 Not Found`: public(&signal.MisconfiguredError{Detail: "GET http://h/: 404 Not Found"}),
	} {
		if err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// What is wrapped is found.
func TestErrorWrapping(t *testing.T) {
	cause := errors.New("cause")
	for _, err := range []error{
		&PeerError{Err: cause}, &ConfigError{Err: cause}, &StartError{Err: cause}, because(ErrSidecarLost, cause),
		&BroadcastError{Failed: []*PeerError{{Err: ErrPeerGone}, {Err: cause}}},
	} {
		if !errors.Is(err, cause) {
			t.Errorf("%T does not wrap its cause", err)
		}
	}
	if err := public(fmt.Errorf("x: %w", signal.ErrReplaced)); !errors.Is(err, ErrReplaced) {
		t.Errorf("got %v", err)
	}
	if !errors.Is(&RemoteError{Code: CodeBusy}, ErrBusy) || errors.Is(&RemoteError{Code: "x"}, ErrBusy) || errors.Is(&RemoteError{}, nil) {
		t.Error("a RemoteError that is busy, and ones that are not")
	}
}

// Every code that a sidecar may report has an error to test for.
func TestCodeErrors(t *testing.T) {
	for code, want := range map[wire.Code]error{
		wire.CodeMalformed: ErrInvalid, wire.CodeUnknownType: ErrInvalid, wire.CodeInvalidField: ErrInvalid,
		wire.CodeTooLarge: ErrTooLarge, wire.CodeTooDeep: ErrTooLarge,
		wire.CodePeerNotConnected: ErrNotConnected, wire.CodePeerUnavailable: ErrNotConnected,
		wire.CodePeerLost: ErrPeerGone, wire.CodeQueueFull: ErrCongested, wire.CodeUnauthorized: errUnauthorized,
	} {
		if err := codeError(code); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", code, err, want)
		}
	}
	if err := codeError("new"); !strings.Contains(err.Error(), "new") {
		t.Errorf("an unknown code: %v", err)
	}
}
