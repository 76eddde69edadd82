package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const requestHelp = `Make a request to a peer, once there is a link to it, and print the payload of the response;
with --json the whole response. An error with which the peer responds is one of this
command.

` + payloadHelp

func newRequest() *cobra.Command {
	var f waitFlags
	c := &cobra.Command{
		Use: "request PEER TYPE [PAYLOAD|-]", Short: "Make a request to a peer, and print the response", Long: requestHelp,
		Example: "  mesh request bob count_request '{\"file\":\"LICENSE\"}'\n  mesh request bob summarize_request - --timeout 5m < report.json",
		Args:    peerFirst(cobra.RangeArgs(2, 3)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	timeout := c.Flags().Duration("timeout", 30*time.Second, "how long the response may take")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *timeout <= 0 {
			return usage(errors.New("--timeout: want a duration above 0, such as 30s"))
		}
		return f.withPeer(c, args, func(ctx context.Context, m *mesh.Mesh, msg mesh.Message) error {
			reply, err := request(ctx, m, args[0], msg, *timeout)
			if err != nil {
				return err
			}
			payload, _ := reply.Payload.(json.RawMessage)
			return printEvent(c, reply.Raw, oneLine(payload))
		})
	}
	return c
}

func request(ctx context.Context, m *mesh.Mesh, peer string, msg mesh.Message, timeout time.Duration) (*mesh.Message, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no response within %v", timeout))
	defer cancel()
	return m.Request(ctx, peer, msg)
}
