//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// The methods of Node in this file run in the loop.

func (n *Node) connect(id string) {
	if n.ending {
		n.ev.ConnectFailed(id, connectError(id, wire.CodePeerUnavailable, ErrClosed))
		return
	}
	sl, bad := n.slot(id)
	if bad != nil {
		n.ev.ConnectFailed(id, connectError(id, bad.Code, errors.New(bad.Text)))
		return
	}
	if sl.cur != nil && sl.cur.up {
		return
	}
	sl.wanted = true
	sl.silence = 0
	if !sl.connecting {
		sl.connecting = true
		sl.missed = missed{}
		sl.connectTimer = n.after(sl, n.cfg.ConnectTimeout, func() {
			n.connectFailed(sl, wire.CodePeerUnavailable,
				fmt.Errorf("no link within %s, still trying: %s", n.cfg.ConnectTimeout, n.missing(sl)))
		})
	}
	n.dial(sl)
}

// connectFailed reports the failure of a Connect, if one is under way.
func (n *Node) connectFailed(sl *slot, code wire.Code, err error) {
	if !sl.connecting {
		return
	}
	sl.connecting = false
	stopTimer(sl.connectTimer)
	n.ev.ConnectFailed(sl.id, connectError(sl.id, code, err))
}

func connectError(id string, code wire.Code, err error) *wire.Error {
	return &wire.Error{Code: code, Text: fmt.Sprintf("peer %q: %v", logs.Cut(id), err)}
}

// missing returns what the link to a peer lacks, and why the last attempt failed.
func (n *Node) missing(sl *slot) string {
	switch {
	case sl.cur != nil && sl.missed.what != "":
		return sl.cur.missing() + "; the attempt before: " + sl.missed.String()
	case sl.cur != nil:
		return sl.cur.missing()
	case !n.online:
		return "signaling is not connected"
	case sl.missed.what != "":
		return sl.missed.String()
	case time.Now().Before(sl.notBefore):
		return "the peer must forget its previous link first"
	}
	return "its turn to be dialled has not come"
}
