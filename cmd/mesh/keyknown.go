package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/internal/identity"
)

const knownHelp = `The keys that agents with policy known have kept of their peers, in a file that the
agents of one mesh on one host may share (MESH_KNOWN_PEERS). A peer that shows another
key than the one in the file is refused, until it is forgotten.`

// knownFlags are the flags of the commands of mesh key known.
type knownFlags struct{ file, mesh string }

func newKeyKnown() *cobra.Command {
	var f knownFlags
	c := &cobra.Command{Use: "known", Short: "List and forget the keys that agents have kept of their peers", Long: knownHelp, Example: "  mesh key known list\n  mesh key known forget bob"}
	c.AddCommand(newKnownList(&f), newKnownForget(&f))
	c.PersistentFlags().StringVar(&f.file, "file", "", "the `file` with the keys (default $MESH_KNOWN_PEERS)")
	c.PersistentFlags().StringVar(&f.mesh, "mesh", "", "refuse the file if it is of a mesh of another `name` (default $MESH_NAME, else any mesh)")
	return c
}

// read returns what the file says.
func (f *knownFlags) read() (file, mesh string, all map[string]identity.PublicKey, err error) {
	if file = cmp.Or(f.file, os.Getenv("MESH_KNOWN_PEERS")); file == "" {
		return "", "", nil, usage(errors.New("no file; name one with --file, or set MESH_KNOWN_PEERS"))
	}
	want := cmp.Or(f.mesh, os.Getenv("MESH_NAME"))
	mesh, all, err = identity.ReadKnownPeers(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w; agents with policy known make it when they start", err)
	case err == nil && want != "" && want != mesh:
		err = fmt.Errorf("%s is of mesh %q, and --mesh or MESH_NAME says %q", file, mesh, want)
	}
	return file, mesh, all, err
}

// knownPeer is what is printed about a peer.
type knownPeer struct {
	PeerID string `json:"peer_id"`
	Key    string `json:"key"`
}

func newKnownList(f *knownFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the peers and their keys",
		Long:    "List the peers and their keys, a line for each. An id with unusual characters is quoted as in Go.",
		Example: "  mesh key known list --file known-peers\n  mesh key known list --json | jq -r '.[].peer_id'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, _, all, err := f.read()
			if err != nil {
				return err
			}
			list := make([]knownPeer, 0, len(all))
			for _, id := range slices.Sorted(maps.Keys(all)) {
				list = append(list, knownPeer{id, all[id].String()})
			}
			if asJSON, err := c.Flags().GetBool("json"); err != nil || asJSON {
				return errors.Join(err, printJSON(c.OutOrStdout(), list))
			}
			for _, p := range list {
				if _, err := fmt.Fprintln(c.OutOrStdout(), quote(p.PeerID), p.Key); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newKnownForget(f *knownFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "forget PEER",
		Short: "Forget the key of a peer",
		Long: `Forget the key of a peer, so that the next key that it shows is kept. Do so when you know why
its key has changed: otherwise it may be another agent that shows the new one. Running agents
that share the file take notice.`,
		Example: "  mesh key known forget --file known-peers bob",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			_, _, all, _ := f.read()
			maps.DeleteFunc(all, func(id string, _ identity.PublicKey) bool { return quote(id) != id })
			return slices.Sorted(maps.Keys(all)), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			file, mesh, all, err := f.read()
			if err != nil {
				return err
			}
			peers, err := identity.OpenKnownPeers(file, mesh)
			if err != nil {
				return err
			}
			known, err := peers.Forget(args[0])
			if err != nil {
				return err
			}
			if !known {
				return fmt.Errorf("%s has no key for %q; mesh key known list shows whom it has", file, args[0])
			}
			return printResult(c, knownPeer{args[0], all[args[0]].String()}, row{"forgot", quote(args[0]) + " " + all[args[0]].String()})
		},
	}
}
