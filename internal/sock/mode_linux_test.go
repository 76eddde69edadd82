package sock_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// On Linux there is no moment with a wider mode, not even before anybody could connect: another
// goroutine looks all the time, under the umask that hides nothing.
func TestListenModeFromTheFirstMoment(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // no test of this package runs in parallel
	path := filepath.Join(shortDir(t), "s")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var seen int
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			fi, err := os.Lstat(path)
			if err != nil {
				continue
			}
			seen++
			if fi.Mode() != fs.ModeSocket|0o600 {
				t.Errorf("seen with mode %v", fi.Mode())
				return
			}
		}
	})
	for range 500 {
		ln, err := sock.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if seen == 0 {
		t.Error("the watcher never saw the socket")
	}
}
