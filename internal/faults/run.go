//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

const (
	// patience bounds each wait. It is more than anything takes, even on a busy machine: it is there to name what hangs.
	patience = 90 * time.Second
	// look is the time between two looks at what no event announces.
	look = 2 * time.Millisecond
)

// A run is one row at work: what it counted, how long things took, and what did not hold.
type run struct {
	options
	ctx     context.Context
	name    string // of the row
	random  *rand.Rand
	cleanup []func()

	mu      sync.Mutex
	facts   []string
	times   []*timing
	failed  []error
	skipped string // why, "" if the row was run
}

// A timing is how long something took, each time, and how long it may take at most.
type timing struct {
	What string
	Most time.Duration
	Took []time.Duration
}

// The words with which the line of a row begins.
const (
	wordOK   = "ok"
	wordSkip = "skip"
	wordFail = "FAIL"
)

// report runs a row and prints its line, and returns the word with which that begins.
func (w row) report(ctx context.Context, o options, out io.Writer) (word string) {
	r := &run{options: o, ctx: ctx, name: w.name, random: rand.New(rand.NewPCG(o.seed, 0))}
	begin := time.Now()
	r.whole(w.run)
	if o.apart {
		return r.tell(out)
	}
	if o.times {
		for _, t := range r.times {
			if worst := slices.Max(t.Took); worst > t.Most {
				r.failed = append(r.failed, fmt.Errorf("%s: %s, which may take %s", t.What, short(worst), short(t.Most)))
			}
		}
	}
	if r.skipped != "" && testutil.Full() {
		r.failed = append(r.failed, errors.New("MESH_TEST_FULL is set, so that nothing may be skipped"))
	}
	word = r.word()
	parts := r.facts
	if r.skipped != "" {
		parts = append(parts, "skipped: "+r.skipped)
	}
	for _, t := range r.times {
		parts = append(parts, t.String())
	}
	fmt.Fprintf(out, "%-4s %-20s %s (%.1f s)\n", word, w.name, strings.Join(parts, "; "), time.Since(begin).Seconds())
	for _, err := range r.failed {
		fmt.Fprintf(out, "     %-20s %s\n", "", strings.ReplaceAll(err.Error(), "\n", "\n     "))
	}
	return word
}

func (r *run) word() string {
	switch {
	case len(r.failed) > 0:
		return wordFail
	case r.skipped != "":
		return wordSkip
	}
	return wordOK
}

// An end is how stop ends a row.
type end struct{ err error }

// A lack is how skip ends a row.
type lack struct{ why string }

// whole runs body, and checks that nothing of it is left.
func (r *run) whole(body func(*run)) {
	before := usage()
	r.do(body)
	if after, ok := settles(before); !ok {
		r.failed = append(r.failed, fmt.Errorf("left behind: before %v, after %v", before, after))
	}
}

// do runs body, then what it has to clean up.
func (r *run) do(body func(*run)) {
	outer := r.cleanup
	r.cleanup = nil
	r.guard(func() { body(r) })
	for _, f := range slices.Backward(r.cleanup) {
		r.guard(f)
	}
	r.cleanup = outer
}

// guard runs f, which stop may end.
func (r *run) guard(f func()) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case end:
			r.failed = append(r.failed, p.err)
		case lack:
			r.skipped = p.why
		default:
			r.failed = append(r.failed, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	f()
}

// later has f called at the end of the row. The last one is called first.
func (r *run) later(f func()) { r.cleanup = append(r.cleanup, f) }

// stop ends the row if err is not nil.
func (r *run) stop(what string, err error) {
	if err != nil {
		panic(end{fmt.Errorf("%s: %w", what, err)})
	}
}

// skip ends the row if err is not nil: the host lacks what it takes.
func (r *run) skip(what string, err error) {
	if err != nil {
		panic(lack{fmt.Sprintf("%s: %v", what, err)})
	}
}

// check notes what does not hold. The row goes on. It may be called from any goroutine.
func (r *run) check(ok bool, format string, args ...any) {
	const most = 10
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ok && len(r.failed) < most {
		r.failed = append(r.failed, fmt.Errorf(format, args...))
	}
}

// fair checks the share of its usual rate that another peer got beside the one in trouble. The share depends on what else the
// machine does, so it is checked as the times are; a peer that got next to nothing was locked up, and always fails.
func (r *run) fair(share float64) {
	least := 0.05
	if r.options.times {
		least = 0.5
	}
	r.check(share > least, "another peer got %.2f of its usual rate meanwhile", share)
}

// say adds to the row's line what was done and counted.
func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts = append(r.facts, fmt.Sprintf(format, args...))
}

// took notes how long something took that may take so long at most.
func (r *run) took(what string, d, most time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.times, func(t *timing) bool { return t.What == what })
	if i < 0 {
		i = len(r.times)
		r.times = append(r.times, &timing{What: what, Most: most})
	}
	r.times[i].Took = append(r.times[i].Took, d)
}

