package mesh

import "time"

// A liveness says how an agent finds out that its sidecar hangs: it pings it now and then,
// and counts how often a short time passes without the response. So what is measured is
// time in which the agent itself ran: however long both stood still, as when a laptop
// sleeps, that counts as one. The zero value is for a sidecar that cannot hang alone.
type liveness struct {
	every time.Duration // from a response to the next ping
	tick  time.Duration
	ticks int // as many without a response mean that it hangs
}

// processLiveness is that of a sidecar in a process of its own. One that stands still for
// 10 s loses nothing, so the bound is above that.
var processLiveness = liveness{every: 10 * time.Second, tick: time.Second, ticks: 15}

// watch ends the link when the sidecar hangs. It returns when the link has ended.
func (c *ipc) watch(l liveness) {
	timer := time.NewTimer(l.every)
	defer timer.Stop()
	for waited := 0; ; {
		select {
		case <-c.ended:
			return
		case <-c.pong:
			waited = 0
			timer.Reset(l.every)
		case <-timer.C:
			switch waited {
			case 0:
				_ = c.writeNow(c.window.ping) // an error means that the link has ended
			case l.ticks:
				c.m.log.Warn().Int("pid", c.side.pid).Msg("sidecar not responding; ending it")
				c.hung.Store(true)
				c.link.Close()
			}
			waited++
			timer.Reset(l.tick)
		}
	}
}

// onPong notes the response to a ping.
func (c *ipc) onPong() {
	c.window.pong()
	select {
	case c.pong <- struct{}{}:
	default:
	}
}
