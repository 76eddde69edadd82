// Package wire is the codec of the mesh's two JSON-lines protocols: the link between an agent and its
// sidecar, and the stream between two sidecars.
//
// The parsers read a line once, without recursion and, for the frequent lines, without allocation.
// They check all of it (RFC 8259 grammar, UTF-8, length, depth) but decode only the header that a
// sidecar acts on; messages stay bytes, so that whatever one agent wrote is what the other one reads.
//
// Nothing here does I/O except [Reader], and nothing keeps state between calls: the functions may be
// called from any goroutine, a [Reader] from one at a time.
package wire

const (
	// DefaultMaxMessage is the length in bytes of the longest message, unless configured.
	DefaultMaxMessage = 16 << 20
	// DefaultMaxDepth is how deep a message may nest, unless configured. The message's own object is
	// level 1.
	DefaultMaxDepth = 512
	// EnvelopeSize is how many bytes a link line may be longer than the message in it. It covers the
	// two envelopes' different lengths, so that what was accepted as `send` fits as `message`.
	EnvelopeSize = 64 << 10
	// EnvelopeDepth is how many levels a link line may be deeper than a message.
	EnvelopeDepth = 4
	// BaseMaxLine is the longest line, newline included, that may be written to an agent that never
	// said hello: the default limit of Python's asyncio streams, which stop for good at a longer one.
	BaseMaxLine = 65536
	// BaseMaxMessage is the longest data channel message of base framing.
	BaseMaxMessage = 65535
	// BaseMaxDepth is how deep such a message may nest: the original's parser gives up at 128 levels.
	BaseMaxDepth = 127
	// SliceSize is the longest data channel message of stream framing.
	SliceSize = 16 << 10
	// ProtocolVersion is the version named in hello and ready.
	ProtocolVersion = 1
)

// Limits bounds what the parsers accept. The zero value means the defaults.
type Limits struct {
	MaxMessage int // bytes of one message's JSON text; 0 means DefaultMaxMessage
	MaxDepth   int // nesting of one message, its object being level 1; 0 means DefaultMaxDepth
}

// MaxLine returns the length in bytes, without newline, of the longest line that can hold a message
// within the limits.
func (l Limits) MaxLine() int {
	return l.withDefaults().MaxMessage + EnvelopeSize
}

func (l Limits) withDefaults() Limits {
	if l.MaxMessage <= 0 {
		l.MaxMessage = DefaultMaxMessage
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = DefaultMaxDepth
	}
	return l
}
