package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/version"
)

const rootHelp = `The tools of a mesh of agents.

Commands that join a mesh do so by themselves, with what the environment says
(SIGNALING_URL, API_KEY and the other variables of agents) and their flags. They never take
the place of an agent that is there. To try them out, start: mesh dev

Exit status: 0, 1 for what has failed, 2 for a command line that is wrong; 130 and 143 for
what SIGINT and SIGTERM have cut short.`

// run carries out one command line, and returns the exit status. The end of ctx cuts it short, by a signal if the cause
// is one.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetIn(stdin)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if signal := (signalError{}); errors.As(err, &signal) {
		return 128 + int(signal.Signal)
	}
	if nobodyReads(err) {
		return 128 + int(syscall.SIGPIPE)
	}
	_, _ = fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), printable(plain(err)))
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// nobodyReads reports whether an error says that standard output goes nowhere any more, as after "| head": there is nothing to say.
func nobodyReads(err error) bool {
	path := (*os.PathError)(nil)
	return errors.As(err, &path) && path.Path == os.Stdout.Name() && errors.Is(err, syscall.EPIPE)
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "mesh", Short: "The tools of a mesh of agents", Long: rootHelp,
		Version: version.String("mesh"), SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(newKey(), newDev(), newServe(), newForward(), newMCP(), newPeers(), newTop(), newWeb(), newSend(), newRequest(), newListen(), newPing(), newCp(), newRecv())
	root.SetVersionTemplate("{{.Version}}\n")
	root.PersistentFlags().Bool("json", false, "print JSON, for programs")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	// A group runs only to say which commands it has, so "mesh key [flags]" is no use of it.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", 1))
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.InitDefaultCompletionCmd() // here, so that it is strict, too
	strict(root)
	return root
}

// errUsage marks an error in the command line.
var errUsage = errors.New("try --help")

func usage(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; %w", err, errUsage)
}

// strict makes what a command and those below it say about their arguments errors of usage.
func strict(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		c.Args, c.RunE = cobra.ArbitraryArgs, wrongCommand
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error { return usage(check(c, args)) }
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// wrongCommand is what a group of commands does when none of them is meant.
func wrongCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		c.SetOut(c.ErrOrStderr())
		return errors.Join(c.Help(), usage(errors.New("which command")))
	}
	c.SuggestionsMinimumDistance = 2
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		return usage(fmt.Errorf("unknown command %q; did you mean %s", args[0], strings.Join(like, " or ")))
	}
	return usage(fmt.Errorf("unknown command %q", args[0]))
}

// A row is a line of a result: what it is, and what it says.
type row struct{ name, value string }

// printResult prints what a command has found: the rows, or, with --json, the result itself.
func printResult(c *cobra.Command, result any, rows ...row) error {
	if asJSON, err := c.Flags().GetBool("json"); err != nil || asJSON {
		return errors.Join(err, printJSON(c.OutOrStdout(), result))
	}
	for _, r := range rows {
		if _, err := fmt.Fprintln(c.OutOrStdout(), strings.TrimRight(fmt.Sprintf("%-10s %s", r.name, r.value), " ")); err != nil {
			return err
		}
	}
	return nil
}

// printEvent prints something that has happened, of which there may be more: a line of text, or of JSON with --json.
func printEvent(c *cobra.Command, event any, text string) error {
	if asJSON, err := c.Flags().GetBool("json"); err != nil || asJSON {
		return errors.Join(err, printJSON(c.OutOrStdout(), event))
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), printable(text))
	return err
}

// plain returns the text of an error, without the name of the library at its beginning: that is this command's, too.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "mesh: ") }

// say tells the user something on stderr.
func say(c *cobra.Command, format string, args ...any) {
	_, _ = fmt.Fprintln(c.ErrOrStderr(), c.CommandPath()+": "+printable(fmt.Sprintf(format, args...)))
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// quote returns a name as it is, or quoted if it has characters that could be taken for something else, or steer a
// terminal.
func quote(name string) string { return identity.QuoteID(name) }

// printable replaces what could steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return r
		}
		return '?'
	}, text)
}
