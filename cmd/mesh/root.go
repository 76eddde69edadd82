package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/version"
)

const rootHelp = `The tools of a mesh of agents.

Exit status: 0, 1 for what has failed, 2 for a command line that is wrong.`

// run carries out one command line, and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), printable(err.Error()))
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "mesh", Short: "The tools of a mesh of agents", Long: rootHelp,
		Version: version.String("mesh"), SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(newKey())
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
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%-10s %s\n", r.name, r.value); err != nil {
			return err
		}
	}
	return nil
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
