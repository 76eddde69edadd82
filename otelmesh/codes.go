package otelmesh

import (
	"cmp"
	"context"
	"errors"

	"github.com/chatixia-ai/mesh"
)

// Codes of failures that are this agent's own, and for which no peer has responded.
var sentinels = []struct {
	err  error
	code string
}{
	{mesh.ErrNotConnected, "not_connected"},
	{mesh.ErrPeerGone, "peer_gone"},
	{mesh.ErrSidecarHung, "sidecar_hung"},
	{mesh.ErrSidecarLost, "sidecar_lost"},
	{mesh.ErrReplaced, "replaced"},
	{mesh.ErrIDInUse, "id_in_use"},
	{mesh.ErrCrashLoop, "crash_loop"},
	{mesh.ErrClosed, "closed"},
	{mesh.ErrTooLarge, string(mesh.CodeTooLarge)},
	{mesh.ErrCongested, "congested"},
	{mesh.ErrDuplicateRequest, "duplicate_request"},
	{mesh.ErrInvalid, "invalid"},
	{context.DeadlineExceeded, string(mesh.CodeDeadlineExceeded)},
	{context.Canceled, string(mesh.CodeCancelled)},
}

// knownCodes are those of the library: of failures here, and of those with which peers respond.
var knownCodes = func() (list []string) {
	for _, s := range sentinels {
		list = append(list, s.code)
	}
	for _, c := range []mesh.Code{mesh.CodeNoHandler, mesh.CodeBusy, mesh.CodeInvalidArgument, mesh.CodeInternal, mesh.CodeApp} {
		list = append(list, string(c))
	}
	return list
}()

// codeOf returns the code of an error with which a message was not sent, or a request has failed. A peer may have chosen it.
func codeOf(ctx context.Context, err error) string {
	if remote := (*mesh.RemoteError)(nil); errors.As(err, &remote) {
		return string(cmp.Or(remote.Code, mesh.CodeApp)) // base agents tell none
	}
	if code := sentinel(err); code != "" {
		return code
	}
	if code := sentinel(ctx.Err()); code != "" { // err is the cause that the program has given it
		return code
	}
	return other
}

func sentinel(err error) string {
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return ""
}

// handlerCode returns the code that the asker gets for an error of a handler.
func handlerCode(err error) string {
	var chosen *mesh.Error
	switch {
	case errors.As(err, &chosen):
		return string(cmp.Or(chosen.Code, mesh.CodeApp))
	case errors.Is(err, context.DeadlineExceeded):
		return string(mesh.CodeDeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return string(mesh.CodeCancelled)
	}
	return string(mesh.CodeApp)
}
