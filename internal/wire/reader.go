package wire

import (
	"bytes"
	"errors"
	"io"
	"math/bits"
	"strconv"
	"strings"
	"sync"
)

const (
	// readerIdle is the size of a Reader's buffer while little arrives at a time: most readers are idle
	// most of the time, and a sidecar has one for each peer.
	readerIdle = 2 << 10
	// readerBuffer is the usual size otherwise: room for the rest of a line and one more Read.
	readerBuffer = 2 * SliceSize
	// ReaderKeep is the size in bytes of the largest buffer that a Reader keeps between lines. It is a compromise: growing
	// a buffer anew for each long line costs copies, keeping it costs memory for each peer that has sent one.
	ReaderKeep = 64 << 10
	// maxEmptyReads bounds how often in a row a source may return neither bytes nor an error.
	maxEmptyReads = 100
	// byteOrderMark may begin a stream. RFC 8259 section 8.1 allows parsers to ignore it.
	byteOrderMark = "\xEF\xBB\xBF"
)

// ErrLater is what a source returns, without bytes, when there is nothing more for now. ReadLine returns it and may be
// called again.
var ErrLater = errors.New("nothing for now")

// Reader splits a byte stream into lines. It buffers no more than the longest line allowed and one Read.
// Its methods must not be called concurrently.
//
// bufio.Scanner would not do, because it ends for good at a line that is too long; nor would
// bufio.Reader, whose buffer cannot grow.
type Reader struct {
	src      io.Reader
	max      int
	buf      []byte
	start    int // buf[start:end] is unread
	end      int
	searched int    // buf[start:searched] has no newline
	begun    bool   // past the place of a byte order mark
	skipping bool   // in a line that was reported as too long
	busy     bool   // the last Read returned much, or the next one will
	long     int    // length of the last line that did not fit into readerBuffer bytes
	idle     []byte // buffer of readerIdle bytes, nil at first
	err      error  // the final error of src
	account  func(bytes int) error
}

// readerBuffers hold buffers of readerBuffer bytes, and two, four, eight ... times as many: readers need the
// larger ones only while they read a long line.
var readerBuffers [8]sync.Pool

// pool returns the pool of buffers of size bytes, or nil if there is none.
func pool(size int) *sync.Pool {
	i := bits.TrailingZeros(uint(size)) - bits.TrailingZeros(readerBuffer)
	if size != readerBuffer<<max(i, 0) || i >= len(readerBuffers) {
		return nil
	}
	return &readerBuffers[i]
}

// NewReader returns a Reader of lines of at most maxLine bytes, newline not counted. After a Read of r that
// returns 0 and [io.ErrShortBuffer], as that of a data channel does if the next message is longer than the
// buffer, the next Read has a buffer of at least [SliceSize] bytes.
func NewReader(r io.Reader, maxLine int) *Reader {
	return &Reader{src: r, max: maxLine}
}

// SetMaxLine changes the limit, for the lines that follow.
func (r *Reader) SetMaxLine(bytes int) { r.max = bytes }

// Buffered returns how many bytes of lines that were not returned have been read.
func (r *Reader) Buffered() int { return r.end - r.start }

// SetAccount has f told how large the buffer becomes, in bytes, wherever it is larger than [ReaderKeep] before or
// after. f may block a buffer that is to grow, or refuse it: its error is final, as one of the source.
func (r *Reader) SetAccount(f func(bytes int) error) { r.account = f }

// ReadLine returns the next line that is not blank, without its newline or the '\r' before that, and
// without a byte order mark that begins the stream. The last line needs no newline. The line is valid
// until the next call.
//
// A line over the limit is reported once, as an [*Error] with [CodeTooLarge], and skipped without being
// buffered: call ReadLine again for the line after it. All other errors, [io.EOF] among them, are those of
// the source, and final but for [ErrLater].
func (r *Reader) ReadLine() ([]byte, error) {
	r.Shrink()
	for {
		if n := bytes.IndexByte(r.buf[r.searched:r.end], '\n'); n >= 0 {
			line := r.buf[r.start : r.searched+n]
			r.start = r.searched + n + 1
			r.searched = r.start
			if r.skipping {
				r.skipping = false
				continue
			}
			if line, err := r.finish(line); line != nil || err != nil {
				return line, err
			}
			continue
		}
		r.searched = r.end
		if r.skipping {
			r.start = r.end
		} else if r.begun && r.end-r.start > r.max+1 { // the last byte may be a '\r'
			r.skipping, r.start = true, r.end
			return nil, r.tooLong()
		}
		if r.err != nil {
			line := r.buf[r.start:r.end]
			r.start = r.end
			if r.err == io.EOF {
				if line, err := r.finish(line); line != nil || err != nil {
					return line, err
				}
			}
			return nil, r.err
		}
		if r.fill(); r.err == ErrLater {
			r.err = nil
			return nil, ErrLater
		}
	}
}

