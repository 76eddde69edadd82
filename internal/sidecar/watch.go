package sidecar

import (
	"context"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// heirTime is how long after the end of the process that connected another one may show that it has taken over.
const heirTime = 10 * time.Second

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
// which was forked after it had connected. What counts is what arrives after the end of the first one.
func (h *Host) outlive(ctx context.Context, c *caller) {
	if err := sock.WaitPeer(ctx, c.conn); err != nil {
		return // not watched any more, or the system does not tell
	}
	before := c.arrived()
	timer := time.NewTimer(h.heirs)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	if c.arrived() > before {
		h.noise.Info().Msg("process that connected has ended; another one goes on as the agent")
		return
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