// pick returns one of two numbers, by -quick.
func pick[T any](r *run, whole, quick T) T {
	if r.quick {
		return quick
	}
	return whole
}

// until blocks until ok returns true, and ends the row if that takes longer than patience.
func (r *run) until(what string, ok func() bool) {
	if !within(r.ctx, patience, ok) {
		panic(end{fmt.Errorf("not within %s: %s", patience, what)})
	}
}

// progress blocks until count has come to want, or has stood still for patience.
func (r *run) progress(what string, want int, count func() int) {
	for n := count(); n < want; {
		before := n
		if !within(r.ctx, patience, func() bool { n = count(); return n > before }) {
			r.check(false, "not within %s: more than %d of %s", patience, n, what)
			return
		}
	}
}

// await blocks until a channel is closed, and ends the row if that takes longer than patience.
func (r *run) await(what string, closed <-chan struct{}) {
	select {
	case <-closed:
	case <-r.ctx.Done():
		panic(end{context.Cause(r.ctx)})
	case <-time.After(patience):
		panic(end{fmt.Errorf("not within %s: %s", patience, what)})
	}
}

// within blocks until ok returns true, and reports whether it did in time.
func within(ctx context.Context, limit time.Duration, ok func() bool) bool {
	over := time.Now().Add(limit)
	for !ok() {
		if ctx.Err() != nil || time.Now().After(over) {
			return ok() // a machine that stood still may have left no time for another look
		}
		time.Sleep(look)
	}
	return true
}

// pause lets time pass.
func (r *run) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
		panic(end{context.Cause(r.ctx)})
	}
}

// bounded returns a context for one operation.
func (r *run) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(r.ctx, patience, fmt.Errorf("not within %s", patience))
}

func (t *timing) String() string {
	d := slices.Sorted(slices.Values(t.Took))
	at := func(p int) time.Duration { return d[(len(d)-1)*p/100] }
	worst := d[len(d)-1]
	text := fmt.Sprintf("%s p50 %s, p99 %s, max %s", t.What, short(at(50)), short(at(99)), short(worst))
	if len(d) == 1 {
		text = fmt.Sprintf("%s %s", t.What, short(worst))
	}
	if worst > t.Most {
		text += fmt.Sprintf(" (over %s)", short(t.Most))
	}
	return text
}

func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	}
	return strconv.FormatFloat(d.Seconds(), 'g', 3, 64) + " s"
}

// used is what this process holds.
type used struct{ goroutines, descriptors, children, files int }

func (u used) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d processes, %d files", u.goroutines, u.descriptors, u.children, u.files)
}

// usage returns what is held now. Sockets are among the descriptors; the files are those in the temporary directory.
func usage() used {
	descriptors, _ := os.ReadDir("/proc/self/fd")
	files := 0
	_ = filepath.WalkDir(os.TempDir(), func(string, os.DirEntry, error) error { files++; return nil })
	files-- // the directory itself
	return used{runtime.NumGoroutine(), len(descriptors), len(children()), files}
}

// settles blocks until no more is held than before, for a while.
func settles(before used) (now used, ok bool) {
	ok = within(context.Background(), 15*time.Second, func() bool {
		now = usage()
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.children <= before.children && now.files <= before.files
	})
	return now, ok
}

// children returns the processes that this one has started.
func children() []int {
	var all []int
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range tasks {
		text, _ := os.ReadFile(name)
		for _, f := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// runs reports whether a process runs. One that has ended does not, even if its parent has not waited for it.
func runs(pid int) bool {
	switch status(fmt.Sprintf("/proc/%d/stat", pid)) {
	case 0, 'Z', 'X':
		return false
	}
	return true
}

// status returns that of a process or thread, by the name of its stat file (proc_pid_stat(5)): R, S, T, Z ..., 0 if there is none.
func status(stat string) byte {
	text, _ := os.ReadFile(stat)
	if i := strings.LastIndex(string(text), ") "); i >= 0 && i+2 < len(text) {
		return text[i+2]
	}
	return 0
}

// resident returns the memory of a process in bytes, now and at most.
func resident(pid int) (now, most int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		for name, value := range map[string]*int{"VmRSS:": &now, "VmHWM:": &most} {
			if rest, found := strings.CutPrefix(line, name); found {
				kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
				*value = kb << 10
			}
		}
	}
	return now, most
}

// resetPeak has the most memory of this process counted from now on, and returns what it has now.
func resetPeak() (now int) {
	debug.FreeOSMemory()
	return resetPeakOf(os.Getpid())
}

// resetPeakOf does so for a process of this user, without freeing anything.
func resetPeakOf(pid int) (now int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // proc_pid_clear_refs(5)
	now, _ = resident(pid)
	return now
}

// raced returns how much memory may be taken where so much may be without the race detector, which takes five to ten times as much.
func raced(bytes int) int {
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 8 * bytes
	}
	return bytes
}
