package main

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/signaling"
)

const devHelp = `Run a signaling server in development mode, until it is interrupted, and print what to
set so that agents find it. Who comes and goes is on stderr.

It is for trying things out on this machine: every program here can be any agent. It
refuses other machines; but a tunnel, or a proxy that adds nothing to a request, looks
like a local program, so never let one lead to it. For anything else there is
chatixia-signaling, with API keys.`

// shownServer is what is printed about a signaling server.
type shownServer struct {
	URL string `json:"signaling_url"`
}

func newDev() *cobra.Command {
	c := &cobra.Command{
		Use: "dev", Short: "Run a signaling server to try things out on this machine", Long: devHelp,
		Example: "  mesh dev\n  mesh dev --addr 127.0.0.1:0 --json",
		Args:    cobra.NoArgs,
	}
	addr := c.Flags().String("addr", "127.0.0.1:8080", "listen on this port or `address`; port 0 is a free one")
	c.RunE = func(c *cobra.Command, _ []string) error {
		at, err := parseLocal(*addr)
		if err != nil {
			return err
		}
		if err := at.onlyHere(c.Context(), "which a server in development mode refuses; use 127.0.0.1, or chatixia-signaling with API keys"); err != nil {
			return usage(err)
		}
		listener, err := at.listen(c.Context())
		if err != nil {
			return err
		}
		return serveDev(c, listener)
	}
	return c
}

// onlyHere returns an error if other machines could reach the address, with why that is one, or if it is none that a URL has.
func (l local) onlyHere(ctx context.Context, why string) error {
	host, _, err := net.SplitHostPort(l.address)
	if l.network != "tcp" || err != nil {
		return errors.New("--addr: want a port or host:port")
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	for _, ip := range ips {
		if !ip.IsLoopback() {
			return errors.New("--addr: other machines could reach it, " + why)
		}
	}
	return nil
}

// serveDev serves until the command is interrupted.
func serveDev(c *cobra.Command, listener net.Listener) error {
	log := zerolog.New(zerolog.ConsoleWriter{Out: c.ErrOrStderr(), NoColor: true, TimeFormat: time.TimeOnly}).Level(zerolog.InfoLevel).With().Timestamp().Logger()
	server, err := signaling.New(signaling.Config{Dev: true, Logger: log})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { _ = server.Close() }() // it has no error
	bounded := server.Limit(listener)
	web := &http.Server{
		Handler: server, ConnState: bounded.ConnState, ErrorLog: stdlog.New(io.Discard, "", 0),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(bounded) }()
	url := "ws://" + listener.Addr().String() + "/ws"
	if err = printEvent(c, shownServer{url}, "export SIGNALING_URL="+url); err == nil {
		select {
		case err = <-served:
		case <-c.Context().Done():
			err = ended(c.Context())
		}
	}
	return errors.Join(err, web.Close())
}
