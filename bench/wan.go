package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// A wanCase is a path over which bulk is sent.
type wanCase struct {
	name string
	netpath.Conditions
	megabytes float64 // how much is sent, slow start included
}

const (
	fastLine, slowLine = 100e6, 2e6 // bits per second
	slowQueue          = 32_000     // bytes
	// wanLimit ends a round of a path on which little passes; what has passed by then counts.
	wanLimit = 20 * time.Second
)

// A wanLoss is the part of the packets that is lost at random.
type wanLoss struct {
	name, title string
	part        float64
}

// wanRTTs are the round trip times of the fast line in milliseconds, and wanLosses what is lost on it.
var (
	wanRTTs   = []int{20, 50, 100}
	wanLosses = []wanLoss{{"", "no loss", 0}, {"_loss01", "0.1 % lost", 0.001}, {"_loss1", "1 % lost", 0.01}}
)

func wanName(rtt int, loss wanLoss) string { return fmt.Sprintf("wan_%dms%s", rtt, loss.name) }

// wanCases are the paths of the bench: 100 Mbit/s, and a slow line.
func wanCases(o options) []wanCase {
	var cases []wanCase
	for _, rtt := range wanRTTs {
		for _, loss := range wanLosses {
			cases = append(cases, wanCase{
				name:       wanName(rtt, loss),
				Conditions: netpath.Conditions{Delay: time.Duration(rtt) * time.Millisecond / 2, Rate: fastLine, Queue: 512 << 10, Loss: loss.part},
				megabytes:  pick(o, 40.0, 10.0),
			})
		}
	}
	return append(cases, wanCase{
		name:       "wan_2mbit",
		Conditions: netpath.Conditions{Delay: 25 * time.Millisecond, Rate: slowLine, Queue: slowQueue},
		megabytes:  pick(o, 2.0, 1.0),
	})
}

// wanPlan returns the groups of -wan.
func wanPlan(o options) []group {
	var groups []group
	for _, c := range wanCases(o) {
		groups = append(groups, group{c.name, pick(o, 5, 1), []side{
			newWANBulk(c, "mesh", 64<<10, openMeshOver(64<<10)),
			newWANBulk(c, "pion", 16<<10, openPionOver(16<<10)),
			newWANBulk(c, "quic", 64<<10, openQUICOver(64<<10)),
		}})
	}
	shared := netpath.Conditions{Delay: 10 * time.Millisecond, Rate: fastLine}
	groups = append(groups, group{"wan_beside", pick(o, 5, 1), []side{
		newWANBeside("wan_pion_beside_mesh", shared, openMeshOver(64<<10)),
		newWANBeside("wan_pion_beside_pion", shared, openPionOver(64<<10)),
	}})
	// The transfer takes the line for a few of its messages before requests are measured beside it.
	for _, r := range []struct {
		name       string
		rate       float64
		queue      int
		warm, span time.Duration
	}{
		{"rtt_under_bulk_10mbit", 10e6, 0, 5 * time.Second, 5 * time.Second},
		{"rtt_under_bulk_2mbit", slowLine, slowQueue, 10 * time.Second, 10 * time.Second},
	} {
		c := netpath.Conditions{Delay: 25 * time.Millisecond, Rate: r.rate, Queue: r.queue}
		groups = append(groups, group{r.name, pick(o, 3, 1), []side{newUnderBulk(r.name, c, r.warm, r.span)}})
	}
	c := netpath.Conditions{Delay: 25 * time.Millisecond, Rate: 10e6}
	groups = append(groups,
		group{"rtt_under_stream_10mbit", pick(o, 3, 1), []side{newUnderStream("rtt_under_stream_10mbit", c, 5*time.Second, 5*time.Second)}},
		group{"stream_open_50ms", pick(o, 9, 3), []side{newWANStreamOpen("stream_open_50ms")}},
	)
	return append(groups, group{"wan_join_50ms", pick(o, 15, 3), []side{newWANJoin("wan_join_50ms_ms")}})
}

