package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// markType is the request to which the stand-in responds with its CPU time in
// microseconds, when it has read everything before it.
const markType = "mark_request"

// A discardJob is a stand-in for a sidecar: it listens on a Unix socket, tells
// one agent of live peers, and parses and discards what is for them.
type discardJob struct {
	Socket string
	Peers  int
}

// peerName is the id of a peer that does not exist.
func peerName(i int) string { return fmt.Sprintf("peer-%03d", i) }

// work ends with the agent, or with the parent process, whose end is that of stdin.
func (j *discardJob) work(stdin io.Reader, stdout io.Writer) error {
	listener, err := net.Listen("unix", j.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		os.Exit(0) // the parent is gone
	}()
	fmt.Fprintln(stdout, "listening")
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	r := wire.NewReader(conn, wire.Limits{}.MaxLine())
	var l wire.Line
	for {
		line, err := r.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = wire.ParseCommand(line, wire.Limits{}, &l)
		}
		if err != nil {
			return err
		}
		if response := j.response(&l); response != nil {
			if _, err := conn.Write(response); err != nil {
				return err
			}
		}
	}
}

func (j *discardJob) response(l *wire.Line) []byte {
	switch l.Type {
	case wire.TypeHello:
		return wire.AppendReady(nil, wire.Hello{
			Protocol:   wire.ProtocolVersion,
			Features:   []string{wire.FeatureError, wire.FeatureFlow, wire.FeatureCancel, wire.FeatureDrain},
			MaxMessage: wire.DefaultMaxMessage,
		})
	case wire.TypeListPeers:
		b := wire.AppendPeerList(nil, wire.PeerList{})
		for i := range j.Peers {
			b = wire.AppendPeerConnected(b, peerName(i), "", nil)
		}
		return b
	case wire.TypeDrain:
		return wire.AppendDrained(nil, wire.Unsent{})
	case wire.TypeSend:
		if string(l.Message.Type) == markType {
			return mark(l)
		}
	}
	return nil
}

func mark(l *wire.Line) []byte {
	used, err := cpuTime()
	if err != nil {
		return nil // the agent's request times out
	}
	msg := wire.AppendMessageFields(nil, wire.MessageFields{
		Type: "mark_response", RequestID: string(l.Message.RequestID),
		Payload: strconv.AppendInt(nil, used.Microseconds(), 10),
	})
	return wire.AppendMessage(nil, string(l.Peer), msg)
}
