package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
)

const topHelp = `Show the agents and the links between them, again and again: who is there, round trip times,
rates, what waits and what is held back, who has come and gone.

This command joins the mesh and sees its own links. Those of others are shown if the agents
tell of them, as those do that call meshdebug.Answer.

On a terminal the table stays in place; elsewhere one follows the other. With --json there is
a line of JSON each time: that of stats.json of package meshdebug.`

// topFlags are the flags of mesh top.
type topFlags struct {
	joinFlags
	interval time.Duration
	count    int
	own      bool
}

func newTop() *cobra.Command {
	var f topFlags
	c := &cobra.Command{
		Use: "top", Short: "Show who is there and how the links are", Long: topHelp,
		Example: "  mesh top\n  mesh top -n 1\n  mesh top --json --interval 10s | jq -c '.nodes | length'",
		Args:    cobra.NoArgs,
	}
	f.add(c)
	c.Flags().DurationVar(&f.interval, "interval", 2*time.Second, "the time from one picture to the next")
	c.Flags().IntVarP(&f.count, "count", "n", 0, "how many there are; 0 is until interrupted")
	c.Flags().BoolVar(&f.own, "own", false, "show only the links of this command, and ask nobody for others")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.count < 0 || f.interval < 100*time.Millisecond {
			return usage(errors.New("--count: want 0 or more; --interval: 100ms or more"))
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error { return f.top(ctx, c, m) })
	}
	return c
}

func (f *topFlags) top(ctx context.Context, c *cobra.Command, m *mesh.Mesh) error {
	asJSON, err := c.Flags().GetBool("json")
	if err != nil {
		return err
	}
	opts := []meshdebug.Option{meshdebug.Interval(f.interval)}
	if f.own {
		opts = append(opts, meshdebug.OwnView())
	}
	show := func(s *meshdebug.Snapshot) error { return printJSON(c.OutOrStdout(), s) }
	if !asJSON {
		s := newScreen(c.OutOrStdout())
		defer s.leave()
		show = s.show
	}
	shown := 0
	for s := range meshdebug.Watch(ctx, m, opts...) {
		if err := show(s); err != nil {
			return err
		}
		if shown++; shown == f.count {
			return nil
		}
	}
	<-ctx.Done() // by a signal, or since the mesh has ended
	return ended(ctx)
}
