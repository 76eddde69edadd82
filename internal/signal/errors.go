package signal

import "errors"

var (
	// ErrRefused means that the server does not accept the API key, or the token that it has issued itself.
	// A *RefusedError has the details.
	ErrRefused = errors.New("the signaling server refused the credentials")
	// ErrMisconfigured means that the configured URLs, certificates or proxy cannot work: trying again
	// does not help. A *MisconfiguredError has the details.
	ErrMisconfigured = errors.New("the signaling server cannot be used as configured")
	// ErrReplaced means that another instance has taken the peer id over.
	ErrReplaced = errors.New("another instance with the same API key has registered with the signaling server")
	// ErrInUse means that the client asked for a free peer id only (Settings.IfFree), and another connection has it.
	ErrInUse = errors.New("the peer id is in use by another connection")
	// ErrOffline means that there is no connection to send on.
	ErrOffline = errors.New("not connected to the signaling server")
	// ErrBacklog means that too many bytes are queued for the server already.
	ErrBacklog = errors.New("too many signaling messages are queued")
)

// RefusedError is a refusal of the credentials. It matches ErrRefused.
type RefusedError struct {
	Detail string // the request, its status, the server's own words, and what to do
}

func (e *RefusedError) Error() string { return ErrRefused.Error() + ": " + e.Detail }

// Is reports whether target is ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// MisconfiguredError is a failure that no retry can mend. It matches ErrMisconfigured; its text is Detail
// alone.
type MisconfiguredError struct {
	Detail string // the request, what is wrong with its response, and what to do
	Err    error  // the cause, if there is one
}

func (e *MisconfiguredError) Error() string { return e.Detail }

// Is reports whether target is ErrMisconfigured.
func (e *MisconfiguredError) Is(target error) bool { return target == ErrMisconfigured }

func (e *MisconfiguredError) Unwrap() error { return e.Err }

// FieldError is a field of Config that cannot work.
type FieldError struct {
	Field string // its name in Config or Settings
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// permanent reports whether only a change of the configuration can mend err.
func permanent(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrMisconfigured) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrInUse)
}

// responseError is an outage of which a response of the server, or of a proxy, tells.
type responseError struct{ text string }

func (e responseError) Error() string { return e.text }

// responded reports whether err came from the server, or from a proxy, rather than from the way to it.
func responded(err error) bool {
	return permanent(err) || errors.As(err, new(responseError)) || errors.As(err, new(closedError))
}
