package hostaddr

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Where the system tells nothing, the addresses are looked at again and again.
func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changes := make(chan struct{}, 1)
		began := time.Now()
		go watch(ctx, nil, "what was before", changes)
		<-changes
		if d := time.Since(began); d != pollInterval {
			t.Errorf("after %s, want %s", d, pollInterval)
		}
		cancel()
		if _, ok := <-changes; ok {
			t.Error("a change at the end")
		}
	})
}

// The end of the context ends the watch, also one that the system tells of changes.
func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	changes := Watch(ctx)
	cancel()
	for range 2 { // the first may be a change
		if _, ok := <-changes; !ok {
			return
		}
	}
	testutil.Take(t, "the end", changes)
}