// wanKeys are the targets of -wan, as shares of the line.
func wanKeys() []key {
	share := func(path, who string) string { return path + "_" + who + "_share" }
	var all []key
	for _, k := range []struct {
		path   string
		target float64
	}{
		{"wan_20ms", 0.75}, {"wan_50ms", 0.65}, {"wan_100ms", 0.5}, {"wan_20ms_loss01", 0.55}, {"wan_20ms_loss1", 0.14},
	} {
		all = append(all, key{name: k.path + "_share", ours: share(k.path, "mesh"), bound: atLeast, target: k.target})
	}
	return append(all,
		key{name: "wan_20ms_loss1_vs_quic", ours: share("wan_20ms_loss1", "mesh"), base: []string{share("wan_20ms_loss1", "quic")}, bound: atLeast, target: 1, unit: "of the line"},
		key{name: "wan_2mbit_vs_pion", ours: share("wan_2mbit", "mesh"), base: []string{share("wan_2mbit", "pion")}, bound: atLeast, target: 0.85, unit: "of the line"},
		key{name: "wan_2mbit_lost_vs_pion", ours: "wan_2mbit_mesh_lost", base: []string{"wan_2mbit_pion_lost"}, bound: atMost, target: 2, unit: "packets"},
		key{name: "wan_pion_beside_mesh", ours: "wan_pion_beside_mesh_share", base: []string{"wan_pion_beside_pion_share"}, bound: atLeast, target: 0.6, unit: "of the line"},
		key{name: "rtt_under_bulk_10mbit_ms", ours: "rtt_under_bulk_10mbit_ms", bound: atMost, target: 150, unit: "ms"},
		key{name: "rtt_under_bulk_2mbit_ms", ours: "rtt_under_bulk_2mbit_ms", bound: atMost, target: 450, unit: "ms"},
		key{name: "rtt_under_stream_10mbit_ms", ours: "rtt_under_stream_10mbit_ms", bound: atMost, target: 150, unit: "ms"},
		key{name: "stream_open_50ms_ms", ours: "stream_open_50ms_ms", bound: atMost, target: 110, unit: "ms"},
		key{name: "wan_join_50ms_ms", ours: "wan_join_50ms_ms", bound: atMost, target: 410, unit: "ms"},
	)
}

// A wanBulk measures which share of a line one transfer gets, from its first byte until its last has arrived. Each round
// has a connection of its own, since slow start counts.
type wanBulk struct {
	wanCase
	who   string
	size  int // of a message
	open  func(context.Context, *netpath.Path) (pipe, error)
	seeds uint64
}

func newWANBulk(c wanCase, who string, size int, open func(context.Context, *netpath.Path) (pipe, error)) side {
	return side{[]string{c.name + "_" + who + "_share", c.name + "_" + who + "_lost"}, &wanBulk{wanCase: c, who: who, size: size, open: open}}
}

func (w *wanBulk) setup(context.Context) error { return nil }
func (w *wanBulk) close()                      {}

func (w *wanBulk) round(ctx context.Context) (reading, error) {
	w.seeds++
	path, err := netpath.New(w.Conditions, w.seeds)
	if err != nil {
		return nil, err
	}
	defer func() { _ = path.Close() }()
	p, err := w.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	bytes, elapsed, err := w.transfer(ctx, p)
	if err != nil {
		return nil, err
	}
	_, _, dropped := path.Counts(0)
	return reading{
		w.name + "_" + w.who + "_share": bytes * 8 / elapsed.Seconds() / w.Rate,
		w.name + "_" + w.who + "_lost":  float64(dropped),
	}, nil
}

// transfer sends all megabytes, or as much as passes within wanLimit, and returns how much has arrived.
func (w *wanBulk) transfer(ctx context.Context, p pipe) (bytes float64, elapsed time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wanLimit, errWANLimit)
	defer cancel()
	messages := int64(w.megabytes * 1e6 / float64(w.size))
	arrived := p.arrived()
	before := arrived.n.Load()
	arrived.expect(messages)
	start := time.Now()
	for i := int64(0); i < messages && err == nil; i++ {
		err = p.send(ctx)
	}
	if err == nil {
		err = p.flush()
	}
	if err == nil {
		err = arrived.wait(ctx)
	}
	elapsed = time.Since(start)
	// The deadline of a write that follows from that of ctx may pass a moment before it.
	if errors.Is(err, errWANLimit) || errors.Is(err, os.ErrDeadlineExceeded) || context.Cause(ctx) == errWANLimit {
		err = nil
	}
	return float64(arrived.n.Load()-before) * float64(w.size), elapsed, err
}

var errWANLimit = errors.New("the time of a round is over")

func openMeshOver(size int) func(context.Context, *netpath.Path) (pipe, error) {
	return func(ctx context.Context, path *netpath.Path) (pipe, error) {
		room, err := openWANRoom(path)
		if err != nil {
			return nil, err
		}
		p, err := newMeshPipe(size)
		if err == nil {
			p.pair, err = openMeshPairAt(ctx, mesh.Config{SignalingURL: room.URL(), Network: overPathOnly}, p.handlers())
		}
		if err != nil {
			room.close()
			return nil, err
		}
		return roomPipe{p, room}, nil
	}
}

// A roomPipe is a pipe that ends with its room.
type roomPipe struct {
	pipe
	room *wanRoom
}

func (p roomPipe) close() {
	p.pipe.close()
	p.room.close()
}

func openPionOver(size int) func(context.Context, *netpath.Path) (pipe, error) {
	return func(ctx context.Context, path *netpath.Path) (pipe, error) {
		pair, err := openPionPairOver(ctx, pionKind{shared: true}, path)
		if err != nil {
			return nil, err
		}
		return newPionPipe(pair, size), nil
	}
}
