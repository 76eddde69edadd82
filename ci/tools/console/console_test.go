package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// doc returns Markdown with the given blocks.
func doc(blocks ...string) string {
	var b strings.Builder
	b.WriteString("# Title\n\n```sh\n$ not checked\n```\n")
	for _, text := range blocks {
		b.WriteString("\nSome text.\n\n```console\n" + strings.TrimPrefix(text, "\n") + "```\n")
	}
	return b.String()
}

func run(t *testing.T, r runner, markdown string) error {
	t.Helper()
	found, err := blocks(markdown)
	if err != nil {
		return err
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "repo"), 0o700); err != nil {
		t.Fatal(err)
	}
	return r.run(context.Background(), root, found)
}

func defaults() runner {
	return runner{perLine: 10 * time.Second, perFile: time.Minute, grace: 5 * time.Second}
}

func TestGood(t *testing.T) {
	for name, markdown := range map[string]string{
		"lines in order, others between": doc(`
$ printf 'one\nnoise\n\ntwo  \nthree hundred\n' # a comment
one
two

t... h...d
`),
		"a dialogue with a program that prompts": doc(`
$ printf 'name? '; read name; printf '> '; read word; echo "hello $name: $word"
> alice
> 'it''s $fine'
hello alice: 'it''s $fine'
$ echo after
after
`),
		"stderr counts, too":          doc("$ echo oops >&2\noops\n"),
		"a command continues":         doc("$ echo a \\\n    b\na b\n"),
		"the shell keeps its state":   doc("$ export NAME=bob\n$ cd /\n$ echo $NAME in $PWD\nbob in /\n"),
		"a last line without newline": doc("$ printf tail\n$ echo next\nnext\n"),
		"terminals see each other":    doc("$ mkfifo pipe; echo made; cat pipe; sleep 60\nmade\n", "$ echo hi >pipe\n"),
		"background output":           doc("$ (until [ -e go ]; do sleep 0.01; done; echo late) &\n$ touch go\nlate\n"),
		"a server is ended":           doc("$ echo up; sleep 60\nup\n", "$ echo ok\nok\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run(t, defaults(), markdown); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBad(t *testing.T) {
	short := defaults()
	short.perLine = 300 * time.Millisecond
	short.grace = 300 * time.Millisecond
	for name, c := range map[string]struct {
		markdown string
		want     []string // in the error
	}{
		"a line that does not come": {doc("$ echo one; sleep 60\none\ntwo\n"), []string{"line 9", `"two"`, "printed:\none\n", "within"}},
		"wrong order":               {doc("$ printf 'two\\none\\n'\none\ntwo\n"), []string{`"two"`, "exited with status 0"}},
		"part of a line":            {doc("$ echo one hundred\none\n"), []string{`"one"`}},
		"the command fails":         {doc("$ false\n$ echo x\nx\n"), []string{"status 1"}},
		"no such command":           {doc("$ nonesuch\nhello\n"), []string{"not found", "status 127"}},
		"the last command fails":    {doc("$ exit_with() { return 3; }; exit_with\n"), []string{"status 3"}},
		"the last command hangs":    {doc("$ sleep 60\n"), []string{"must exit", "within"}},
		"the shell ends":            {doc("$ exit 0\n$ echo x\nx\n"), []string{"shell has exited"}},
		"a syntax error":            {doc("$ if\nx\n"), []string{"syntax error"}},
		"input without a program":   {doc("$ touch done\n$ cat done\n$ true\n> quit\nx\n"), nil},
		"a process that stays":      {doc("$ (trap '' TERM; echo up; while :; do sleep 0.1; done)\nup\n"), []string{"left behind", "process"}},
		"a file that stays":         {doc("$ mktemp >/dev/null\n"), []string{"left behind", "file"}},
		"output before the command": {doc("hello\n$ echo\n"), []string{"begins with"}},
		"an empty block":            {doc(""), []string{"empty"}},
		"a block without end":       {"```console\n$ true\n", []string{"line 1", "never closed"}},
		"a backslash at the end":    {doc("$ echo \\\n"), []string{"backslash"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(t, short, c.markdown)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in the error:\n%v", want, err)
				}
			}
		})
	}
}

func TestFlood(t *testing.T) {
	err := run(t, defaults(), doc("$ yes 'a line that is somewhat longer'\nno\n"))
	if err == nil || !strings.Contains(err.Error(), "prints more than") {
		t.Errorf("got %v", err)
	}
}

func TestFileTimeout(t *testing.T) {
	r := defaults()
	r.perFile = 200 * time.Millisecond
	err := run(t, r, doc("$ sleep 60\n"))
	if err == nil || !strings.Contains(err.Error(), "the file takes longer") {
		t.Errorf("got %v", err)
	}
}
