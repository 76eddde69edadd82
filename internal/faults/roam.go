//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/chatixia-ai/mesh"
)

const (
	// unroamed is how long a host that moves has no address.
	unroamed = time.Second
	// mostRoam is after how long messages flow again once it has another one.
	mostRoam = 5 * time.Second
)

// A roamer is a host on a network of this process, and the agent there.
type roamer struct {
	*host
	r  *run
	at int // the last number of its address, 0 without one
}

// roamNetwork is the network of the roamer, but for the last number of an address. This process has the number 1.
const roamNetwork = "198.51.100."

// roamer makes a host without an address.
func (r *run) roamer() *roamer {
	h := &roamer{host: r.host(), r: r}
	r.stop("network", errors.Join(
		goPublic(),
		command("ip", "link", "add", "air", "type", "veth", "peer", "name", "eth0", "netns", h.path()),
		command("ip", "address", "add", roamNetwork+"1/24", "dev", "air"),
		command("ip", "link", "set", "air", "up"),
		h.do(func() error {
			return errors.Join(command("ip", "link", "set", "lo", "up"), command("ip", "link", "set", "eth0", "up"))
		}),
	))
	return h
}

// arrive gives it the next address.
func (h *roamer) arrive() {
	h.at = max(2, h.at+1)
	h.r.stop("address", h.do(func() error {
		return errors.Join(
			command("ip", "address", "add", fmt.Sprint(roamNetwork, h.at, "/24"), "dev", "eth0"),
			command("ip", "route", "add", "default", "via", roamNetwork+"1"),
		)
	}))
}

// leave takes its address away.
func (h *roamer) leave() {
	h.r.stop("address", h.do(func() error { return command("ip", "address", "flush", "dev", "eth0") }))
}

// roam has the host of one of two agents change its address under load.
func roam(r *run) {
	r.needsLinks()
	h := r.roamer()
	h.arrive()
	s := r.servePublic()
	a := r.start(s.url(), near, func(cfg *mesh.Config) { cfg.APIKey = keyOf(near) })
	c := r.launch(job{URL: s.url(), ID: far, Key: keyOf(far), Flows: []string{near}, Every: streamInterval}, h.start)
	c.read()
	flow := a.flow(r.ctx, far, 200, 0, streamInterval)
	moves := pick(r, 10, 2)
	for range moves {
		r.pause(pick(r, 4*time.Second, 500*time.Millisecond))
		h.leave()
		r.pause(unroamed)
		there := c.state().From[near].Got
		start := time.Now()
		h.arrive()
		r.until("messages flow again", func() bool { return c.state().From[near].Got > there && a.sink.of(far).last.After(start) })
		r.took("flows again", time.Since(start), mostRoam)
	}
	sent := flow.halt()
	r.progress(fmt.Sprintf("%d messages of %s", sent, near), sent, func() int { return c.state().From[near].Got })
	r.inOrder(sent, near, far, c.state().From[near])
	back := a.sink.of(far)
	r.check(back.Missing == 0 && back.Late == 0, "of the messages of %s %d are missing, %d came twice or out of order", far, back.Missing, back.Late)
	r.check(a.losses() == 0 && c.state().Losses == 0, "peers were reported gone")
	r.say("%d moves, %s without an address each; %d messages", moves, unroamed, sent+back.Got)
}
