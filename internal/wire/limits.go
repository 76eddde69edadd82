// Package wire is the codec of the mesh's two JSON-lines protocols: the link between an agent and its
// sidecar, and the stream between two sidecars.
//
// The parsers read a line once, without recursion and, for the frequent lines, without allocation.
// They check all of it (RFC 8259 grammar, UTF-8, length, depth) but decode only the header that a
// sidecar acts on. Messages stay bytes, so that the other agent reads exactly what one agent wrote.
//
// Only [Reader] does I/O. The functions may be called concurrently, the methods of one [Reader] or one
// [Pace] must not.
package wire

const (
	// DefaultMaxMessage is the default of Limits.MaxMessage.
	DefaultMaxMessage = 16 << 20
	// DefaultMaxDepth is the default of Limits.MaxDepth.
	DefaultMaxDepth = 512
	// DefaultMaxStreams is the default of Limits.MaxStreams.
	DefaultMaxStreams = 128
	// EnvelopeSize is the number of bytes by which a link line may be longer than the message in it. It
	// allows for envelopes of different lengths: a message that was accepted in a `send` fits in a `message`.
	EnvelopeSize = 64 << 10
	// EnvelopeDepth is the number of levels by which a link line may be deeper than the message in it.
	EnvelopeDepth = 4
	// BaseMaxLine is the length, newline included, of the longest line that may be written to an agent
	// that never sent hello. It is the default limit of Python's asyncio streams, which end for good at a
	// longer line.
	BaseMaxLine = 65536
	// BaseMaxMessage is the length of the longest data channel message of base framing.
	BaseMaxMessage = 65535
	// BaseMaxDepth is the depth to which such a message may nest: chatixia-mesh's parser rejects 128 levels.
	BaseMaxDepth = 127
	// SliceSize is the length of the longest data channel message of stream framing.
	SliceSize = 16 << 10
	// MaxCancelID is the length in bytes of the longest request_id in a cancel, which only saves work.
	MaxCancelID = 1 << 10
	// MaxCard is the length in bytes of the longest card.
	MaxCard = 16 << 10
	// MaxCardDepth is the depth to which a card may nest, its own object being level 1.
	MaxCardDepth = 16
	// ProtocolVersion is the version in hello and ready.
	ProtocolVersion = 1
)

// Limits bounds what the parsers accept. A zero field means its default.
type Limits struct {
	MaxMessage int // length in bytes of a message's JSON text
	MaxDepth   int // nesting of a message, whose own object is level 1
	MaxStreams int // streams that a peer may have open

	checked bool
}

// Checked returns the limits for text that this process has checked before, or made with the functions of this package: the parsers
// then pass over the insides of long strings.
func (l Limits) Checked() Limits {
	l.checked = true
	return l
}

// MaxLine returns the length in bytes, without newline, of the longest link line within the limits.
func (l Limits) MaxLine() int {
	return l.withDefaults().MaxMessage + EnvelopeSize
}

// depth returns how deep the lines of either protocol may nest.
func (l Limits) depth() int { return max(l.withDefaults().MaxDepth, MaxCardDepth) + EnvelopeDepth }

func (l Limits) withDefaults() Limits {
	if l.MaxMessage <= 0 {
		l.MaxMessage = DefaultMaxMessage
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = DefaultMaxDepth
	}
	if l.MaxStreams <= 0 {
		l.MaxStreams = DefaultMaxStreams
	}
	return l
}
