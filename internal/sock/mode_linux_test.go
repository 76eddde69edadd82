package sock_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// On Linux the mode is never wider, under any name and not even before the socket accepts connections:
// another goroutine looks at the directory all the time, under a umask of 0.
func TestListenModeFromTheFirstMoment(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // no test of this package runs in parallel
	dir := testutil.ShortDir(t)
	path := filepath.Join(dir, "s")
	stop, seen := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		saw := sync.OnceFunc(func() { close(seen) })
		for {
			select {
			case <-stop:
				return
			default:
			}
			files, _ := os.ReadDir(dir)
			for _, file := range files {
				fi, err := file.Info()
				if err != nil {
					continue // removed meanwhile
				}
				saw()
				if fi.Mode() != fs.ModeSocket|0o600 {
					t.Errorf("%s has mode %v", file.Name(), fi.Mode())
					return
				}
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	for range 500 {
		ln, err := sock.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		<-seen
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
