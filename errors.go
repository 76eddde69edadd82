package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// Errors that callers test for with errors.Is. What wraps them says which
// peer, which request or which field is meant.
var (
	// ErrClosed means that the mesh was closed by Close.
	ErrClosed = errors.New("mesh: closed")

	// ErrNotConnected means that there is no live link to that peer. Peers lists
	// the live ones, WaitPeer blocks until there is one, Connect asks for one now.
	ErrNotConnected = errors.New("mesh: no live link to the peer")

	// ErrPeerGone means that the peer left, or its link was lost, before the
	// operation ended.
	ErrPeerGone = errors.New("mesh: the peer is gone")

	// ErrSidecarLost means that the sidecar ended, or the connection to it broke,
	// before the operation ended. The mesh starts another one by itself.
	ErrSidecarLost = errors.New("mesh: the sidecar is gone")

	// ErrSidecarHung means that the sidecar was there but did not respond, for 15 s in
	// which this program ran itself. One that this mesh has started is killed, and the
	// mesh starts another one; with one that runs elsewhere (Attach) the link is ended.
	ErrSidecarHung = errors.New("mesh: the sidecar does not respond")

	// ErrTooLarge means that the message is longer or nested deeper than the
	// limits of this mesh, of its sidecar or of that peer; from a Request also that the
	// peer's reply is.
	ErrTooLarge = errors.New("mesh: message too large")

	// ErrInvalid means that an argument cannot be used: an empty peer id or type,
	// this agent's own id, a payload that is not JSON, or a nil handler.
	ErrInvalid = errors.New("mesh: invalid argument")

	// ErrDuplicateHandler means that the message type has a handler already.
	ErrDuplicateHandler = errors.New("mesh: duplicate handler")

	// ErrDuplicateRequest means that another pending request to that peer has the
	// same request id.
	ErrDuplicateRequest = errors.New("mesh: duplicate request id")

	// ErrBusy means that the peer is handling as many requests of this agent as it
	// allows (Limits.MaxRequests) and refused one more. Try again later.
	ErrBusy = errors.New("mesh: the peer is busy")

	// ErrNoHandler means that the peer has no handler for the type of a request; to
	// Config.OnError, that this agent has none for a message.
	ErrNoHandler = errors.New("mesh: no handler for the message")

	// ErrInvalidArgument means that the peer's handler cannot use the payload of a
	// request; the text says why.
	ErrInvalidArgument = errors.New("mesh: the peer cannot use the payload")

	// ErrNoSkill means that no live peer has a card with the skill: BySkill.
	ErrNoSkill = errors.New("mesh: no live peer offers the skill")

	// ErrInternal means that the peer failed by a fault of its own, such as a panic.
	ErrInternal = errors.New("mesh: internal error of the peer")

	// ErrCongested means that the message was dropped because the queue to the
	// peer overflowed.
	ErrCongested = errors.New("mesh: the queue to the peer overflowed")

	// ErrNoStreams means that the peer, or this agent's sidecar, knows no streams: a
	// browser, a base peer, or an earlier version.
	ErrNoStreams = errors.New("mesh: no streams with the peer")

	// ErrNoService means that nobody listens for that service at the peer.
	ErrNoService = errors.New("mesh: nobody listens for the service at the peer")

	// ErrStreamRefused means that the peer's listener does not allow this agent.
	ErrStreamRefused = errors.New("mesh: the peer has refused the stream")

	// ErrTooManyStreams means that there are as many streams as Limits.MaxStreams
	// allows, at either end, or that as many wait for Accept as may.
	ErrTooManyStreams = errors.New("mesh: too many streams")

	// ErrStreamReset means that the peer has given a stream up.
	ErrStreamReset = errors.New("mesh: the stream was reset")

	// ErrDuplicateService means that the service has a listener already.
	ErrDuplicateService = errors.New("mesh: duplicate service")

	// ErrUnsent means that messages which were accepted may not have arrived when the
	// mesh was closed: Close's *UnsentError says how many, and to whom.
	ErrUnsent = errors.New("mesh: not everything was sent")

	// ErrRefused means that the signaling server did not accept the API key.
	ErrRefused = errors.New("mesh: the signaling server refused the credentials")

	// ErrMisconfigured means that signaling fails in a way that no retry can mend:
	// there is no signaling server at the URL, or its certificate is not trusted.
	ErrMisconfigured = errors.New("mesh: signaling is misconfigured")

	// ErrIdentity means that the identity of a peer was refused, or that the id that
	// the signaling server has given this agent is not the one that its key signs
	// for. The text says why: a changed key, none, a statement that is missing, has
	// expired or is not signed by a root, a wrong signature, a revoked key.
	ErrIdentity = errors.New("mesh: identity refused")

	// ErrReplaced means that another instance with the same API key was started
	// later and has taken this one's place. The mesh has ended.
	ErrReplaced = errors.New("mesh: replaced by another instance with the same API key")

	// ErrIDInUse means that another instance has the peer id, and that this one was to take
	// it only if it was free (Config.IfFree). The mesh has ended.
	ErrIDInUse = errors.New("mesh: another instance has the peer id")

	// ErrNoSidecarMain means that this process is a forked copy that is to be a
	// sidecar, and that its main did not call SidecarMain first.
	ErrNoSidecarMain = errors.New("mesh: this process was started as a sidecar but main did not call mesh.SidecarMain first; add `if mesh.SidecarMain() { return }` as the first statement of main (and of TestMain)")

	// ErrCrashLoop means that the sidecar kept ending right after its start, so
	// that the mesh gave up. Err wraps it, with what the last one said.
	ErrCrashLoop = errors.New("mesh: the sidecar keeps ending right after its start")
)

