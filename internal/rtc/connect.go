package rtc

import (
	"fmt"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// The methods of Node in this file run in the loop.

func (n *Node) connect(id string) {
	sl := n.slot(id)
	switch {
	case n.ending:
		n.ev.ConnectFailed(id, &wire.Error{Code: wire.CodePeerUnavailable, Text: "peer " + quote(id) + ": " + ErrClosed.Error()})
		return
	case sl == nil:
		n.ev.ConnectFailed(id, &wire.Error{Code: wire.CodeInvalidField, Text: "peer " + quote(id) +
			": it is empty, too long, this agent itself, or one too many"})
		return
	case sl.cur != nil && sl.cur.up:
		return
	}
	sl.wanted = true
	sl.silence = 0
	if !sl.connecting {
		sl.connecting = true
		sl.missed = ""
		sl.connect = n.after(sl, n.cfg.ConnectTimeout, func() {
			n.connectFailed(sl, wire.CodePeerUnavailable,
				fmt.Errorf("no link within %s, still trying%s", n.cfg.ConnectTimeout, sl.missing()))
		})
	}
	n.dial(sl)
}

func (n *Node) connectFailed(sl *slot, code wire.Code, err error) {
	if !sl.connecting {
		return
	}
	sl.connecting = false
	stopTimer(sl.connect)
	n.ev.ConnectFailed(sl.id, &wire.Error{Code: code, Text: "peer " + quote(sl.id) + ": " + err.Error()})
}

func quote(id string) string { return fmt.Sprintf("%q", id) }
