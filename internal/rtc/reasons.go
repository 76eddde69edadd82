package rtc

import (
	"errors"
	"fmt"
)

// The reasons that Events.PeerDisconnected gives; they are wrapped, so use errors.Is.
var (
	ErrPeerClosed  = errors.New("the peer closed the link")
	ErrReplaced    = errors.New("the peer made a new link")
	ErrRestarted   = errors.New("the peer was restarted")
	ErrUnreachable = errors.New("the peer cannot be reached")
	ErrDied        = errors.New("the peer's process has ended")
	ErrViolation   = errors.New("the peer broke the protocol")
	ErrIdentity    = errors.New("the peer's identity was refused")
	ErrClosed      = errors.New("closed by us")
)

// The reasons why a stream is not opened, or ends, beside those of its link. They are wrapped, so use errors.Is.
var (
	ErrNoStreams      = errors.New("the peer has no streams")
	ErrTooManyStreams = errors.New("as many streams to the peer are open as may be")
	ErrStreamReset    = errors.New("the stream was reset") // by the other end; a *ResetError
)

// A ResetError is the end of a stream that the other end has reset.
type ResetError struct {
	Code uint32 // wire.ResetFull and others
}

func (e *ResetError) Error() string { return fmt.Sprintf("the stream was reset, code %d", e.Code) }

// Is reports whether the target is ErrStreamReset.
func (e *ResetError) Is(target error) bool { return target == ErrStreamReset }
