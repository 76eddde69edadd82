package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

const cpHelp = `Copy files and directories to a peer that takes them with mesh recv. They get the last part of
their names there, and what is in directories follows. Links and special files in
directories are left out, and named on stderr.

A copy that was interrupted goes on where it was: run the same command again. What is there
already, by its checksum, is not sent. Each file ends with a checksum.`

// shownCopy is what is printed at the end.
type shownCopy struct {
	Peer    string   `json:"peer"`
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`   // of all files
	Sent    int64    `json:"sent"`    // of these, now
	Skipped []string `json:"skipped"` // links and special files
}

func newCp() *cobra.Command {
	var f waitFlags
	c := &cobra.Command{
		Use: "cp FILE... PEER:", Short: "Copy files and directories to a peer", Long: cpHelp,
		Example: "  mesh cp report.pdf pictures/ bob:\n  mesh cp backup.tar bob: --wait 0 --json",
		Args:    cobra.MinimumNArgs(2),
	}
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		peer, ok := strings.CutSuffix(args[len(args)-1], ":")
		if !ok || peer == "" {
			return usage(fmt.Errorf("%q is not where to copy to; the last argument is a peer with a colon, as bob: in mesh cp FILE bob:, and not a file", args[len(args)-1]))
		}
		all, err := collect(args[:len(args)-1])
		if err != nil {
			return err
		}
		return f.with(c, mesh.Config{}, func(ctx context.Context, m *mesh.Mesh) error {
			conn, err := dial(ctx, c, m, target{peer, filesService}, f.wait)
			if errors.Is(err, mesh.ErrNoService) {
				return fmt.Errorf("%s takes no files; run there: mesh recv DIR", quote(peer))
			}
			if err != nil {
				return err
			}
			return copyTo(ctx, c, m, conn, all)
		})
	}
	return c
}

func copyTo(ctx context.Context, c *cobra.Command, m *mesh.Mesh, conn *mesh.Conn, all *collection) error {
	linked, cancel := whileLinked(ctx, m, conn)
	defer cancel()
	stop := context.AfterFunc(linked, func() { _ = conn.Close() })
	defer stop()
	for _, path := range all.skipped {
		say(c, "%s is no file and no directory, and left out", quote(path))
	}
	s := &sender{wire: newWire(conn), bar: newProgress(c.ErrOrStderr(), all.bytes)}
	err := s.run(all)
	s.bar.end()
	if linked.Err() != nil {
		err = context.Cause(linked)
	}
	if err != nil {
		if again := context.Cause(linked); again != nil || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w; to go on where it was, copy again", err)
		}
		return err
	}
	_ = conn.Close()
	shown := shownCopy{conn.Peer().ID, all.files, all.bytes, s.sent, append([]string{}, all.skipped...)}
	for _, name := range s.refused {
		say(c, "%s", name)
	}
	if len(s.refused) > 0 {
		return fmt.Errorf("%d of %d were not copied", len(s.refused), len(all.items))
	}
	return printEvent(c, shown, fmt.Sprintf("copied %d files, %d bytes, to %s; %d bytes were not there yet", shown.Files, shown.Bytes, quote(shown.Peer), shown.Sent))
}
