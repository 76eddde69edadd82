//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"io"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// channelReader reads a data channel: as a stream of bytes, or message by message.
type channelReader struct {
	dc     dataChannel
	stream bool         // stream framing, where text messages are a stream of their own
	buf    []byte       // for messages that did not fit, of usual lengths
	rest   []byte       // of a message, not yet read
	text   []byte       // of a text message, not yet read
	lines  *wire.Reader // of what Read returns; nil in base framing
	guest  bool         // a guest reads: a long line is not for it, since that may have to wait for memory
	later  bool         // wire.ErrLater was returned because there is nothing to read, or nothing for a guest
}

// Read implements io.Reader. It reads straight into b if the message fits, as the slices of a peer that
// keeps to the protocol do once a wire.Reader offers that much. After a text message it returns wire.ErrLater; that is to
// be read, by texts, before the next call.
func (r *channelReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.tooLong(r.lines) {
			return 0, wire.ErrLater
		}
		n, text, err := r.dc.ReadDataChannel(b)
		part := b[:n]
		if errors.Is(err, io.ErrShortBuffer) {
			if len(b) < wire.SliceSize {
				return 0, io.ErrShortBuffer
			}
			r.rest, text, err = r.next()
			part = r.rest
		}
		switch {
		case err != nil:
			r.later = err == wire.ErrLater //nolint:errorlint // our own channel's
			return 0, err
		case r.stream && text:
			r.text, r.rest = append(r.text[:0], part...), nil
			return 0, wire.ErrLater
		case n > 0:
			return n, nil
		}
	}
	n := copy(b, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		r.rest = nil
	}
	return n, nil
}

// tooLong reports whether the line that is being read is not for a guest, which one is that reads.
func (r *channelReader) tooLong(lines *wire.Reader) bool {
	r.later = r.guest && lines.Buffered() > guestLine
	return r.later
}

// next reads one whole message, valid until the next call. pion keeps a message that does not fit.
func (r *channelReader) next() (msg []byte, text bool, err error) {
	if r.buf == nil {
		r.buf = make([]byte, 64<<10)
	}
	b := r.buf
	n, text, err := r.dc.ReadDataChannel(b)
	if errors.Is(err, io.ErrShortBuffer) {
		b = make([]byte, maxMessageSize) // not kept: it would be a lot for thousands of peers, and few send such messages
		n, text, err = r.dc.ReadDataChannel(b)
	}
	if errors.Is(err, io.ErrShortBuffer) {
		err = fmt.Errorf("%w: data channel message over %d bytes, which is what we announce", ErrViolation, maxMessageSize)
	}
	return b[:n], text, err
}

// A textReader reads the stream of text messages, as far as it has arrived.
type textReader struct {
	*channelReader
	of *lineReader
}

// Read implements io.Reader. It returns wire.ErrLater when the last text message has been read.
func (r textReader) Read(b []byte) (int, error) {
	if r.tooLong(r.of.texts) {
		return 0, wire.ErrLater
	}
	if len(r.text) == 0 {
		if cap(r.text) > wire.SliceSize { // no peer of ours sends such texts
			r.text = nil
		}
		return 0, wire.ErrLater
	}
	n := copy(b, r.text)
	r.text = r.text[:copy(r.text, r.text[n:])]
	return n, nil
}

// A lineReader reads the lines of stream framing, which may come in two streams: those of text messages overtake the
// others.
type lineReader struct {
	from    *channelReader
	stream  *wire.Reader
	texts   *wire.Reader // nil until there is one
	inTexts bool         // a text message has arrived, and is not read to its end
	maxLine int
	long    *[2]longLine // the accounts of stream and texts
}

// newLineReader returns a reader of lines of at most maxLine bytes.
func newLineReader(dc dataChannel, maxLine int, long *[2]longLine) *lineReader {
	r := &lineReader{from: &channelReader{dc: dc, stream: true}, maxLine: maxLine, long: long}
	r.stream = wire.NewReader(r.from, maxLine)
	r.from.lines = r.stream
	r.stream.SetAccount(long[0].resize)
	return r
}

// ReadLine returns the next line, like that of a wire.Reader. It returns wire.ErrLater if there is none now, and reading is not to block, or if it
// is not for a guest.
func (r *lineReader) ReadLine() ([]byte, error) {
	for r.from.later = false; ; {
		if r.inTexts {
			if line, err := r.texts.ReadLine(); err != wire.ErrLater || r.from.later {
				return line, err
			}
			r.inTexts = false
		}
		if line, err := r.stream.ReadLine(); err != wire.ErrLater || r.from.later {
			return line, err
		}
		if r.inTexts = true; r.texts == nil {
			r.texts = wire.NewReader(textReader{r.from, r}, r.maxLine)
			r.texts.SetAccount(r.long[1].resize)
		}
	}
}

// whole reports whether nothing has been read that is not part of a line that was returned.
func (r *lineReader) whole() bool {
	return r.stream.Buffered() == 0 && len(r.from.rest) == 0 && len(r.from.text) == 0 && (r.texts == nil || r.texts.Buffered() == 0)
}

func (r *lineReader) setMaxLine(bytes int) {
	r.maxLine = bytes
	r.stream.SetMaxLine(bytes)
	if r.texts != nil {
		r.texts.SetMaxLine(bytes)
	}
}

func (r *lineReader) shrink() {
	r.stream.Shrink()
	if r.texts != nil {
		r.texts.Shrink()
	}
}
