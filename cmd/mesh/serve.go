package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const serveHelp = `Offer a service of this machine to the peers, until interrupted: each stream that a peer
opens is connected to the address of --to, a port, host:port or unix:PATH, and what
either side sends reaches the other; or to a process of its own of the program behind --, to
its standard input and output. The process ends with the stream: it gets SIGTERM, and SIGKILL
5 s later, with those that it has started. It finds the peer in MESH_PEER_ID and
MESH_PEER_KEY.

A peer reaches it with mesh forward, or with Dial and DialContext of the library. Every
agent on the mesh may, unless --allow names who.`

// serveFlags are the flags of mesh serve.
type serveFlags struct {
	joinFlags
	to    string
	allow peerNames
}

// shownService is what is printed about a service that is offered.
type shownService struct {
	Peer    string `json:"peer"` // this one
	Service string `json:"service"`
	To      string `json:"to"`
}

func newServe() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use: "serve SERVICE (--to ADDRESS | -- PROGRAM [ARG...])", Short: "Offer a service of this machine to the peers", Long: serveHelp,
		Example: "  mesh serve http --to 127.0.0.1:3000\n  mesh serve postgres --to unix:/run/postgresql/.s.PGSQL.5432 --allow bob,carol\n" +
			"  mesh serve mcp/time -- uvx mcp-server-time",
		Args: serveArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	c.Flags().StringVar(&f.to, "to", "", "the `address` of the local service: a port, host:port or unix:PATH")
	c.Flags().Var(&f.allow, "allow", "the `peers` that may use it, separated by commas (default all)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.ArgsLenAtDash() >= 0 {
			return f.serveProgram(c, args[0], args[1:])
		}
		to, err := parseLocal(f.to)
		if err != nil {
			return err
		}
		return f.serve(c, args[0], to.String(), func(ctx context.Context, _ *mesh.Conn) (end, error) { return to.dial(ctx) })
	}
	return c
}

// serveArgs wants a service, and behind -- a program, if --to names no address.
func serveArgs(c *cobra.Command, args []string) error {
	dash := c.ArgsLenAtDash()
	to := c.Flag("to").Value.String()
	switch {
	case dash < 0 && len(args) != 1, dash >= 0 && dash != 1:
		return errors.New("want one service, such as http; a program comes behind --")
	case dash < 0 && to == "":
		return errors.New("nothing to offer; name an address with --to, or a program behind --")
	case dash >= 0 && to != "":
		return errors.New("both --to and a program; give one")
	case dash == len(args):
		return errors.New("no program behind --")
	}
	return nil
}

// serve joins the mesh and connects each stream to what open returns.
func (f *serveFlags) serve(c *cobra.Command, service, to string, open func(context.Context, *mesh.Conn) (end, error)) error {
	return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
		listener, err := listen(m, service, f.allow)
		if err != nil {
			return err
		}
		if err := printEvent(c, shownService{m.ID(), service, to}, fmt.Sprintf("serving %s at %s:%s", to, quote(m.ID()), service)); err != nil {
			return err
		}
		err = acceptAll(ctx, listener, func(conn net.Conn) { serveOne(ctx, c, m, conn.(*mesh.Conn), open) })
		return errors.Join(err, ended(ctx))
	})
}

// peerNames is a flag that names peers. One that names nobody is an error: an empty variable is not to mean everybody.
type peerNames []string

// Set implements pflag.Value.
func (p *peerNames) Set(text string) error {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return errors.New("want the ids of peers, separated by commas, and none of them empty")
		}
		*p = append(*p, name)
	}
	return nil
}

// Type implements pflag.Value.
func (*peerNames) Type() string { return "peers" }

// String implements pflag.Value.
func (p *peerNames) String() string { return strings.Join(*p, ",") }

// listen listens for streams of the peers that are allowed, of all if none is named.
func listen(m *mesh.Mesh, service string, allow peerNames) (net.Listener, error) {
	var cfg mesh.ListenConfig
	if len(allow) > 0 {
		cfg.Allow = func(p mesh.Peer) bool { return slices.Contains(allow, p.ID) }
	}
	listener, err := cfg.Listen(m, service)
	if errors.Is(err, mesh.ErrInvalid) {
		return nil, usage(err)
	}
	return listener, err
}

// serveOne connects one stream.
func serveOne(ctx context.Context, c *cobra.Command, m *mesh.Mesh, conn *mesh.Conn, open func(context.Context, *mesh.Conn) (end, error)) {
	linked, cancel := whileLinked(ctx, m, conn)
	defer cancel()
	peer := quote(conn.Peer().ID)
	to, err := open(linked, conn)
	if err != nil {
		say(c, "the stream of %s is closed: %s", peer, plain(err))
		conn.Reset()
		return
	}
	err = pipe(linked, conn, to)
	if p, ok := to.(*program); ok && p.err != nil && linked.Err() == nil {
		say(c, "the program for %s has ended: %v", peer, p.err)
	}
	if err != nil && ctx.Err() == nil {
		say(c, "the stream of %s broke off: %s", peer, plain(err))
	}
}