// finish checks a whole line. For a blank one it returns no line and no error.
func (r *Reader) finish(line []byte) ([]byte, error) {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > r.max {
		return nil, r.tooLong()
	}
	if len(line) > readerBuffer {
		r.long = len(line)
	}
	for _, c := range line {
		if c != ' ' && c != '\t' && c != '\r' {
			return line, nil
		}
	}
	return nil, nil
}

func (r *Reader) tooLong() error {
	return &Error{Code: CodeTooLarge, Text: "line skipped, the limit is " + strconv.Itoa(r.max) + " bytes"}
}

// fill reads once, after making room.
func (r *Reader) fill() {
	if r.start == r.end {
		r.start, r.end, r.searched = 0, 0, 0
		if !r.busy && len(r.buf) > readerIdle {
			r.resize(readerIdle)
		}
	}
	for range maxEmptyReads {
		if len(r.buf)-r.end < r.want() && !r.makeRoom() {
			return
		}
		offered := len(r.buf) - r.end
		n, err := r.src.Read(r.buf[r.end:])
		if n == 0 && err == io.ErrShortBuffer && !r.busy {
			r.busy = true
			continue
		}
		if n < 0 || n > offered {
			n, err = 0, io.ErrNoProgress
		}
		r.busy = n == offered || n >= readerIdle
		r.end += n
		if err != nil {
			r.err = err
		}
		if !r.begun {
			r.skipByteOrderMark()
		}
		if n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}

// skipByteOrderMark passes over the mark that begins the stream, once enough has arrived to decide.
func (r *Reader) skipByteOrderMark() {
	got := string(r.buf[:min(r.end, len(byteOrderMark))])
	if got == byteOrderMark {
		r.start, r.searched = len(got), len(got)
		r.begun = true
		return
	}
	r.begun = !strings.HasPrefix(byteOrderMark, got)
}

// want returns the least number of bytes that the next Read needs room for.
func (r *Reader) want() int {
	if r.busy {
		return SliceSize
	}
	return 1
}

// makeRoom moves the unread bytes to the front of the buffer, and of a larger one if need be. It reports whether it
// may.
func (r *Reader) makeRoom() bool {
	size := max(len(r.buf), readerIdle)
	if r.busy {
		size = max(size, readerBuffer)
	}
	if size-(r.end-r.start) < r.want() {
		// Doubling keeps the copies linear in the line's length. A line after a long one is often as long,
		// and then there is one copy only. Beyond the limit nothing is buffered.
		if size *= 2; r.end-r.start > readerBuffer {
			for size < r.long+SliceSize {
				size *= 2
			}
		}
		size = max(readerBuffer, min(size, r.max+1+readerBuffer))
	}
	return r.resize(size)
}

// Shrink gives back a buffer that has grown for a long line, which is no longer valid then. ReadLine begins with it;
// call it where that may be a while.
func (r *Reader) Shrink() {
	if len(r.buf) <= ReaderKeep {
		return
	}
	size := readerBuffer
	for size < r.end-r.start+SliceSize {
		size *= 2
	}
	if size < len(r.buf) {
		r.resize(size)
	}
}

// resize moves the unread bytes to the front of a buffer of size bytes, which may be the present one. It reports
// whether the account allows it.
func (r *Reader) resize(size int) bool {
	old := r.buf
	if r.account != nil && size != len(old) && max(size, len(old)) > ReaderKeep {
		if r.err = r.account(size); r.err != nil {
			return false
		}
	}
	if size != len(old) {
		r.buf = r.buffer(size)
	}
	copy(r.buf, old[r.start:r.end])
	r.searched -= r.start
	r.start, r.end = 0, r.end-r.start
	if p := pool(len(old)); p != nil && size != len(old) {
		p.Put(&old)
	}
	return true
}

func (r *Reader) buffer(size int) []byte {
	if size == readerIdle {
		if r.idle == nil {
			r.idle = make([]byte, readerIdle)
		}
		return r.idle
	}
	if p := pool(size); p != nil {
		if b, ok := p.Get().(*[]byte); ok {
			return *b
		}
	}
	return make([]byte, size)
}
