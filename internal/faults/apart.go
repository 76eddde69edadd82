//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// apartEnv marks a copy of this program that runs one row.
const apartEnv = "MESH_FAULTS_APART"

// apart has a row run in a copy of this program that has a network and mounts of its own (namespaces(7)), which end with it. It
// skips the row where such a process is not allowed.
func apart(body func(*run)) func(*run) {
	return func(r *run) {
		if r.apart {
			body(r)
			return
		}
		cmd := exec.CommandContext(r.ctx, "/proc/self/exe", "-run", "^"+regexp.QuoteMeta(r.name)+"$",
			"-quick="+strconv.FormatBool(r.quick), "-seed", strconv.FormatUint(r.seed, 10))
		cmd.Env = append(os.Environ(), apartEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
		if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}} // root there, without which exec drops what is allowed
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
		}
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = patience
		cmd.Stderr = os.Stderr
		var out bytes.Buffer
		cmd.Stdout = &out
		r.skip("namespaces are not allowed here", cmd.Start())
		r.stop("the copy of this program", cmd.Wait())
		r.hear(&out)
	}
}

// settle makes the namespaces of the copy a place to work in.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts are not allowed here: %w", err)
	}
	return command("ip", "link", "set", "lo", "up")
}

// needsLinks skips a row where links between namespaces are not allowed, or a program is missing: ip, or one of these.
func (r *run) needsLinks(programs ...string) {
	for _, name := range append(programs, "ip") {
		_, err := exec.LookPath(name)
		r.skip("a program is missing", err)
	}
	r.skip("veth is not allowed here", command("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"))
	r.stop("probe", command("ip", "link", "del", "probe0"))
}

// An outcome is what the copy tells of its row, as JSON.
type outcome struct {
	Facts   []string
	Times   []*timing
	Failed  []string
	Skipped string
}

// tell writes what has become of the row.
func (r *run) tell(out io.Writer) (word string) {
	o := outcome{Facts: r.facts, Times: r.times, Skipped: r.skipped}
	for _, err := range r.failed {
		o.Failed = append(o.Failed, err.Error())
	}
	if err := json.NewEncoder(out).Encode(o); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
	return r.word()
}

// hear takes over what the copy has told.
func (r *run) hear(in io.Reader) {
	var o outcome
	r.stop("the copy of this program", json.NewDecoder(in).Decode(&o))
	r.facts, r.times, r.skipped = append(r.facts, o.Facts...), append(r.times, o.Times...), o.Skipped
	for _, text := range o.Failed {
		r.failed = append(r.failed, errors.New(text))
	}
}

// commandTime bounds a command, which takes milliseconds.
const commandTime = 20 * time.Second

// command runs a program. Its error has what that says.
func command(name string, args ...string) error {
	_, err := output(exec.Command(name, args...))
	return err
}

// output runs a command and returns what it writes.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Start()
	if err == nil {
		timer := time.AfterFunc(commandTime, func() { _ = cmd.Process.Kill() })
		err = cmd.Wait()
		timer.Stop()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out.Bytes(), err
}
