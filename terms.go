package mesh

import (
	"fmt"
	"slices"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// terms are what an agent has said of itself in hello. nil are those of an agent
// that has said nothing: base events only, and short lines.
type terms struct {
	features   []string
	maxMessage int // bytes; 0 if the sidecar's own limit will do
}

// knows tells whether the agent takes part in an extension.
func (s *sidecar) knows(feature string) bool {
	t := s.terms.Load()
	return t != nil && slices.Contains(t.features, feature)
}

// fits tells whether the agent reads a message of this length, on a line of that
// one.
func (t *terms) fits(message, line int) bool {
	if t == nil {
		return line <= wire.BaseMaxLine
	}
	return t.maxMessage <= 0 || message <= t.maxMessage
}

// limit says in words what the agent reads.
func (t *terms) limit() string {
	if t == nil {
		return fmt.Sprintf("an agent that has not said hello gets no line over %d bytes", wire.BaseMaxLine)
	}
	return fmt.Sprintf("it takes %d bytes", t.maxMessage)
}
