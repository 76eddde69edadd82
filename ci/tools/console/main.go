// Command console checks the blocks marked `console` in Markdown files by doing what they show.
//
// The blocks of a file run in order, each in its own terminal, which stays open until the end of the file.
// The working directory is the root of a copy of the repository. In a block
//
//   - "$ command" is typed into the shell, once the command before it has succeeded (a line that ends in a
//     backslash continues in the next one);
//   - "> text" is typed into the running program;
//   - any other line is expected output: whole lines, in this order, with "..." for any text. Other lines
//     of output may come between them. Blank lines and trailing white space are ignored.
//
// Input is typed only after all expected output above it. If the last command of a block is shown without
// output, it must exit by itself; otherwise it may keep running. At the end of a file all processes are
// terminated; processes and temporary files that remain are an error. It runs on Linux and macOS.
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
	flag.DurationVar(&r.perLine, "line", 60*time.Second, "time limit for each line; before the first one a compiler may run")
	flag.DurationVar(&r.perFile, "file", 5*time.Minute, "time limit for a file")
	flag.DurationVar(&r.grace, "grace", 5*time.Second, "time that processes have to exit after they are terminated")
	flag.IntVar(&r.port, "port", 8080, "TCP port of the examples, which must be free; 0 for none")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: console [flags] FILE.md ...   (in the root of the repository)")
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
		return errors.New("no block is marked console")
	}
	if err := r.checkPort(ctx); err != nil {
		return err
	}
	// Not in the usual temporary directory, whose path is too long for a socket on macOS.
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

// run runs blocks with root/repo as the working directory.
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

// play runs a block.
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
		return fmt.Errorf("block at line %d:\n%s--- its last command, which is shown without output, must exit: %w\n--- the terminal printed:\n%s",
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
		return fmt.Errorf("the line %q was not printed: %w", s.text, err)
	}
	return nil
}

func (r *runner) limited(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.perLine, fmt.Errorf("not within %v", r.perLine))
	defer cancel()
	return wait(ctx)
}

// end closes the terminals and returns the processes that did not exit.
func (r *runner) end(terminals []*terminal) (left []string) {
	// The context of the file may have expired.
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

// checkPort fails early if the port is taken: otherwise an example would connect to a wrong server.
func (r *runner) checkPort(ctx context.Context) error {
	if r.port == 0 {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(r.port))
	if err != nil {
		return fmt.Errorf("the examples need TCP port %d: %w; stop the program that uses it", r.port, err)
	}
	return l.Close()
}

// copyTree copies the files that git tracks, or would track after git add, into dir.
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
