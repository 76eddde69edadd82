package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// A farProcess is a farJob in a copy of this program.
type farProcess struct {
	child *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	count *counter
}

func startFar(ctx context.Context, j farJob) (*farProcess, error) {
	child, err := job{Far: &j}.command(ctx)
	if err != nil {
		return nil, err
	}
	f := &farProcess{child: child, count: newCounter()}
	if f.stdin, err = child.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	f.out = bufio.NewReader(stdout)
	return f, child.Start()
}

// line reads what the process says first.
func (f *farProcess) line() (string, error) {
	line, err := f.out.ReadBytes('\n')
	if err != nil {
		return "", fmt.Errorf("the far process says nothing: %w", err)
	}
	return string(bytes.TrimSpace(line)), nil
}

// follow reads the counts that the process writes, until it ends.
func (f *farProcess) follow() {
	for last := int64(0); ; {
		line, err := f.line()
		if err != nil {
			return
		}
		n, err := strconv.ParseInt(line, 10, 64)
		if err != nil {
			return // the round fails
		}
		f.count.add(n - last)
		last = n
	}
}

func (f *farProcess) close() {
	if f == nil {
		return
	}
	_ = f.stdin.Close()
	_ = f.child.Wait()
}

// A farLink is a near end here and a far one in a process of its own: a pipe and an echoer.
type farLink struct {
	sendOne func(ctx context.Context) error
	trip    func(ctx context.Context) error
	flushed func() error
	far     *farProcess
	agent   *mesh.Mesh    // the near one, if it is the mesh's
	lost    chan struct{} // it has lost a peer
	ends    []func()      // what closes it, in order
}

func (l *farLink) send(ctx context.Context) error { return l.sendOne(ctx) }
func (l *farLink) echo(ctx context.Context) error { return l.trip(ctx) }
func (l *farLink) arrived() *counter              { return l.far.count }

func (l *farLink) flush() error {
	if l.flushed == nil {
		return nil
	}
	return l.flushed()
}

func (l *farLink) closeFirst(end func()) { l.ends = append([]func(){end}, l.ends...) }

func (l *farLink) close() {
	for _, end := range l.ends {
		end()
	}
}

// A farOpener opens a farLink for messages of size bytes.
type farOpener func(ctx context.Context, size int) (*farLink, error)

func (open farOpener) pipe(size int) func(context.Context) (pipe, error) {
	return func(ctx context.Context) (pipe, error) { return open.link(ctx, size) }
}

func (open farOpener) echoer(ctx context.Context) (echoer, error) { return open.link(ctx, smallSize) }

// link closes what it has opened if it fails.
func (open farOpener) link(ctx context.Context, size int) (*farLink, error) {
	l, err := open(ctx, size)
	if err != nil {
		if l != nil {
			l.close()
		}
		return nil, err
	}
	go l.far.follow()
	return l, nil
}

// farMesh opens two agents in the mode, each in a process of its own.
func farMesh(mode mesh.Mode, network mesh.Network) farOpener {
	return func(ctx context.Context, size int) (*farLink, error) {
		l := &farLink{}
		if err := l.joinMesh(ctx, mode, network); err != nil {
			return l, err
		}
		bulk, err := fill(size, wire.MessageFields{Type: "bench"})
		if err != nil {
			return l, err
		}
		small, err := fill(smallSize, wire.MessageFields{Type: echoType, RequestID: echoID, Timeout: 30 * time.Second})
		if err != nil {
			return l, err
		}
		message, request := mesh.Message{Type: "bench", Payload: bulk}, mesh.Message{Type: echoType, Payload: small}
		l.sendOne = func(ctx context.Context) error { return l.agent.Send(ctx, farID, message) }
		l.trip = func(ctx context.Context) error {
			_, err := l.agent.Request(ctx, farID, request)
			return err
		}
		return l, nil
	}
}

// joinMesh returns when the near agent has the link to the far one that is wanted.
func (l *farLink) joinMesh(ctx context.Context, mode mesh.Mode, network mesh.Network) error {
	linking, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the mesh did not connect"))
	defer cancel()
	rooms, err := openRooms(1)
	if err != nil {
		return err
	}
	l.closeFirst(rooms.close)
	network.UDPPort = mesh.AnyUDPPort
	if l.far, err = startFar(ctx, farJob{Kind: "mesh", At: rooms.url(0), Mode: mode, Network: network}); err != nil {
		return err
	}
	l.closeFirst(l.far.close)
	l.lost = make(chan struct{}, 1)
	l.agent, err = mesh.New(linking, mesh.Config{
		Mode: mode, SignalingURL: rooms.url(0), APIKey: nearID, Network: network, WaitSignaling: true,
		OnPeer: func(e mesh.PeerEvent) {
			if !e.Connected {
				l.lost <- struct{}{}
			}
		},
	})
	if err != nil {
		return err
	}
	l.closeFirst(func() { _ = l.agent.Close() })
	if _, err := l.far.line(); err != nil {
		return err
	}
	if err := l.agent.WaitPeer(linking, farID); err != nil {
		return err
	}
	if network.NoLocal {
		return nil
	}
	return waitLocal(linking, l.agent, farID)
}

