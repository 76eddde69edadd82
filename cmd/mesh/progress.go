package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressPause is the shortest time from one change of the progress bar to the next.
const progressPause = 100 * time.Millisecond

// A progress is a bar on a terminal, and nothing anywhere else.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress returns one for a number of bytes.
func newProgress(w io.Writer, total int64) progress {
	f, ok := w.(*os.File)
	if !ok {
		return progress{}
	}
	if fi, err := f.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		return progress{}
	}
	return progress{progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(progressPause), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetRenderBlankState(true))} // the first rate would be of no time at all
}

// add notes bytes that are there.
func (p progress) add(n int64) {
	if p.bar != nil {
		_ = p.bar.Add64(n) // it says so if there are more than expected
	}
}

// Write notes bytes that are on their way.
func (p progress) Write(b []byte) (int, error) {
	p.add(int64(len(b)))
	return len(b), nil
}

// end removes the bar.
func (p progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
