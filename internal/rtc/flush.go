package rtc

import (
	"context"
	"fmt"
	"time"
)

// Flush waits until everything sent to peers that are connected now is acknowledged, or ctx ends.
func (n *Node) Flush(ctx context.Context) error {
	// Polling, because an event for "nothing buffered" would take pion's one threshold away from the
	// writer. Flush is for the end of a sidecar's life, where a few milliseconds do not matter.
	wait := time.NewTimer(0)
	defer wait.Stop()
	for d := time.Millisecond; ; d = min(2*d, 20*time.Millisecond) {
		peers := n.unflushed()
		if len(peers) == 0 {
			return nil
		}
		wait.Reset(d)
		select {
		case <-wait.C:
		case <-ctx.Done():
			return fmt.Errorf("not everything was sent to %q: %w", peers, ctx.Err())
		}
	}
}

func (n *Node) unflushed() (ids []string) {
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	for p := range n.peers {
		if p.live() && !p.flushed() {
			ids = append(ids, p.id)
		}
	}
	return ids
}
