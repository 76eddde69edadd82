//go:build !js

package rtc

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// maxPieces is how many pieces of streams a peer may have made that were not read: the multiplexer keeps each as it came, so that one
// of a byte costs some dozens. As many fit the first window of one stream, byte by byte.
const maxPieces = streamWindow

// The frames of the multiplexer: version, type, flags, stream and length, 12 bytes.
const (
	frameHeader = 12
	frameData   = 0
	frameOpens  = 1
	frameEnds   = 4
)

// pieces counts the data frames that wait to be read, as they pass on their way to the multiplexer.
type pieces struct {
	maxStreams int

	mu      sync.Mutex
	unread  map[uint32]int // by the ids of the streams
	total   int
	header  [frameHeader]byte
	have    int // bytes of the header
	payload int // bytes of the frame's payload that are to come
}

// pass notes what is in b. An error is for good.
func (p *pieces) pass(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		if p.payload > 0 {
			n := min(p.payload, len(b))
			p.payload, b = p.payload-n, b[n:]
			continue
		}
		n := copy(p.header[p.have:], b)
		p.have, b = p.have+n, b[n:]
		if p.have == frameHeader {
			p.have = 0
			if err := p.frameLocked(); err != nil {
				return err
			}
		}
	}
	return nil
}

// frameLocked handles the header of a frame.
func (p *pieces) frameLocked() error {
	flags := binary.BigEndian.Uint16(p.header[2:])
	id, length := binary.BigEndian.Uint32(p.header[4:]), binary.BigEndian.Uint32(p.header[8:])
	if flags&frameOpens != 0 {
		if _, again := p.unread[id]; !again {
			if len(p.unread) > opensAhead*p.maxStreams {
				return fmt.Errorf("%w: it opens more streams than it may", ErrViolation)
			}
			p.unread[id] = 0
		}
	}
	if p.header[1] != frameData || length == 0 {
		return nil
	}
	if length > wire.SliceSize-frameHeader {
		return fmt.Errorf("%w: a piece of a stream of %d bytes, the limit is %d", ErrViolation, length, wire.SliceSize-frameHeader)
	}
	p.payload = int(length)
	if _, known := p.unread[id]; known { // others are dropped
		p.unread[id]++
		p.total++
	}
	if p.total > maxPieces {
		return fmt.Errorf("%w: over %d pieces of its streams wait to be read", ErrViolation, maxPieces)
	}
	return nil
}

// opened notes a stream of ours.
func (p *pieces) opened(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread[id] = 0
}

// read notes that a piece was read.
func (p *pieces) read(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unread[id] > 0 {
		p.unread[id]--
		p.total--
	}
}

// forget notes that nothing more of a stream will be read.
func (p *pieces) forget(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total -= p.unread[id]
	delete(p.unread, id)
}