// A ConfigError says which field of Config, or which environment variable
// behind it, cannot be used, and why.
type ConfigError struct {
	Field string // such as "Network.UDPPort", or "Handlers[\"x\"]"
	Value string // as given; empty where it is a secret
	Err   error
}

func (e *ConfigError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("mesh: Config.%s: %s", e.Field, plain(e.Err))
	}
	return fmt.Sprintf("mesh: Config.%s = %q: %s", e.Field, e.Value, plain(e.Err))
}

func (e *ConfigError) Unwrap() error { return e.Err }

// A PeerError is an operation that failed for one peer. Err wraps an error of this
// package, such as ErrPeerGone or a *RemoteError, or the cause of a context.
type PeerError struct {
	// Op is the operation. What a method returns has the method's: "send",
	// "broadcast", "request", "connect", "wait" (WaitPeer). What Config.OnError
	// is told has one of these if it failed later, or "reply" (a response to the
	// peer), "handle" (a message of the peer whose handler failed or is missing),
	// "receive" (a message of the peer that was dropped), or another command of
	// the link.
	Op        string
	Peer      string
	RequestID string // of the request concerned, if any
	Type      string // of the message, with "handle" and "receive"
	Err       error

	unsent bool // the request was not sent
}

func (e *PeerError) Error() string {
	var b strings.Builder
	b.WriteString("mesh: " + e.Op)
	if e.Type != "" {
		fmt.Fprintf(&b, " %q", e.Type)
	}
	switch e.Op {
	case "handle", "receive":
		b.WriteString(" from")
	case "wait":
		b.WriteString(" for")
	default:
		b.WriteString(" to")
	}
	fmt.Fprintf(&b, " %q", e.Peer)
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (id %q)", e.RequestID)
	}
	return b.String() + ": " + plain(e.Err)
}

func (e *PeerError) Unwrap() error { return e.Err }

// causedByPeer reports whether it is the peer that decides how often this happens.
func (e *PeerError) causedByPeer() bool {
	return e.Op == "receive" || e.Op == "handle" || e.Op == "reply"
}

// A BroadcastError lists the peers that a Broadcast did not reach, each with
// its reason. errors.Is and errors.As look into every one.
type BroadcastError struct {
	Failed []*PeerError // ordered by peer
}

func (e *BroadcastError) Error() string {
	ids := make([]string, len(e.Failed))
	for i, f := range e.Failed {
		ids[i] = fmt.Sprintf("%q", f.Peer)
	}
	return fmt.Sprintf("mesh: broadcast did not reach %s: %s", strings.Join(ids, ", "), plain(e.Failed[0].Err))
}

func (e *BroadcastError) Unwrap() []error {
	errs := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		errs[i] = f
	}
	return errs
}

// An UnsentError is what Close could not bring to the peers within
// Config.DrainTimeout. It wraps ErrUnsent.
type UnsentError struct {
	Timeout time.Duration // Config.DrainTimeout
	// Peers are those that may not have everything, ordered by id. There are none if
	// the sidecar has not told them.
	Peers []UnsentPeer
	// Err is why the sidecar has not told: it did not respond, or it has ended
	// (ErrSidecarLost). nil if it has.
	Err error
}

