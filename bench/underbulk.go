package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const underBulkSize = 1 << 20

// An underBulk measures the round trips of requests while the same two agents have a transfer that takes all it can get, one
// request after the other, and on loopback what they cost the transfer.
type underBulk struct {
	name       string
	conditions netpath.Conditions // the zero value: loopback, without a path
	warm, span time.Duration

	stream  bool // what carries the transfer; else messages
	local   bool // over the local path
	request mesh.Message
	room    *wanRoom
	path    *netpath.Path
	pair    *meshPair
	bulk    pipe
	size    float64 // of a message of bulk
}

// newUnderBulk is a side that gives "<name>_ms", the median, "<name>_p99_ms", and the rates of the transfer beside the
// requests and alone.
func newUnderBulk(name string, c netpath.Conditions, warm, span time.Duration) side {
	return underBulk{name: name, conditions: c, warm: warm, span: span}.side()
}

// newUnderStream is newUnderBulk with a stream for the transfer.
func newUnderStream(name string, c netpath.Conditions, warm, span time.Duration) side {
	return underBulk{name: name, conditions: c, warm: warm, span: span, stream: true}.side()
}

// newUnderBulkLocal is newUnderBulk over the local path.
func newUnderBulkLocal(name string, warm, span time.Duration) side {
	return underBulk{name: name, local: true, warm: warm, span: span}.side()
}

func (u underBulk) side() side {
	return side{[]string{u.name + "_ms", u.name + "_p99_ms", u.name + "_bulk_mbps", u.name + "_bulk_alone_mbps"}, &u}
}

func (u *underBulk) setup(ctx context.Context) (err error) {
	const typ, id = "small_request", "123456789012"
	payload, err := fill(smallSize, wire.MessageFields{Type: typ, RequestID: id})
	if err != nil {
		return err
	}
	u.request = mesh.Message{Type: typ, Payload: payload}
	messages, err := newMeshPipe(underBulkSize)
	if err != nil {
		return err
	}
	handlers := messages.handlers()
	handlers[typ] = func(_ context.Context, msg *mesh.Message) (any, error) { return msg.Payload, nil }
	if err := u.open(ctx, handlers); err != nil {
		return err
	}
	if !u.stream {
		messages.pair = u.pair
		u.bulk, u.size = messages, underBulkSize
		return nil
	}
	p := newStreamPipe()
	if p.pair, err = streamsOf(u.pair, p.receive, func() {}); err != nil {
		return err
	}
	u.bulk, u.size = p, streamWrite
	return p.dial(ctx)
}

// open connects the agents.
func (u *underBulk) open(ctx context.Context, handlers map[string]mesh.Handler) (err error) {
	if u.local {
		if u.pair, err = openMeshPair(ctx, mesh.InProcess, mesh.Network{}, handlers); err != nil {
			return err
		}
		return waitLocal(ctx, u.pair.near, farID)
	}
	if u.conditions == (netpath.Conditions{}) {
		u.pair, err = openMeshPair(ctx, mesh.InProcess, webRTC, handlers)
		return err
	}
	if u.path, err = netpath.New(u.conditions, 1); err != nil {
		return err
	}
	if u.room, err = openWANRoom(u.path); err != nil {
		return err
	}
	u.pair, err = openMeshPairAt(ctx, mesh.Config{SignalingURL: u.room.URL(), Network: overPathOnly}, handlers)
	return err
}

func (u *underBulk) round(ctx context.Context) (reading, error) {
	alone, _, err := u.transfer(ctx, func(ctx context.Context) ([]float64, error) {
		return nil, pause(ctx, u.span)
	})
	if err != nil {
		return nil, err
	}
	beside, trips, err := u.transfer(ctx, u.requests)
	if err != nil {
		return nil, err
	}
	slices.Sort(trips)
	return reading{
		u.name + "_ms": percentile(trips, 50), u.name + "_p99_ms": percentile(trips, 99),
		u.name + "_bulk_mbps": beside, u.name + "_bulk_alone_mbps": alone,
	}, nil
}

// transfer has bulk sent as fast as it is taken while do runs, and returns how many MB per second arrived meanwhile.
func (u *underBulk) transfer(ctx context.Context, do func(context.Context) ([]float64, error)) (mbps float64, trips []float64, err error) {
	sending, stop := context.WithCancel(ctx)
	var sender sync.WaitGroup
	var sendErr error
	sender.Go(func() {
		for sendErr == nil {
			sendErr = u.bulk.send(sending)
		}
	})
	defer func() {
		stop()
		sender.Wait()
		if !errors.Is(sendErr, context.Canceled) {
			err = errors.Join(err, sendErr)
		}
	}()
	if err := pause(ctx, u.warm); err != nil {
		return 0, nil, err
	}
	start, before := time.Now(), u.bulk.arrived().n.Load()
	trips, err = do(ctx)
	arrived := float64(u.bulk.arrived().n.Load()-before) * u.size
	return arrived / 1e6 / time.Since(start).Seconds(), trips, err
}

// requests returns the round trips in milliseconds.
func (u *underBulk) requests(ctx context.Context) (trips []float64, err error) {
	for start := time.Now(); time.Since(start) < u.span; {
		before := time.Now()
		if _, err := u.pair.near.Request(ctx, farID, u.request); err != nil {
			return nil, err
		}
		trips = append(trips, float64(time.Since(before).Microseconds())/1e3)
	}
	return trips, nil
}

func (u *underBulk) close() {
	if u.pair != nil {
		u.pair.close()
	}
	if u.room != nil {
		u.room.close()
	}
	if u.path != nil {
		_ = u.path.Close()
	}
}
