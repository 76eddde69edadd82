package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const peersHelp = `List the peers with which this command gets a link within the time of --wait, a line for
each: its id, the key that it has proven, and the name, version and skills on its card, as
far as it has them. What has unusual characters is quoted as in Go.`

// shownPeer is what is printed about a peer.
type shownPeer struct {
	PeerID string     `json:"peer_id"`
	Key    string     `json:"key,omitempty"`
	Card   *mesh.Card `json:"card,omitempty"`
}

func newPeers() *cobra.Command {
	var f joinFlags
	c := &cobra.Command{
		Use: "peers", Short: "List the peers that are there", Long: peersHelp,
		Example: "  mesh peers\n  mesh peers --wait 10s --json | jq -r '.[].peer_id'",
		Args:    cobra.NoArgs,
	}
	f.add(c)
	wait := c.Flags().Duration("wait", 2*time.Second, "how long links may take")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *wait < 0 {
			return usage(errors.New("--wait: want a duration of 0 or more, such as 2s"))
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
			select {
			case <-time.After(*wait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			return printPeers(c, m.Peers())
		})
	}
	return c
}

func printPeers(c *cobra.Command, peers []mesh.Peer) error {
	list := make([]shownPeer, 0, len(peers))
	rows := make([]row, 0, len(peers))
	for _, p := range peers {
		list = append(list, shownPeer{p.ID, p.Key, p.Card})
		rows = append(rows, row{quote(p.ID), strings.TrimSpace(p.Key + "  " + onCard(p.Card))})
	}
	return printResult(c, list, rows...)
}

// onCard returns what a line has room for.
func onCard(c *mesh.Card) string {
	if c == nil {
		return ""
	}
	var parts []string
	for _, text := range []string{c.Name, c.Version} {
		if text != "" {
			parts = append(parts, quote(text))
		}
	}
	for _, s := range c.Skills {
		parts = append(parts, quote(s.Name))
	}
	return strings.Join(parts, " ")
}
