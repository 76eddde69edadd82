package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A farJob is the far end of a link in a process of its own. It sends echoes back where the near end asks for them. To stdout it
// writes a line with where it is to be reached, if it is, and from then on how many messages have arrived.
type farJob struct {
	Kind string // "mesh", "pion", "unix", "nats" or "nats server"
	At   string // the signaling server, or the NATS server
	Mode mesh.Mode
	// Network is that of the mesh.
	Network mesh.Network
	// Echo has pion and unix send everything back.
	Echo bool
}

// tellInterval is how often the far end tells what has arrived. A round takes hundreds of times as long.
const tellInterval = time.Millisecond

// work ends with stdin, which the parent process holds.
func (j *farJob) work(stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	in := bufio.NewReader(stdin)
	f := &farEnd{farJob: j, in: in, out: stdout}
	end, err := f.open(ctx)
	if err == nil {
		var telling sync.WaitGroup
		telling.Go(func() { f.tell(ctx) })
		_, err = io.Copy(io.Discard, in)
		cancel()
		telling.Wait()
		end()
	}
	cancel()
	return err
}

// A farEnd is a farJob at work.
type farEnd struct {
	*farJob
	in      *bufio.Reader
	out     io.Writer
	arrived atomic.Int64
}

// open opens the end, and returns what closes it.
func (f *farEnd) open(ctx context.Context) (end func(), err error) {
	switch f.Kind {
	case "mesh":
		return f.openMesh(ctx)
	case "pion":
		return f.openPion(ctx)
	case "unix":
		return f.openUnix()
	case "nats":
		return f.openNATS()
	case "nats server":
		return f.openNATSServer()
	}
	return nil, fmt.Errorf("there is no far end %q", f.Kind)
}

func (f *farEnd) tell(ctx context.Context) {
	tick := time.NewTicker(tellInterval)
	defer tick.Stop()
	for told := int64(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if n := f.arrived.Load(); n != told {
			told = n
			fmt.Fprintln(f.out, n)
		}
	}
}

func (f *farEnd) openMesh(ctx context.Context) (func(), error) {
	response, err := fill(smallSize, wire.MessageFields{Type: "bench_response", RequestID: echoID})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	m, err := mesh.New(ctx, mesh.Config{
		Mode: f.Mode, SignalingURL: f.At, APIKey: farID, Network: f.Network, WaitSignaling: true,
		Handlers: map[string]mesh.Handler{
			echoType: reply(response),
			"bench": func(context.Context, *mesh.Message) (any, error) {
				f.arrived.Add(1)
				return nil, nil
			},
		},
	})
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(f.out, farID)
	return func() { _ = m.Close() }, m.WaitPeer(ctx, nearID)
}

// openPion answers the offer on stdin. Candidates are in the descriptions.
func (f *farEnd) openPion(ctx context.Context) (func(), error) {
	e, err := newPionEnd(pionKind{shared: true})
	if err != nil {
		return nil, err
	}
	pc, err := e.connection()
	if err != nil {
		return nil, err
	}
	opened := make(chan error, 1)
	l := &pionLink{farPC: pc}
	pc.OnDataChannel(func(dc *webrtc.DataChannel) { onOpen(dc, &l.far, opened) })
	var offer webrtc.SessionDescription
	if err := readJSON(f.in, &offer); err != nil {
		return nil, err
	}
	if err := pc.SetRemoteDescription(offer); err != nil {
		return nil, err
	}
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return nil, err
	}
	if err := describe(pc, answer, f.out); err != nil {
		return nil, err
	}
	if err := awaitOpen(opened); err != nil {
		return nil, err
	}
	if f.Echo {
		go pionReturn(l.far)
	} else {
		go f.countPion(l)
	}
	return func() { l.close(); e.close() }, nil
}

// countPion ends with the link.
func (f *farEnd) countPion(l *pionLink) {
	for b := make([]byte, pionMaxMessage); ; f.arrived.Add(1) {
		if _, err := l.far.Read(b); err != nil {
			return
		}
	}
}

// openUnix reads lines, and checks each once, as who does nothing else with them has to.
func (f *farEnd) openUnix() (func(), error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", dir+"/s")
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(f.out, listener.Addr())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		r := wire.NewReader(conn, wire.Limits{}.MaxLine())
		for {
			line, err := r.ReadLine()
			if err != nil {
				return
			}
			switch {
			case wire.Check(line, wire.Limits{}) != nil: // it is missing
			case f.Echo:
				_, _ = conn.Write(append(line, '\n')) // it ends with the connection
			default:
				f.arrived.Add(1)
			}
		}
	}()
	return func() { _, _ = listener.Close(), os.RemoveAll(dir) }, nil
}

// openNATS subscribes. A message that wants a response gets itself.
func (f *farEnd) openNATS() (func(), error) {
	conn, err := nats.Connect(f.At)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	sub, err := conn.Subscribe(natsSubject, func(m *nats.Msg) {
		if m.Reply != "" {
			_ = m.Respond(m.Data) // a lost response ends the request
			return
		}
		f.arrived.Add(1)
	})
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	// Without a limit of its own NATS drops what a subscriber cannot take at once.
	if err := errors.Join(sub.SetPendingLimits(-1, -1), conn.FlushTimeout(connectTimeout)); err != nil {
		return nil, err
	}
	fmt.Fprintln(f.out, natsSubject)
	return conn.Close, nil
}

func (f *farEnd) openNATSServer() (func(), error) {
	s, err := startNATSServer()
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(f.out, s.ClientURL())
	return func() { s.Shutdown(); s.WaitForShutdown() }, nil
}

// describe sets the local description, and writes it as a line when it has all candidates.
func describe(pc *webrtc.PeerConnection, d webrtc.SessionDescription, out io.Writer) error {
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(d); err != nil {
		return err
	}
	<-gathered
	raw, err := json.Marshal(pc.LocalDescription())
	if err != nil {
		return err
	}
	_, err = out.Write(append(raw, '\n'))
	return err
}

func readJSON(in *bufio.Reader, v any) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}
