package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// broadcastPeers is how many peers a broadcast goes to.
const broadcastPeers = 16

// A fanout measures the CPU time that an agent spends to give one message to all
// its peers. Its sidecar is a stand-in that discards, in another process.
type fanout struct {
	name string
	span time.Duration
	give func(ctx context.Context, m *mesh.Mesh, msg mesh.Message) error

	dir   string
	child *exec.Cmd
	stdin io.Closer
	agent *mesh.Mesh
	msg   mesh.Message
}

// newFanout is a side that gives "<name>_us", the agent's CPU time, and
// "<name>_both_us", with that of the stand-in.
func newFanout(o options, name string, give func(context.Context, *mesh.Mesh, mesh.Message) error) side {
	return side{[]string{name + "_us", name + "_both_us"}, &fanout{name: name, span: o.span(), give: give}}
}

func broadcastOnce(ctx context.Context, m *mesh.Mesh, msg mesh.Message) error {
	return m.Broadcast(ctx, msg)
}

func sendToEach(ctx context.Context, m *mesh.Mesh, msg mesh.Message) error {
	for i := range broadcastPeers {
		if err := m.Send(ctx, peerName(i), msg); err != nil {
			return err
		}
	}
	return nil
}

func (f *fanout) setup(ctx context.Context) (err error) {
	payload, err := fill(smallSize, wire.MessageFields{Type: "bench"})
	if err != nil {
		return err
	}
	f.msg = mesh.Message{Type: "bench", Payload: payload}
	if f.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	socket := filepath.Join(f.dir, "s")
	if err := f.start(ctx, socket); err != nil {
		return fmt.Errorf("stand-in for a sidecar: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if f.agent, err = mesh.New(ctx, mesh.Config{Mode: mesh.Attach, Socket: socket}); err != nil {
		return err
	}
	for i := range broadcastPeers {
		if err := f.agent.WaitPeer(ctx, peerName(i)); err != nil {
			return err
		}
	}
	_, err = f.round(ctx)
	return err
}

// start returns when the stand-in listens.
func (f *fanout) start(ctx context.Context, socket string) error {
	child, err := job{Discard: &discardJob{Socket: socket, Peers: broadcastPeers}}.command(ctx)
	if err != nil {
		return err
	}
	if f.stdin, err = child.StdinPipe(); err != nil {
		return err
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	f.child = child
	_, err = bufio.NewReader(stdout).ReadString('\n')
	return err
}

func (f *fanout) round(ctx context.Context) (reading, error) {
	runtime.GC()
	far0, err := f.mark(ctx)
	if err != nil {
		return nil, err
	}
	near0, err := cpuTime()
	if err != nil {
		return nil, err
	}
	n := 0
	for start := time.Now(); time.Since(start) < f.span; n++ {
		if err := f.give(ctx, f.agent, f.msg); err != nil {
			return nil, err
		}
	}
	far1, err := f.mark(ctx) // when all of it was read
	if err != nil {
		return nil, err
	}
	near1, err := cpuTime()
	near := float64((near1 - near0).Nanoseconds()) / 1e3 / float64(n)
	far := float64(far1-far0) / float64(n)
	return reading{f.name + "_us": near, f.name + "_both_us": near + far}, err
}

// mark blocks until the stand-in has read everything, and returns its CPU time in
// microseconds.
func (f *fanout) mark(ctx context.Context) (int64, error) {
	response, err := f.agent.Request(ctx, peerName(0), mesh.Message{Type: markType})
	if err != nil {
		return 0, err
	}
	var used int64
	return used, response.Decode(&used)
}

func (f *fanout) close() {
	if f.agent != nil {
		_ = f.agent.Close()
	}
	if f.child != nil {
		_ = f.stdin.Close()
		_ = f.child.Wait() // it ends with the agent or with its stdin
	}
	if f.dir != "" {
		_ = os.RemoveAll(f.dir)
	}
}