// waitLocal blocks until the link to the peer has moved to the local path.
func waitLocal(ctx context.Context, m *mesh.Mesh, peer string) error {
	for {
		stats, err := m.Stats(ctx)
		if err != nil {
			return err
		}
		for _, p := range stats.Peers {
			if p.ID == peer && p.Path == mesh.PathLocal {
				return nil
			}
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// farPion opens bare pion in two processes.
func farPion(echo bool) farOpener {
	return func(ctx context.Context, size int) (*farLink, error) {
		l := &farLink{}
		dc, err := l.connectPion(ctx, echo)
		if err != nil {
			return l, err
		}
		p := &pionPipe{dc: dc, msg: make([]byte, size), low: make(chan struct{}, 1)}
		p.watchBuffer()
		e := &pionEcho{pair: &pionPair{pionLink: &pionLink{near: dc}}, msg: p.msg, buf: make([]byte, pionMaxMessage)}
		l.sendOne, l.trip = p.send, e.echo
		return l, nil
	}
}

func (l *farLink) connectPion(ctx context.Context, echo bool) (*datachannel.DataChannel, error) {
	e, err := newPionEnd(pionKind{shared: true})
	if err != nil {
		return nil, err
	}
	pc, err := e.connection()
	if err != nil {
		return nil, err
	}
	link := &pionLink{nearPC: pc}
	l.closeFirst(func() { link.close(); e.close() })
	if l.far, err = startFar(ctx, farJob{Kind: "pion", Echo: echo}); err != nil {
		return nil, err
	}
	l.closeFirst(l.far.close)
	opened := make(chan error, 1)
	dc, err := pc.CreateDataChannel("mesh", nil)
	if err != nil {
		return nil, err
	}
	onOpen(dc, &link.near, opened)
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		return nil, err
	}
	if err := describe(pc, offer, l.far.stdin); err != nil {
		return nil, err
	}
	var answer webrtc.SessionDescription
	if err := readJSON(l.far.out, &answer); err != nil {
		return nil, err
	}
	if err := pc.SetRemoteDescription(answer); err != nil {
		return nil, err
	}
	err = awaitOpen(opened)
	return link.near, err
}

// farUnix sends lines over a Unix socket, many in one write where they are small. With echo they come back.
func farUnix(echo bool) farOpener {
	return func(ctx context.Context, size int) (*farLink, error) { return openFarUnix(ctx, size, echo) }
}

func openFarUnix(ctx context.Context, size int, echo bool) (*farLink, error) {
	l := &farLink{}
	var err error
	if l.far, err = startFar(ctx, farJob{Kind: "unix", Echo: echo}); err != nil {
		return l, err
	}
	l.closeFirst(l.far.close)
	at, err := l.far.line()
	if err != nil {
		return l, err
	}
	conn, err := net.Dial("unix", at)
	if err != nil {
		return l, err
	}
	l.closeFirst(func() { _ = conn.Close() })
	line, err := fullMessage(size-1, wire.MessageFields{Type: "bench"})
	if err != nil {
		return l, err
	}
	line = append(line, '\n')
	p := &linkPipe{connPair: connPair{near: conn}, batch: make([]byte, 0, linkBatch), add: func(dst []byte) []byte { return append(dst, line...) }}
	l.sendOne, l.flushed = p.send, p.flush
	back := make([]byte, len(line))
	l.trip = func(context.Context) error {
		if _, err := conn.Write(line); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, back)
		return err
	}
	return l, nil
}

// farNATS has server, publisher and subscriber in processes of their own.
func farNATS(ctx context.Context, size int) (*farLink, error) {
	l := &farLink{}
	server, err := startFar(ctx, farJob{Kind: "nats server"})
	if err != nil {
		return l, err
	}
	l.closeFirst(server.close)
	at, err := server.line()
	if err != nil {
		return l, err
	}
	if l.far, err = startFar(ctx, farJob{Kind: "nats", At: at}); err != nil {
		return l, err
	}
	l.closeFirst(l.far.close)
	if _, err := l.far.line(); err != nil {
		return l, err
	}
	conn, err := nats.Connect(at)
	if err != nil {
		return l, fmt.Errorf("nats: %w", err)
	}
	l.closeFirst(conn.Close)
	msg := make([]byte, size)
	l.sendOne = func(context.Context) error { return conn.Publish(natsSubject, msg) }
	l.flushed = func() error { return conn.FlushTimeout(roundTimeout) }
	l.trip = func(context.Context) error {
		_, err := conn.Request(natsSubject, msg, 10*time.Second)
		return err
	}
	return l, nil
}
