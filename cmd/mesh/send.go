package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const sendHelp = `Send a message to a peer, once there is a link to it. It is not known whether the peer has a
handler for it; for a response use mesh request.

` + payloadHelp

// shownSent is what is printed about a message that was sent.
type shownSent struct {
	Peer string `json:"peer"`
	Type string `json:"type"`
}

// waitFlags are the flags of commands that are about one peer.
type waitFlags struct {
	joinFlags
	wait time.Duration
}

func (f *waitFlags) add(c *cobra.Command) {
	f.joinFlags.add(c)
	c.Flags().DurationVar(&f.wait, "wait", defaultWait, "how long to wait for the peer; 0 is without end")
}

func newSend() *cobra.Command {
	var f waitFlags
	c := &cobra.Command{
		Use: "send PEER TYPE [PAYLOAD|-]", Short: "Send a message to a peer", Long: sendHelp,
		Example: "  mesh send bob note 'back at noon'\n  mesh send bob report - < report.json",
		Args:    peerFirst(cobra.RangeArgs(2, 3)), ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return f.withPeer(c, args, func(ctx context.Context, m *mesh.Mesh, msg mesh.Message) error {
			if err := m.Send(ctx, args[0], msg); err != nil {
				return err
			}
			if err := m.Close(); err != nil { // it says whether the message may have been lost
				return err
			}
			return printEvent(c, shownSent{args[0], msg.Type}, "sent "+quote(msg.Type)+" to "+quote(args[0]))
		})
	}
	return c
}

// withPeer joins the mesh and does something with the message of a command line, PEER TYPE [PAYLOAD], once the peer is
// there.
func (f *waitFlags) withPeer(c *cobra.Command, args []string, do func(ctx context.Context, m *mesh.Mesh, msg mesh.Message) error) error {
	if err := checkType(args[1]); err != nil {
		return err
	}
	payload, err := readPayload(c, args[2:])
	if err != nil {
		return err
	}
	msg := mesh.Message{Type: args[1]}
	if payload != nil {
		msg.Payload = payload
	}
	return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
		if err := waitPeer(ctx, c, m, args[0], f.wait); err != nil {
			return err
		}
		return do(ctx, m, msg)
	})
}
