//go:build !js

package rtc

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// The frames of the multiplexer: version, type, flags, stream and length, 12 bytes.
const (
	frameHeader = 12
	frameData   = 0
	frameWindow = 1
	frameOpens  = 1
	frameEnds   = 4
	frameResets = 8
)

// inflows are what arrives of streams. The multiplexer opens and ends streams, and writes; what it would do with data is done here,
// on the way of the frames to it: it keeps each piece as it came, so that one of a byte costs some dozens, and it forgets to give
// window back when a deadline passes.
type inflows struct {
	maxStreams int
	ours       uint32 // the lowest bit of the ids of our streams

	mu      sync.Mutex
	streams map[uint32]*inflow
	opened  uint32 // the highest id of a stream of ours
	early   uint32 // of one whose answer was faster than open
	grown   int    // bytes by which windows have grown

	// Owned by who calls pass.
	header  [frameHeader]byte
	have    int     // bytes of the header
	payload int     // bytes of a frame that are to come
	to      *inflow // whose they are; nil if nobody's
	rest    []byte  // frames for the multiplexer
}

// pass takes what has arrived, and returns an error that is for good. What is for the multiplexer is in rest.
func (f *inflows) pass(b []byte) error {
	for len(b) > 0 {
		if f.payload > 0 {
			n := min(f.payload, len(b))
			if f.to != nil {
				f.to.add(b[:n])
			}
			f.payload, b = f.payload-n, b[n:]
			continue
		}
		n := copy(f.header[f.have:], b)
		f.have, b = f.have+n, b[n:]
		if f.have == frameHeader {
			f.have = 0
			if err := f.frame(); err != nil {
				return err
			}
		}
	}
	return nil
}

// whole reports whether what was passed ends with a frame.
func (f *inflows) whole() bool { return f.have == 0 && f.payload == 0 }

// frame handles the header of a frame.
func (f *inflows) frame() error {
	flags := binary.BigEndian.Uint16(f.header[2:])
	id, length := binary.BigEndian.Uint32(f.header[4:]), binary.BigEndian.Uint32(f.header[8:])
	kind := f.header[1]
	if kind != frameData && kind != frameWindow {
		f.rest = append(f.rest, f.header[:]...)
		return nil
	}
	in, err := f.stream(id, flags&frameOpens != 0)
	if err != nil {
		return err
	}
	if kind == frameData {
		if length > wire.SliceSize-frameHeader {
			return fmt.Errorf("%w: a frame of a stream of %d bytes, the limit is %d", ErrViolation, length, wire.SliceSize-frameHeader)
		}
		if f.to = in; in != nil {
			if err := in.take(int(length)); err != nil {
				return err
			}
		}
		f.payload = int(length)
		if flags == 0 {
			return nil
		}
		f.header[1] = frameWindow // what it says besides the data
		binary.BigEndian.PutUint32(f.header[8:], 0)
		length = 0
	}
	if in != nil && flags&(frameEnds|frameResets) != 0 {
		in.end(flags&frameResets != 0, length)
	}
	f.rest = append(f.rest, f.header[:]...)
	return nil
}

// stream returns what arrives of a stream, nil if that is none (any more).
func (f *inflows) stream(id uint32, opens bool) (*inflow, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := f.streams[id]
	switch {
	case in != nil:
	case id&1 == f.ours:
		if id > f.opened { // it is just being opened, which is one at a time
			if f.early > f.opened {
				return nil, fmt.Errorf("%w: it answers streams that are not open", ErrViolation)
			}
			f.early = id
			in = f.addLocked(id)
		}
	case opens:
		if len(f.streams) > opensAhead*f.maxStreams {
			return nil, fmt.Errorf("%w: it opens more streams than it may", ErrViolation)
		}
		in = f.addLocked(id)
	}
	return in, nil
}

func (f *inflows) addLocked(id uint32) *inflow {
	in := &inflow{wake: make(chan struct{}, 1), credit: streamWindow, window: streamWindow, since: time.Now()}
	f.streams[id] = in
	return in
}

