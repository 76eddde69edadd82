package sidecar

import (
	"context"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
)

const (
	// heirTime is how long after the end of the process that connected another one may show that it has taken over: by
	// what it says, or by reading what is written to it. heirLooks is how often the sidecar looks, meanwhile.
	heirTime  = 10 * time.Second
	heirLooks = 10
)

// watch begins to watch over the process that connected: a connection does not end with it while another process has a
// copy, such as one that was forked. caller.unwatch ends that.
func (h *Host) watch(c *caller) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // unwatch waits for it
		defer close(done)
		h.outlive(ctx, c)
	}()
	c.unwatch = func() {
		cancel()
		<-done
	}
}

// outlive closes a connection whose process has ended, unless another process goes on with it, as that of a daemon does
// which was forked after it had connected.
func (h *Host) outlive(ctx context.Context, c *caller) {
	if err := sock.WaitPeer(ctx, c.conn); err != nil {
		return // not watched any more, or the system does not tell
	}
	arrived, sent := c.arrived(), c.sent()
	h.noise.Debug().Msg("process that connected has ended, but not its connection")
	tick := time.NewTicker(h.heirs / heirLooks)
	defer tick.Stop()
	for range heirLooks {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		unread, known := sock.Unread(c.conn)
		if c.arrived() > arrived || known && !unread && c.sent() > sent {
			h.noise.Info().Msg("process that connected has ended; another one goes on as the agent")
			return
		}
	}
	h.noise.Info().Msg("process that connected has ended, and another one holds its connection; closing it")
	_ = c.conn.Close()
}

// arrived returns how many bytes have come from a caller, read or not.
func (c *caller) arrived() int64 {
	n := c.unproven.Load()
	if l := c.link.Load(); l != nil {
		n = l.Received()
	}
	return n + int64(sock.Queued(c.conn))
}

// sent returns how many bytes were written to a caller since it is the agent.
func (c *caller) sent() int64 {
	if l := c.link.Load(); l != nil {
		return l.Sent()
	}
	return 0
}
