package main

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
)

const webHelp = `Serve a page that draws the mesh while it works, until interrupted, and print its address: the
page of package meshdebug, for a mesh that one is not part of otherwise. Beside it is
stats.json, for programs.

This command joins the mesh and sees its own links. Those of others are shown if the agents
tell of them, as those do that call meshdebug.Answer. The page is for this machine only.`

// shownPage is what is printed about the page.
type shownPage struct {
	URL string `json:"url"`
}

func newWeb() *cobra.Command {
	var f joinFlags
	c := &cobra.Command{
		Use: "web", Short: "Serve a page that draws the mesh", Long: webHelp,
		Example: "  mesh web\n  mesh web --addr 127.0.0.1:9090 --json",
		Args:    cobra.NoArgs,
	}
	f.add(c)
	addr := c.Flags().String("addr", "127.0.0.1:0", "listen on this port or `address`; port 0 is a free one")
	own := c.Flags().Bool("own", false, "show only the links of this command, and ask nobody for others")
	c.RunE = func(c *cobra.Command, _ []string) error {
		at, err := parseLocal(*addr)
		if err != nil {
			return err
		}
		if err := at.onlyHere(c.Context(), "which the page refuses; use 127.0.0.1"); err != nil {
			return usage(err)
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error { return serveWeb(ctx, c, m, at, *own) })
	}
	return c
}

// serveWeb serves until ctx ends.
func serveWeb(ctx context.Context, c *cobra.Command, m *mesh.Mesh, at local, own bool) error {
	listener, err := at.listen(ctx)
	if err != nil {
		return err
	}
	var opts []meshdebug.Option
	if own {
		opts = append(opts, meshdebug.OwnView())
	}
	web := &http.Server{
		Handler: meshdebug.Handler(m, opts...), ErrorLog: stdlog.New(io.Discard, "", 0),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	url := "http://" + listener.Addr().String() + "/"
	if err = printEvent(c, shownPage{url}, "open "+url+" in a browser"); err == nil {
		select {
		case err = <-served:
		case <-ctx.Done():
			err = ended(ctx)
		}
	}
	return errors.Join(err, web.Close())
}
