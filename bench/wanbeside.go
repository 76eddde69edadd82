package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

const (
	// Both transfers run for besideWarm before what arrives is counted, for besideSpan.
	besideWarm, besideSpan = 3 * time.Second, 8 * time.Second
)

// A wanBeside measures which share of a line bare pion keeps beside another transfer that takes all it can get.
type wanBeside struct {
	name       string
	conditions netpath.Conditions
	other      func(context.Context, *netpath.Path) (pipe, error)
	seeds      uint64
}

// newWANBeside is a side that gives "<name>_share", pion's, and "<name>_other_share".
func newWANBeside(name string, c netpath.Conditions, other func(context.Context, *netpath.Path) (pipe, error)) side {
	return side{[]string{name + "_share", name + "_other_share"}, &wanBeside{name: name, conditions: c, other: other}}
}

func (w *wanBeside) setup(context.Context) error { return nil }
func (w *wanBeside) close()                      {}

func (w *wanBeside) round(ctx context.Context) (_ reading, err error) {
	w.seeds++
	path, err := netpath.New(w.conditions, w.seeds)
	if err != nil {
		return nil, err
	}
	defer func() { _ = path.Close() }()
	beside, err := path.Beside()
	if err != nil {
		return nil, err
	}
	defer func() { _ = beside.Close() }()
	const pionSize, otherSize = 16 << 10, 64 << 10
	pion, err := openPionOver(pionSize)(ctx, path)
	if err != nil {
		return nil, err
	}
	defer pion.close()
	other, err := w.other(ctx, beside)
	if err != nil {
		return nil, err
	}
	defer other.close()
	sending, stop := context.WithCancel(ctx)
	var senders sync.WaitGroup
	var errs [2]error
	for i, p := range []pipe{pion, other} {
		senders.Go(func() {
			for errs[i] == nil {
				errs[i] = p.send(sending)
			}
		})
	}
	defer func() {
		stop()
		senders.Wait()
		for _, e := range errs {
			if !errors.Is(e, context.Canceled) {
				err = errors.Join(err, e)
			}
		}
	}()
	if err := pause(ctx, besideWarm); err != nil {
		return nil, err
	}
	before := [2]int64{pion.arrived().n.Load(), other.arrived().n.Load()}
	if err := pause(ctx, besideSpan); err != nil {
		return nil, err
	}
	share := func(p pipe, before int64, size float64) float64 {
		return float64(p.arrived().n.Load()-before) * size * 8 / besideSpan.Seconds() / w.conditions.Rate
	}
	return reading{
		w.name + "_share": share(pion, before[0], pionSize), w.name + "_other_share": share(other, before[1], otherSize),
	}, nil
}

// pause blocks for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
