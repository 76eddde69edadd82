// Command console checks the blocks marked `console` in Markdown files by doing what they show.
//
// The blocks of a file run in their order, each in a terminal of its own that stays open until the end of
// the file, with the repository's root as the working directory. In a block
//
//   - "$ command" is typed into the shell, once the command before it has ended with success (a line that
//     ends in a backslash goes on in the next one);
//   - "> text" is typed into the running program;
//   - anything else is expected output: whole lines, in this order, with "..." for any text. Other lines
//     may stand between them. Blank lines and white space at the end of a line do not count.
//
// Nothing is typed before all that is expected above it was seen. A last command of which no output is
// shown has to end by itself, any other one may go on running. At the end of a file everything that runs is
// told to end; what stays is an error. Files run in a copy of the working tree, so that nothing is left in
// it. For Linux and macOS.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	r := runner{}
	flag.DurationVar(&r.perLine, "line", 60*time.Second, "wait so long for each line; the first may have to wait for a compiler")
	flag.DurationVar(&r.perFile, "file", 5*time.Minute, "wait so long for all of a file")
	flag.DurationVar(&r.grace, "grace", 5*time.Second, "kill what runs so long after it was told to end")
	flag.IntVar(&r.port, "port", 8080, "TCP port that the examples use, which must be free; 0 for none")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: console [flags] FILE.md ...   (in the repository's root)")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, path := range flag.Args() {
		began := time.Now()
		if err := r.check(ctx, path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		fmt.Printf("%s: works as printed (%.1f s)\n", path, time.Since(began).Seconds())
	}
}

type runner struct {
	perLine, perFile, grace time.Duration
	port                    int
}

// check runs the blocks of one file in a copy of the working tree.
func (r *runner) check(ctx context.Context, path string) (err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found, err := blocks(string(text))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("there is no block marked console")
	}
	if err := r.checkPort(ctx); err != nil {
		return err
	}
	// In /tmp and not in the usual temporary directory, which on macOS is too deep for a socket.
	root, err := os.MkdirTemp("/tmp", "mesh-console-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	if err := copyTree(ctx, filepath.Join(root, "repo")); err != nil {
		return err
	}
	return r.run(ctx, root, found)
}

// run runs blocks below root, in root/repo.
func (r *runner) run(ctx context.Context, root string, found []block) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.perFile, fmt.Errorf("the file takes longer than %v", r.perFile))
	defer cancel()
	env := os.Environ()
	for name, dir := range map[string]string{"TMPDIR": "tmp", "XDG_RUNTIME_DIR": "run", "GOTMPDIR": "build"} {
		path := filepath.Join(root, dir)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		env = append(env, name+"="+path)
	}
	var terminals []*terminal
	var err error
	for _, b := range found {
		t, startErr := startTerminal(filepath.Join(root, "repo"), env)
		if startErr != nil {
			err = startErr
			break
		}
		terminals = append(terminals, t)
		if err = r.play(ctx, t, b); err != nil {
			break
		}
	}
	left := r.end(terminals)
	for _, dir := range []string{"tmp", "run"} {
		files, _ := filepath.Glob(filepath.Join(root, dir, "*"))
		for _, f := range files {
			left = append(left, "file "+f)
		}
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	return err
}

// play does what a block shows.
func (r *runner) play(ctx context.Context, t *terminal, b block) error {
	for _, s := range b.steps {
		if err := r.step(ctx, t, &b, s); err != nil {
			return fmt.Errorf("block at line %d:\n%s--- %w\n--- the terminal printed:\n%s", b.line, b.text, err, t.output())
		}
	}
	if b.interactive() {
		return nil
	}
	if err := r.limited(ctx, t.idle); err != nil {
		return fmt.Errorf("block at line %d:\n%s--- its last command, of which no output is shown, must end: %w\n--- the terminal printed:\n%s",
			b.line, b.text, err, t.output())
	}
	return nil
}

func (r *runner) step(ctx context.Context, t *terminal, b *block, s step) error {
	switch s.kind {
	case command:
		if err := r.limited(ctx, t.idle); err != nil {
			return fmt.Errorf("cannot type the command %q: %w", s.text, err)
		}
		return t.run(s.text)
	case input:
		if t.quiet() {
			return fmt.Errorf("cannot type %q: no program is running", s.text)
		}
		return t.enter(s.text)
	}
	err := r.limited(ctx, func(ctx context.Context) error { return t.expect(ctx, s, b.background()) })
	if err != nil {
		return fmt.Errorf("waited for the line %q: %w", s.text, err)
	}
	return nil
}

func (r *runner) limited(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.perLine, fmt.Errorf("nothing of the kind within %v", r.perLine))
	defer cancel()
	return wait(ctx)
}

// end closes the terminals and returns what did not end with them.
func (r *runner) end(terminals []*terminal) (left []string) {
	// Not under the context of the file, whose time may be up.
	ctx, cancel := context.WithTimeout(context.Background(), r.grace)
	defer cancel()
	for _, t := range terminals {
		t.terminate()
	}
	for _, t := range terminals {
		left = append(left, t.end(ctx)...)
	}
	return left
}

// checkPort fails early, since otherwise an example would talk to somebody else's server.
func (r *runner) checkPort(ctx context.Context) error {
	if r.port == 0 {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(r.port))
	if err != nil {
		return fmt.Errorf("the examples need TCP port %d: %w; end what uses it", r.port, err)
	}
	return l.Close()
}

// copyTree copies what git knows, or would know after git add, into dir.
func copyTree(ctx context.Context, dir string) error {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted and not committed
		}
		if err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}
