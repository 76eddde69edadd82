package mesh

import (
	"errors"
	"fmt"
	"strings"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// Errors that callers test for with errors.Is. What wraps them says which
// peer, which request or which field is meant.
var (
	// ErrClosed: the mesh was closed by Close.
	ErrClosed = errors.New("mesh: closed")

	// ErrUnknownPeer: there is no live link to that peer. Peers lists the live
	// ones, WaitPeer waits for one, Connect asks for a link now.
	ErrUnknownPeer = errors.New("mesh: no live link to the peer")

	// ErrPeerGone: the peer left, or its link was lost, before the operation ended.
	ErrPeerGone = errors.New("mesh: the peer is gone")

	// ErrSidecarLost: the sidecar ended, or the connection to it broke, before
	// the operation ended. The mesh starts another one by itself.
	ErrSidecarLost = errors.New("mesh: the sidecar is gone")

	// ErrTooLarge: the message is longer or nested deeper than the limits of
	// this mesh, of its sidecar or of that peer.
	ErrTooLarge = errors.New("mesh: message too large")

	// ErrInvalid: an argument cannot be sent: an empty peer id or type, or a
	// payload that is not JSON.
	ErrInvalid = errors.New("mesh: invalid argument")

	// ErrDuplicate: the name is taken: a second handler for one type, or a
	// request id that another pending request to that peer uses.
	ErrDuplicate = errors.New("mesh: duplicate")

	// ErrBusy: the peer runs as many handlers for this agent as it allows and
	// refused one more; try again later.
	ErrBusy = errors.New("mesh: the peer is busy")

	// ErrCongested: the message was dropped because the queue to the peer
	// overflowed.
	ErrCongested = errors.New("mesh: the queue to the peer overflowed")

	// ErrRefused: the signaling server did not accept the API key.
	ErrRefused = signal.ErrRefused

	// ErrNotDispatched: this process is a forked copy that was to be a sidecar,
	// and its main did not call SidecarMain first.
	ErrNotDispatched = errors.New("mesh: this process was started as a sidecar but main did not call mesh.SidecarMain first; add `if mesh.SidecarMain() { return }` as the first statement of main (and of TestMain)")

	// ErrCrashLoop: the sidecar kept ending right after its start, so the mesh
	// gave up. Err holds it, with what the last one said.
	ErrCrashLoop = errors.New("mesh: the sidecar keeps ending right after its start")
)

// A ConfigError says which field of Config, or which environment variable
// behind it, cannot be used, and why.
type ConfigError struct {
	Field string // such as "Socket", or "Handlers[\"x\"]"
	Value string // as given; empty where it is a secret
	Err   error
}

func (e *ConfigError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("mesh: Config.%s: %v", e.Field, e.Err)
	}
	return fmt.Sprintf("mesh: Config.%s = %q: %v", e.Field, e.Value, e.Err)
}

func (e *ConfigError) Unwrap() error { return e.Err }

// A PeerError is an operation that failed for one peer. Err is one of the
// sentinels above, a context's error, or a *RemoteError.
type PeerError struct {
	Op        string // "send", "request", "connect", "broadcast"
	Peer      string
	RequestID string // of a request
	Err       error
}

func (e *PeerError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mesh: %s to %q", e.Op, e.Peer)
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %q)", e.RequestID)
	}
	return b.String() + ": " + strings.TrimPrefix(e.Err.Error(), "mesh: ")
}

func (e *PeerError) Unwrap() error { return e.Err }

// A BroadcastError lists the peers that a Broadcast did not reach, each with
// its reason. errors.Is and errors.As look into every one.
type BroadcastError struct {
	Failed []*PeerError // ordered by peer
}

func (e *BroadcastError) Error() string {
	ids := make([]string, len(e.Failed))
	for i, f := range e.Failed {
		ids[i] = f.Peer
	}
	return fmt.Sprintf("mesh: broadcast did not reach %s: %v", strings.Join(ids, ", "), e.Failed[0].Err)
}

func (e *BroadcastError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f
	}
	return errs
}

// A RemoteError is what the handler of the peer answered instead of a result:
// the text of its error.
type RemoteError struct {
	Text string
	// Reply is the whole reply, whose payload may hold more than the text.
	Reply *Message
}

func (e *RemoteError) Error() string { return "mesh: the peer answered with an error: " + e.Text }

// Is makes errors.Is(err, ErrBusy) hold for a peer's refusal.
func (e *RemoteError) Is(target error) bool { return target == ErrBusy && e.Text == busyText }

// A StartError is a sidecar that did not come up: which one, why, and the end
// of what it wrote to stderr.
type StartError struct {
	Mode   Mode
	Path   string // the executable, or the socket in mode Attach
	Stderr string // its last lines, if any
	Err    error
}

func (e *StartError) Error() string {
	s := fmt.Sprintf("mesh: starting the sidecar (mode %v, %s): %v", e.Mode, e.Path, e.Err)
	if e.Stderr != "" {
		s += "\nits stderr ended with:\n" + e.Stderr
	}
	return s
}

func (e *StartError) Unwrap() error { return e.Err }
