package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const mcpHelp = `Connect standard input and output to the MCP server NAME of a peer: to the service mcp/NAME,
which it offers with

  mesh serve mcp/NAME -- PROGRAM [ARG...]

A program that starts MCP servers starts this command instead. It ends when the server does,
or when standard input has ended and the server has answered.`

func newMCP() *cobra.Command {
	var f waitFlags
	c := &cobra.Command{
		Use: "mcp PEER:NAME", Short: "Be the MCP server of a peer, on standard input and output", Long: mcpHelp,
		Example: "  mesh mcp bob:files",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		to, err := parseTarget(args[0])
		if err != nil {
			return err
		}
		to.service = "mcp/" + to.service
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
			conn, err := dial(ctx, c, m, to, f.wait)
			if err != nil {
				return err
			}
			return to.failed(pipeStdio(ctx, m, conn, stdio{c.InOrStdin(), c.OutOrStdout()}))
		})
	}
	return c
}

// pipeStdio is pipe for standard input and output. It does not wait for the end of standard input.
func pipeStdio(ctx context.Context, m *mesh.Mesh, conn *mesh.Conn, std stdio) error {
	ctx, cancel := whileLinked(ctx, m, conn)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() { _ = carry(conn, std) }() // if it fails, the stream has ended, or ends
	err := carry(std, conn)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
