package sidecar

import (
	"fmt"
	"slices"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// terms are what an agent has said of itself in hello. Nil terms are those of an agent that has not said
// hello: base events only, and short lines.
type terms struct {
	features   []string
	maxMessage int // bytes; 0 if the sidecar's own limit will do
}

// knows reports whether the agent takes part in an extension.
func (t *terms) knows(feature string) bool {
	return t != nil && slices.Contains(t.features, feature)
}

// check returns why the agent does not read a message whose line has so many bytes; nil if it does.
func (t *terms) check(message []byte, line int) error {
	switch {
	case t != nil && t.maxMessage > 0 && len(message) > t.maxMessage:
		return fmt.Errorf("it takes %d bytes", t.maxMessage)
	case t != nil:
		return nil
	case line > wire.BaseMaxLine:
		return fmt.Errorf("an agent that has not said hello gets no line over %d bytes", wire.BaseMaxLine)
	}
	return wire.CheckBase(message)
}

// peerList appends the line that lists the peers, or as many of them as an agent that has not said hello
// reads.
func (t *terms) peerList(b []byte, list wire.PeerList) (line []byte, listed int) {
	if !t.knows(wire.FeatureIdentity) {
		list.Keys = nil
	}
	for n := len(b); ; list.Peers = list.Peers[:len(list.Peers)*3/4] {
		b = wire.AppendPeerList(b[:n], list)
		if t != nil || len(b)-n <= wire.BaseMaxLine {
			return b, len(list.Peers)
		}
	}
}