// open returns what arrives of a stream that the multiplexer has. Streams of ours come in the order of their ids.
func (f *inflows) open(id uint32) *inflow {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id&1 == f.ours {
		f.opened = max(f.opened, id)
	}
	if f.streams[id] == nil {
		f.addLocked(id)
	}
	return f.streams[id]
}

// forget drops what arrives of a stream from now on.
func (f *inflows) forget(id uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := f.streams[id]
	if in == nil {
		return
	}
	delete(f.streams, id)
	f.grown -= in.forget()
}

// grow reports whether a window may grow by so much.
func (f *inflows) grow(by int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.grown+by > windowsMost {
		return false
	}
	f.grown += by
	return true
}

// An inflow is what has arrived of one stream and was not read, in as little memory as it takes.
type inflow struct {
	wake chan struct{} // buffered 1: there is something to read, or the end

	mu     sync.Mutex
	chunks [][]byte // the last one may have room
	size   int      // bytes in them
	credit int      // bytes that the peer may still send
	window int      // bytes that it may have sent and we not read
	since  time.Time
	ended  bool
	reset  *ResetError
	gone   bool
}

// take notes bytes that are about to come.
func (in *inflow) take(n int) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n > in.credit {
		return fmt.Errorf("%w: a stream of it has %d bytes more than it may have", ErrViolation, n-in.credit)
	}
	in.credit -= n
	return nil
}

// add adds bytes.
func (in *inflow) add(b []byte) {
	in.mu.Lock()
	if !in.gone && in.reset == nil {
		in.addLocked(b)
	}
	in.mu.Unlock()
	notify(in.wake)
}

const (
	leastChunk = 512
	mostChunk  = wire.SliceSize
)

func (in *inflow) addLocked(b []byte) {
	in.size += len(b)
	if last := len(in.chunks) - 1; last >= 0 {
		c := in.chunks[last]
		n := copy(c[len(c):cap(c)], b)
		in.chunks[last], b = c[:len(c)+n], b[n:]
	}
	if len(b) > 0 {
		room := max(len(b), min(in.size, mostChunk), leastChunk)
		in.chunks = append(in.chunks, append(make([]byte, 0, room), b...))
	}
}

// end notes that nothing more will come; after a reset also that what has come is lost, unless it was the end already.
func (in *inflow) end(reset bool, code uint32) {
	in.mu.Lock()
	switch {
	case in.ended || in.reset != nil:
	case reset:
		in.reset = &ResetError{code}
		in.chunks, in.size = nil, 0
	default:
		in.ended = true
	}
	in.mu.Unlock()
	notify(in.wake)
}

// read returns what there is. With neither bytes nor an error there is nothing yet. It also returns by how much the peer may send more
// now, of which it is to be told.
func (in *inflow) read(b []byte, of *inflows, rtt time.Duration) (n, more int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.chunks) > 0 && n < len(b) {
		c := in.chunks[0]
		m := copy(b[n:], c)
		n += m
		if in.chunks[0] = c[m:]; m == len(c) {
			in.chunks[0] = nil
			in.chunks = in.chunks[1:]
		}
	}
	in.size -= n
	switch {
	case n > 0:
		return n, in.grantLocked(of, rtt), nil
	case in.reset != nil:
		return 0, 0, in.reset
	case in.ended:
		return 0, 0, io.EOF
	}
	return 0, 0, nil
}

// grantLocked gives window back once half of it was read. Where that takes less than some round trips, the window is what holds the peer
// up, and grows.
func (in *inflow) grantLocked(of *inflows, rtt time.Duration) (more int) {
	if in.ended || in.window-in.credit-in.size < in.window/2 {
		return 0
	}
	now := time.Now()
	if grown := min(2*in.window, streamWindowMost); rtt > 0 && now.Sub(in.since) < 4*rtt && grown > in.window && of.grow(grown-in.window) {
		in.window = grown
	}
	in.since = now
	more = in.window - in.credit - in.size
	in.credit += more
	return more
}

// forget drops everything, and returns by how much the window had grown.
func (in *inflow) forget() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.gone, in.chunks, in.size = true, nil, 0
	return in.window - streamWindow
}
