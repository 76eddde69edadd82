package hostaddr

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

const (
	// settle is the time from the system's first word of a change to a look at the result: a new address comes with
	// its route, and a script adds several.
	settle = 50 * time.Millisecond
	// lookInterval is the least time between two looks: with hundreds of interfaces each takes milliseconds.
	lookInterval = 250 * time.Millisecond
	// pollInterval is the time between two looks where the system tells nothing, or a look fails.
	pollInterval = 2 * time.Second
)

// Watch returns a channel that has a value when the addresses of the host, the interfaces that have them or the
// addresses that it sends from are others than before. Changes that come before the value is taken have one value
// together. The channel is closed when ctx has ended and nothing of the watch is left.
func Watch(ctx context.Context) <-chan struct{} {
	changes := make(chan struct{}, 1)
	news, err := listen() // before the first look, so that nothing is missed
	if err != nil {
		news = nil
	}
	before, _ := look()
	go watch(ctx, news, before, changes)
	return changes
}

func watch(ctx context.Context, news *os.File, before string, changes chan<- struct{}) {
	defer close(changes)
	var reader sync.WaitGroup
	defer reader.Wait()
	hints := make(chan struct{}, 1)
	if news == nil {
		close(hints)
	} else {
		defer news.Close()
		reader.Go(func() { read(news, hints) })
	}
	for last := (time.Time{}); ; {
		if !wait(ctx, &hints) || !sleep(ctx, lookInterval-time.Since(last)) {
			return
		}
		last = time.Now()
		now, err := look()
		for err != nil {
			if !sleep(ctx, pollInterval) {
				return
			}
			now, err = look()
		}
		if now == before {
			continue
		}
		before = now
		select {
		case changes <- struct{}{}:
		default:
		}
	}
}

// wait blocks until it is time for a look. Without hints, whose channel is closed then, that is after pollInterval.
// It returns false when ctx has ended.
func wait(ctx context.Context, hints *chan struct{}) bool {
	var poll <-chan time.Time
	if *hints == nil {
		poll = time.After(pollInterval)
	}
	select {
	case _, ok := <-*hints:
		if !ok {
			*hints = nil
			return wait(ctx, hints)
		}
		return sleep(ctx, settle)
	case <-poll:
		return true
	case <-ctx.Done():
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// read gives hints for as long as the system tells of changes. What it tells does not matter, nor that some of it was
// lost for want of room.
func read(news *os.File, hints chan<- struct{}) {
	defer close(hints)
	b := make([]byte, 64<<10)
	for {
		if _, err := news.Read(b); err != nil && !errors.Is(err, lost) {
			return
		}
		select {
		case hints <- struct{}{}:
		default:
		}
	}
}
