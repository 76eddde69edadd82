package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/internal/identity"
)

const keyHelp = `Keys by which agents prove to each other who they are, so that the signaling server
need not be trusted. A key is a file (PKCS #8 in PEM) that only its owner can read;
what it signs for is shown to others as a public key, or as the id that certifies it.

  mesh key new       each agent makes a key of its own
  mesh key sign      policy member: the owner of the root key says who belongs to the mesh
  mesh key known     policy known: the keys that agents have kept of each other`

func newKey() *cobra.Command {
	c := &cobra.Command{Use: "key", Short: "Make, show and sign the keys of agents", Long: keyHelp, Example: "  mesh key new --out bob.key\n  mesh key show bob.key"}
	c.AddCommand(newKeyNew(), newKeyShow(), newKeySign(), newKeyKnown())
	return c
}

// shownKey is what is printed about a key.
type shownKey struct {
	File string `json:"file"`
	Key  string `json:"key"` // the public one
	ID   string `json:"id"`
}

func printKey(c *cobra.Command, file string, key identity.PublicKey) error {
	return printResult(c, shownKey{file, key.String(), key.ID()},
		row{"file", quote(file)}, row{"key", key.String()}, row{"id", key.ID()})
}

func newKeyNew() *cobra.Command {
	c := &cobra.Command{
		Use:   "new --out FILE",
		Short: "Make a key",
		Long: `Make an Ed25519 key in a new file that only you can read, and print the public key and
the id that certifies it: an agent that is registered under that id can be no other.

Never overwrites a file.`,
		Example: "  mesh key new --out alice.key\n  mesh key new --out root.key    # signs the members of a mesh; belongs in a safe place",
		Args:    cobra.NoArgs,
	}
	out := c.Flags().String("out", "", "the new `file` (default $MESH_IDENTITY_KEY)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		file := cmp.Or(*out, os.Getenv("MESH_IDENTITY_KEY"))
		if file == "" {
			return usage(errors.New("no file for the key; name one with --out"))
		}
		key, err := identity.NewKeyFile(file)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists, and a key is never overwritten; choose another name, or see what it is with: mesh key show", file)
		}
		if err != nil {
			return err
		}
		return printKey(c, file, key)
	}
	return c
}

func newKeyShow() *cobra.Command {
	c := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show the public key in a key file, or what a statement says",
		Long: `Show the public key of a key file and the id that certifies it; or, of a file that
mesh key sign has made, who is a member of which mesh, until when, and whether one of
the roots has signed that.

Never shows the private key.`,
		Example: "  mesh key show alice.key\n  mesh key show --roots \"$(mesh key show --json root.key | jq -r .key)\" alice.member",
		Args:    cobra.MaximumNArgs(1),
	}
	flag := c.Flags().String("key", "", "the `file` (default $MESH_IDENTITY_KEY)")
	roots := c.Flags().StringSlice("roots", nil, "public `keys` of which one must have signed a statement (default $MESH_ROOTS)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 1 && *flag != "" {
			return usage(errors.New("two files, an argument and --key; name one"))
		}
		file := cmp.Or(strings.Join(args, ""), *flag, os.Getenv("MESH_IDENTITY_KEY"))
		if file == "" {
			return usage(errors.New("no file; name one, or set MESH_IDENTITY_KEY"))
		}
		if holdsJSON(file) {
			return showStatement(c, file, *roots)
		}
		key, err := identity.ReadKey(file)
		if err != nil {
			return err
		}
		return printKey(c, file, identity.Public(key))
	}
	return c
}

// holdsJSON reports whether a file begins as a statement does.
func holdsJSON(file string) bool {
	if fi, err := os.Stat(file); err != nil || !fi.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var head [64]byte
	n, _ := f.Read(head[:])
	return strings.HasPrefix(strings.TrimSpace(string(head[:n])), "{")
}

// shownStatement is what is printed about a statement.
type shownStatement struct {
	File    string `json:"file"`
	Mesh    string `json:"mesh"`
	PeerID  string `json:"peer_id"`
	Key     string `json:"key"`
	Expires string `json:"expires"` // RFC 3339
	Expired bool   `json:"expired"`
	Root    string `json:"root,omitempty"`  // that has signed it, if that is known
	Valid   *bool  `json:"valid,omitempty"` // absent if there are no roots to tell
}

func showStatement(c *cobra.Command, file string, rootKeys []string) error {
	roots, err := parseRoots(rootKeys)
	if err != nil {
		return err
	}
	st, err := identity.ReadStatement(file)
	if err != nil {
		return err
	}
	left := time.Until(st.End())
	s := shownStatement{File: file, Mesh: st.Mesh, PeerID: st.PeerID, Key: st.Key, Expires: st.End().UTC().Format(time.RFC3339), Expired: left <= 0}
	signature := "not checked; name the roots with --roots or MESH_ROOTS"
	if len(roots) > 0 {
		signature = "WRONG: none of the roots has signed this"
	}
	for _, root := range roots {
		if st.Verify([]identity.PublicKey{root}) == nil {
			s.Root, signature = root.String(), "by root "+root.String()
		}
	}
	if len(roots) > 0 {
		valid := s.Root != "" && !s.Expired
		s.Valid = &valid
	}
	expires := s.Expires + ", in " + left.Round(time.Second).String()
	if s.Expired {
		expires = s.Expires + ", EXPIRED; make a newer one with: mesh key sign"
	}
	return printResult(c, s, row{"file", quote(file)}, row{"mesh", quote(s.Mesh)}, row{"peer", quote(s.PeerID)},
		row{"key", quote(s.Key)}, row{"expires", expires}, row{"signed", signature})
}

// parseRoots returns the keys of the roots, by default those in the environment.
func parseRoots(texts []string) (roots []identity.PublicKey, err error) {
	if len(texts) == 0 {
		texts = strings.FieldsFunc(os.Getenv("MESH_ROOTS"), func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, text := range texts {
		root, err := identity.ParsePublicKey(text)
		if err != nil {
			return nil, usage(fmt.Errorf("root %q: %w; mesh key show prints the public key of a key file", text, err))
		}
		roots = append(roots, root)
	}
	return roots, nil
}
