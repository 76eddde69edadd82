package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const forwardHelp = `Make a service of a peer one of this machine, until interrupted: each connection to LOCAL,
a port, host:port or unix:PATH, becomes a stream to the service. A port alone can be
reached from this machine only, a Unix socket by this user only.

A peer that is not there, or leaves, is waited for.`

// shownForward is what is printed about a service that can be reached.
type shownForward struct {
	Local   string `json:"local"`
	Peer    string `json:"peer"`
	Service string `json:"service"`
}

func newForward() *cobra.Command {
	var f joinFlags
	c := &cobra.Command{
		Use: "forward LOCAL PEER:SERVICE", Short: "Make a service of a peer one of this machine", Long: forwardHelp,
		Example: "  mesh forward 8000 bob:http    # then: curl http://127.0.0.1:8000/\n  mesh forward unix:/tmp/pg/.s.PGSQL.5432 bob:postgres",
		Args:    cobra.ExactArgs(2), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		at, err := parseLocal(args[0])
		if err != nil {
			return err
		}
		to, err := parseTarget(args[1])
		if err != nil {
			return err
		}
		listener, err := at.listen(c.Context())
		if err != nil {
			return err
		}
		defer func() { _ = listener.Close() }()
		if at.network == "tcp" {
			at.address = listener.Addr().String() // with the port that the system has picked
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
			return forward(ctx, c, m, listener, at, to)
		})
	}
	return c
}

// forward serves the connections of a listener once the peer is there.
func forward(ctx context.Context, c *cobra.Command, m *mesh.Mesh, listener net.Listener, at local, to target) error {
	if err := waitPeer(ctx, c, m, to.peer, 0); err != nil {
		return errors.Join(ended(ctx), unlessEnded(ctx, err))
	}
	if err := printEvent(c, shownForward{at.String(), to.peer, to.service}, fmt.Sprintf("forwarding %v to %s:%s", at, quote(to.peer), to.service)); err != nil {
		return err
	}
	err := acceptAll(ctx, listener, func(conn net.Conn) { forwardOne(ctx, c, m, conn.(end), to) })
	return errors.Join(err, ended(ctx))
}

// unlessEnded returns an error, unless it is due to the end of ctx.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// forwardOne connects one connection.
func forwardOne(ctx context.Context, c *cobra.Command, m *mesh.Mesh, conn end, to target) {
	stream, err := dial(ctx, c, m, to, defaultWait)
	if err != nil {
		abort(conn)
		if ctx.Err() == nil {
			say(c, "connection closed: %s", plain(err))
		}
		return
	}
	linked, cancel := whileLinked(ctx, m, stream)
	defer cancel()
	if err := pipe(linked, conn, stream); err != nil && ctx.Err() == nil {
		say(c, "the connection to %s:%s broke off: %s", quote(to.peer), to.service, plain(err))
	}
}
