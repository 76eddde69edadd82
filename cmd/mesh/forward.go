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

A peer that is not there, or leaves, is waited for; a connection waits for --wait.`

// forwardFlags are the flags of mesh forward; each connection waits for the peer.
type forwardFlags struct{ waitFlags }

// shownForward is what is printed about a service that can be reached.
type shownForward struct {
	Local   string `json:"local"`
	Peer    string `json:"peer"`
	Service string `json:"service"`
}

func newForward() *cobra.Command {
	var f forwardFlags
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
			return f.forward(ctx, c, m, listener, at, to)
		})
	}
	return c
}

// forward serves the connections of a listener, and says so when the peer is there: those that come before wait no longer than others.
func (f *forwardFlags) forward(ctx context.Context, c *cobra.Command, m *mesh.Mesh, listener net.Listener, at local, to target) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	accepted := make(chan error, 1)
	go func() {
		defer stop()
		accepted <- acceptAll(serving, listener, func(conn net.Conn) { f.one(serving, c, m, conn.(end), to) })
	}()
	err := waitPeer(serving, c, m, to.peer, 0)
	if err == nil {
		err = printEvent(c, shownForward{at.String(), to.peer, to.service}, fmt.Sprintf("forwarding %v to %s:%s", at, quote(to.peer), to.service))
	}
	if err = unlessEnded(serving, err); err != nil {
		stop()
	}
	return errors.Join(err, <-accepted, ended(ctx))
}

// unlessEnded returns an error, unless it is due to the end of ctx.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// one connects one connection.
func (f *forwardFlags) one(ctx context.Context, c *cobra.Command, m *mesh.Mesh, conn end, to target) {
	stream, err := dial(ctx, c, m, to, f.wait)
	if err != nil {
		abort(conn)
		if ctx.Err() == nil {
			say(c, "connection closed: %s", plain(err))
		}
		return
	}
	linked, cancel := whileLinked(ctx, m, stream)
	defer cancel()
	switch err := pipe(linked, conn, stream); {
	case err == nil || ctx.Err() != nil:
	case ofStream(err):
		say(c, "the connection to %s:%s broke off: %s", quote(to.peer), to.service, plain(err))
	default:
		say(c, "who had connected to %s:%s has gone before its end: %s", quote(to.peer), to.service, plain(err))
	}
}

// ofStream reports whether an error is that of the stream, and not that of the connection to it.
func ofStream(err error) bool {
	op := (*net.OpError)(nil)
	return !errors.As(err, &op) || op.Net == "mesh"
}
