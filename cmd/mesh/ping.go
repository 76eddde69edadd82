package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const pingHelp = `Measure how long a request and its response take: every agent responds to ping with pong.
The first one waits until there is a link to the peer, and that time does not count. At the end
it says which way the link takes: direct, or relayed by a TURN server, and between which addresses; or local, over a socket of this host.

Exit status 1 if no ping had a response.`

// pingFlags are the flags of mesh ping.
type pingFlags struct {
	waitFlags
	count             int
	interval, timeout time.Duration
}

// shownPings is what is printed at the end.
type shownPings struct {
	Peer      string    `json:"peer"`
	Sent      int       `json:"sent"`
	Responses int       `json:"responses"`
	RTT       []float64 `json:"rtt_ms"` // of each response

	// The way that the link takes at the end; none if it has gone.
	Path   mesh.Path `json:"path,omitempty"`
	Local  string    `json:"local,omitempty"`
	Remote string    `json:"remote,omitempty"`
}

func newPing() *cobra.Command {
	var f pingFlags
	c := &cobra.Command{
		Use: "ping PEER", Short: "Measure how long a peer takes to respond", Long: pingHelp,
		Example: "  mesh ping bob\n  mesh ping bob -c 100 --interval 10ms --json",
		Args:    peerFirst(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	c.Flags().IntVarP(&f.count, "count", "c", 4, "how many pings; 0 is until interrupted")
	c.Flags().DurationVar(&f.interval, "interval", time.Second, "the time from one to the next")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "how long a response may take")
	c.RunE = func(c *cobra.Command, args []string) error {
		if f.count < 0 || f.interval < 0 || f.timeout <= 0 {
			return usage(errors.New("--count and --interval: want 0 or more; --timeout: more than 0"))
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
			if err := waitPeer(ctx, c, m, args[0], f.wait); err != nil {
				return err
			}
			return f.ping(ctx, c, m, args[0])
		})
	}
	return c
}

func (f *pingFlags) ping(ctx context.Context, c *cobra.Command, m *mesh.Mesh, peer string) error {
	p := shownPings{Peer: peer, RTT: []float64{}}
	next := time.NewTicker(max(f.interval, time.Nanosecond))
	defer next.Stop()
	for ctx.Err() == nil {
		if err := f.one(ctx, c, m, &p); err != nil {
			return err
		}
		if p.Sent == f.count && f.count > 0 {
			break
		}
		select {
		case <-next.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil && ended(ctx) != nil {
		return ended(ctx)
	}
	if err := p.look(ctx, m); err != nil {
		return err
	}
	return p.print(c)
}

// look notes the way that the link takes.
func (p *shownPings) look(ctx context.Context, m *mesh.Mesh) error {
	st, err := m.Stats(context.WithoutCancel(ctx)) // a signal ends the pings, and not this
	if err != nil {
		return err
	}
	for _, s := range st.Peers {
		if s.ID == p.Peer {
			p.Path = s.Path
			if s.Local.IsValid() {
				p.Local, p.Remote = s.Local.String(), s.Remote.String()
			}
		}
	}
	return nil
}

// one sends one ping. Only that nothing can be printed is an error.
func (f *pingFlags) one(ctx context.Context, c *cobra.Command, m *mesh.Mesh, p *shownPings) error {
	began := time.Now()
	_, err := request(ctx, m, p.Peer, mesh.Message{Type: "ping"}, f.timeout)
	took := float64(time.Since(began).Microseconds()) / 1000
	if ctx.Err() != nil {
		return nil
	}
	p.Sent++
	if err != nil {
		say(c, "%s", plain(err))
		return nil
	}
	p.Responses++
	p.RTT = append(p.RTT, took)
	if asJSON, err := c.Flags().GetBool("json"); err != nil || asJSON {
		return err // all at the end
	}
	return printEvent(c, nil, fmt.Sprintf("%s: %.3f ms", quote(p.Peer), took))
}

// print prints the result, and returns an error if there was no response.
func (p *shownPings) print(c *cobra.Command) error {
	text := fmt.Sprintf("%d of %d pings had a response", p.Responses, p.Sent)
	if p.Responses > 0 {
		total := 0.0
		for _, ms := range p.RTT {
			total += ms
		}
		text += fmt.Sprintf("; least %.3f ms, average %.3f ms, most %.3f ms", slices.Min(p.RTT), total/float64(p.Responses), slices.Max(p.RTT))
	}
	switch p.Path {
	case "":
	case mesh.PathLocal:
		text += "\nlocal, over a socket of this host"
	default:
		text += fmt.Sprintf("\n%s, from %s to %s", p.Path, p.Local, p.Remote)
	}
	if err := printEvent(c, p, text); err != nil {
		return err
	}
	if p.Responses == 0 && p.Sent > 0 {
		return fmt.Errorf("no response from %s", quote(p.Peer))
	}
	return nil
}
