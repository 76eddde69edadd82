package main

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/internal/identity"
)

const (
	maxLifetime = 10 * 365 * 24 * time.Hour
	// maxPeerID is the length in bytes of the longest peer id that a signaling server gives.
	maxPeerID = 128
)

const signHelp = `Sign a statement that an agent is a member of a mesh: that its key belongs to its peer
id, until a time. Print it, or write it to the file that the agent reads
(MESH_MEMBERSHIP). Agents with policy member trust the public key of the root
(MESH_ROOTS), and take peers that show such a statement.

To renew a statement, sign again with the same --out: running agents read the file
again, and no link ends. To withdraw one, put the agent's public key into the file
that MESH_REVOKED names at its peers.`

// signFlags are the flags of mesh key sign.
type signFlags struct {
	root, peer, key, keyFile, mesh, out string
	lifetime                            time.Duration
	allowRoot                           bool
}

func newKeySign() *cobra.Command {
	c := &cobra.Command{
		Use:   "sign --root FILE --peer ID (--key KEY | --key-file FILE)",
		Short: "Sign a statement that an agent is a member of a mesh",
		Long:  signHelp,
		Example: "  mesh key sign --root root.key --peer alice --key-file alice.key --mesh demo --out alice.member\n" +
			"  mesh key sign --root root.key --peer bob --key iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w= --for 2160h",
		Args: cobra.NoArgs,
	}
	var f signFlags
	c.Flags().StringVar(&f.root, "root", "", "the `file` with the key of the root")
	c.Flags().StringVar(&f.peer, "peer", "", "the peer `id` of the agent")
	c.Flags().StringVar(&f.key, "key", "", "the public `key` of the agent, as mesh key show prints it")
	c.Flags().StringVar(&f.keyFile, "key-file", "", "the `file` with the key of the agent, instead of --key")
	c.Flags().DurationVar(&f.lifetime, "for", 30*24*time.Hour, "how long the statement is valid, at most 87600h")
	c.Flags().StringVar(&f.out, "out", "", "write the statement to this `file`, in the place of an older one about the same peer")
	c.Flags().BoolVar(&f.allowRoot, "allow-root-key", false, "let the key of the root be that of an agent, which whoever takes over the agent then has")
	c.Flags().StringVar(&f.mesh, "mesh", "", "the `name` of the mesh, the same as that of its agents (default $MESH_NAME)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return usage(err)
		}
		return f.sign(c)
	}
	return c
}

// check returns what is wrong with the flags by themselves.
func (f *signFlags) check() error {
	switch {
	case f.root == "":
		return errors.New("no key to sign with; name the file of the root's key with --root")
	case f.peer == "":
		return errors.New("no peer; name the agent's peer id with --peer")
	case f.key == "" && f.keyFile == "":
		return errors.New("no key to sign; give the agent's public key with --key, or its key file with --key-file")
	case f.key != "" && f.keyFile != "":
		return errors.New("both --key and --key-file; give one")
	case f.lifetime < time.Second:
		return fmt.Errorf("--for %v: the statement would have expired already", f.lifetime)
	case f.lifetime > maxLifetime:
		return fmt.Errorf("--for %v: at most %v; sign again before it expires", f.lifetime, maxLifetime)
	}
	if err := identity.CheckMeshName(f.meshName()); err != nil {
		return fmt.Errorf("--mesh (or MESH_NAME): %w", err)
	}
	return checkPeerID(f.peer)
}

func (f *signFlags) meshName() string { return cmp.Or(f.mesh, os.Getenv("MESH_NAME")) }

// checkPeerID returns why no signaling server gives an agent this id.
func checkPeerID(id string) error {
	if len(id) > maxPeerID {
		return fmt.Errorf("--peer: the id has %d bytes, and at most %d are allowed", len(id), maxPeerID)
	}
	if !utf8.ValidString(id) {
		return errors.New("--peer: the id is not valid UTF-8")
	}
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("--peer: %U in the id is not printable", r)
		}
	}
	return nil
}

// agentKey returns the key that the statement is about.
func (f *signFlags) agentKey() (identity.PublicKey, error) {
	if f.keyFile != "" {
		key, err := identity.ReadKey(f.keyFile)
		if err != nil {
			return identity.PublicKey{}, err
		}
		return identity.Public(key), nil
	}
	key, err := identity.ParsePublicKey(f.key)
	if err != nil {
		return key, usage(fmt.Errorf("--key %q: %w; mesh key show prints the public key of a key file", f.key, err))
	}
	return key, nil
}

func (f *signFlags) sign(c *cobra.Command) error {
	root, err := identity.ReadKey(f.root)
	if err != nil {
		return err
	}
	key, err := f.agentKey()
	if err != nil {
		return err
	}
	if err := f.checkKey(root, key); err != nil {
		return err
	}
	st := identity.NewStatement(root, f.meshName(), f.peer, key, time.Now().Add(f.lifetime))
	if f.out == "" {
		return printJSON(c.OutOrStdout(), st)
	}
	if err := st.WriteFile(f.out); err != nil {
		return err
	}
	return printResult(c, st, row{"file", quote(f.out)}, row{"mesh", quote(st.Mesh)}, row{"peer", quote(st.PeerID)},
		row{"expires", st.End().UTC().Format(time.RFC3339)}, row{"root", identity.Public(root).String()})
}

// checkKey returns why the root should not sign for the key.
func (f *signFlags) checkKey(root ed25519.PrivateKey, key identity.PublicKey) error {
	if key == identity.Public(root) && !f.allowRoot {
		return errors.New("the key is the root's own; make one for the agent with mesh key new, or set --allow-root-key")
	}
	if identity.Certified(f.peer) && f.peer != key.ID() {
		return fmt.Errorf("the id %s certifies another key than %v, whose id is %s", quote(f.peer), key, key.ID())
	}
	return nil
}