// An UnsentPeer is one that may not have everything that was sent to it.
type UnsentPeer struct {
	Peer string
	// Messages is how many it may not have, at most: it has not acknowledged them.
	Messages int
}

func (e *UnsentError) Error() string {
	const advice = "Config.DrainTimeout is how long Close tries"
	if e.Err != nil {
		return fmt.Sprintf("%v within %v: what was sent last may not have arrived: %s; %s", ErrUnsent, e.Timeout, plain(e.Err), advice)
	}
	peers := make([]string, len(e.Peers))
	for i, p := range e.Peers {
		peers[i] = fmt.Sprintf("up to %d messages to %q", p.Messages, p.Peer)
	}
	return fmt.Sprintf("%v within %v: %s may not have arrived; %s", ErrUnsent, e.Timeout, strings.Join(peers, ", "), advice)
}

// Unwrap returns ErrUnsent, and Err if there is one.
func (e *UnsentError) Unwrap() []error {
	if e.Err != nil {
		return []error{ErrUnsent, e.Err}
	}
	return []error{ErrUnsent}
}

// unsentError returns the error for what the sidecar could not send, nil if there is nothing.
func unsentError(timeout time.Duration, u wire.Unsent) error {
	if len(u.Peers) == 0 {
		return nil
	}
	e := &UnsentError{Timeout: timeout}
	for i, id := range u.Peers {
		e.Peers = append(e.Peers, UnsentPeer{Peer: id, Messages: u.Messages[i]})
	}
	slices.SortFunc(e.Peers, func(a, b UnsentPeer) int { return strings.Compare(a.Peer, b.Peer) })
	return e
}

// A StartError is a sidecar that did not come up: which one, why, and the end
// of what it wrote to stderr.
type StartError struct {
	Mode   Mode
	Path   string // the executable, or the socket in mode Attach
	Stderr string // its last lines, if any
	Err    error
}

func (e *StartError) Error() string {
	where := e.Mode.String()
	if e.Path != "" {
		where += ", " + e.Path
	}
	s := fmt.Sprintf("mesh: start of the sidecar (mode %s): %s", where, plain(e.Err))
	if e.Stderr != "" {
		s += "\nits stderr ended with:\n" + e.Stderr
	}
	return s
}

func (e *StartError) Unwrap() error { return e.Err }

// prefix begins the text of every error of this package, once.
const prefix = "mesh: "

// plain returns the text of an error, without prefix, to be part of another's.
func plain(err error) string { return strings.TrimPrefix(err.Error(), prefix) }

// because returns an error that is both errors, with the text "err: why".
func because(err, why error) error { return fmt.Errorf("%w: %w", err, inner{why}) }

// An inner error is part of another one, which has the prefix already.
type inner struct{ err error }

func (e inner) Error() string { return plain(e.err) }
func (e inner) Unwrap() error { return e.err }

// hopeless reports whether an error of signaling is one that no retry can mend.
func hopeless(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrMisconfigured) || errors.Is(err, ErrIdentity) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrIDInUse)
}

// codeError returns the sentinel for the code of an error event or of an error of
// the codec.
func codeError(c wire.Code) error {
	switch c {
	case wire.CodePeerNotConnected, wire.CodePeerUnavailable:
		return ErrNotConnected
	case wire.CodePeerLost:
		return ErrPeerGone
	case wire.CodeTooLarge, wire.CodeTooDeep:
		return ErrTooLarge
	case wire.CodeQueueFull:
		return ErrCongested
	case wire.CodeMalformed, wire.CodeInvalidField, wire.CodeUnknownType:
		return ErrInvalid
	case wire.CodeUnauthorized:
		return errUnauthorized
	case wire.CodeIdentity:
		return ErrIdentity
	case wire.CodeNoStreams:
		return ErrNoStreams
	case wire.CodeNoService:
		return ErrNoService
	case wire.CodeRefused:
		return ErrStreamRefused
	case wire.CodeTooManyStreams:
		return ErrTooManyStreams
	case wire.CodeStreamReset:
		return ErrStreamReset
	}
	return errors.New("mesh: sidecar error " + string(c))
}

// errUnauthorized means that the sidecar does not know the token of this agent.
var errUnauthorized = errors.New("mesh: the sidecar belongs to another agent")

// codecError returns the public error for one of the codec about a message.
func codecError(err error) error {
	if w := wire.BadLine(err); w != nil {
		return fmt.Errorf("%w: %s", codeError(w.Code), w.Text)
	}
	return because(ErrInvalid, err)
}
