package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const recvHelp = `Take the files and directories that peers copy here with mesh cp, until interrupted, and
write them below DIR, nothing outside of it. A file appears under its name when it is
complete and its checksum is right, in the place of an older one; until then it is in
DIR/` + partsDir + `, from where an interrupted copy goes on.

Every agent on the mesh may copy files here, unless --allow names who.`

// recvFlags are the flags of mesh recv.
type recvFlags struct {
	joinFlags
	allow peerNames
	once  bool
}

// shownReceiver is what is printed first.
type shownReceiver struct {
	Peer string `json:"peer"` // this one
	Dir  string `json:"dir"`
}

// shownFile is what is printed about a file that has arrived.
type shownFile struct {
	From string `json:"from"`
	Name string `json:"name"`
	Size int64  `json:"size"`
}

func newRecv() *cobra.Command {
	var f recvFlags
	c := &cobra.Command{
		Use: "recv DIR", Short: "Take the files that peers copy here", Long: recvHelp,
		Example: "  mesh recv inbox --id bob\n  mesh recv inbox --allow alice --once",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
	f.add(c)
	c.Flags().Var(&f.allow, "allow", "the `peers` that may, separated by commas (default all)")
	c.Flags().BoolVar(&f.once, "once", false, "end after the first copy; exit status 1 if it was not complete")
	c.RunE = func(c *cobra.Command, args []string) error {
		root, err := os.OpenRoot(args[0])
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w; make the directory first", err)
		}
		if err != nil {
			return err
		}
		defer func() { _ = root.Close() }()
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error { return f.recv(ctx, c, m, root) })
	}
	return c
}

func (f *recvFlags) recv(parent context.Context, c *cobra.Command, m *mesh.Mesh, root *os.Root) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	listener, err := listen(m, filesService, f.allow)
	if err != nil {
		return err
	}
	if err := printEvent(c, shownReceiver{m.ID(), root.Name()}, fmt.Sprintf("receiving into %s as %s", quote(root.Name()), quote(m.ID()))); err != nil {
		return err
	}
	s := &store{root: root, open: map[string]*receiver{}}
	var first error
	var once sync.Once
	err = acceptAll(ctx, listener, func(conn net.Conn) {
		err := receiveOne(ctx, c, m, s, conn.(*mesh.Conn))
		if f.once {
			once.Do(func() {
				first = err
				cancel()
			})
		}
	})
	return errors.Join(err, first, endedUnless(parent, f.once && ctx.Err() != nil && parent.Err() == nil))
}

// endedUnless is ended, and nil if a command ends by itself.
func endedUnless(ctx context.Context, itself bool) error {
	if itself {
		return nil
	}
	return ended(ctx)
}

// receiveOne takes what one peer copies. The error was said.
func receiveOne(ctx context.Context, c *cobra.Command, m *mesh.Mesh, s *store, conn *mesh.Conn) error {
	linked, cancel := whileLinked(ctx, m, conn)
	defer cancel()
	stop := context.AfterFunc(linked, func() { _ = conn.Close() })
	defer stop()
	peer := conn.Peer().ID
	r := newReceiver(s, conn, func(it item) error {
		e := shownFile{peer, string(it.Name), it.Size}
		return printEvent(c, e, fmt.Sprintf("%s: %s, %d bytes", quote(peer), quote(e.Name), e.Size))
	})
	err := r.run()
	_ = conn.Close()
	if err != nil && ctx.Err() == nil {
		say(c, "the copy of %s broke off: %s", quote(peer), plain(err))
	}
	return err
}
