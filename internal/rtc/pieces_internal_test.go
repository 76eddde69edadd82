//go:build !js

package rtc

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// frame returns a frame of the multiplexer.
func frame(kind byte, flags uint16, id uint32, payload int) []byte {
	b := make([]byte, frameHeader, frameHeader+payload)
	b[1] = kind
	binary.BigEndian.PutUint16(b[2:], flags)
	binary.BigEndian.PutUint32(b[4:], id)
	binary.BigEndian.PutUint32(b[8:], uint32(payload))
	if kind == frameData {
		b = b[:cap(b)]
	}
	return b
}

func newPieces() *pieces { return &pieces{maxStreams: 4, unread: make(map[uint32]int)} }

// passAll passes b in parts of any size.
func passAll(p *pieces, b []byte) error {
	for len(b) > 0 {
		n := min(1+rand.IntN(100), len(b))
		if err := p.pass(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// What counts are the pieces of streams that are open, until they are read or the stream is forgotten.
func TestPieces(t *testing.T) {
	p := newPieces()
	for _, step := range []struct {
		frames []byte
		then   func()
		want   int
	}{
		{frame(frameData, frameOpens, 1, 10), nil, 1},
		{frame(frameData, 0, 1, 1), nil, 2},
		{frame(frameData, 0, 7, 100), nil, 2}, // it is not open
		{frame(frameData, 0, 1, 0), nil, 2},   // nothing
		{frame(1, 0, 1, 1<<20), nil, 2},       // a window, which has no payload
		{frame(1, frameOpens, 3, 0), nil, 2},
		{frame(frameData, 0, 3, 500), nil, 3},
		{nil, func() { p.read(1) }, 2},
		{nil, func() { p.forget(1) }, 1},
		{frame(frameData, frameEnds, 1, 5), nil, 1},
		{nil, func() { p.opened(2) }, 1},
		{frame(frameData, 0, 2, wire.SliceSize-frameHeader), nil, 2},
		{nil, func() { p.read(2); p.read(2); p.read(9) }, 1},
	} {
		if err := passAll(p, step.frames); err != nil {
			t.Fatal(err)
		}
		if step.then != nil {
			step.then()
		}
		if p.total != step.want {
			t.Fatalf("%d pieces after %x, want %d", p.total, step.frames, step.want)
		}
	}
}

// Beyond bounds the peer has broken the protocol.
func TestPiecesAreBounded(t *testing.T) {
	for name, next := range map[string]func(i int) []byte{
		"bytes":   func(int) []byte { return frame(frameData, frameOpens, 1, 1) },
		"opens":   func(i int) []byte { return frame(1, frameOpens, uint32(2*i+1), 0) },
		"a piece": func(int) []byte { return frame(frameData, frameOpens, 1, wire.SliceSize) },
	} {
		p := newPieces()
		var err error
		for i := 0; err == nil && i < 2*maxPieces; i++ {
			err = p.pass(next(i))
		}
		if !errors.Is(err, ErrViolation) || p.total > maxPieces+1 || len(p.unread) > opensAhead*p.maxStreams+1 {
			t.Errorf("%s: %v, with %d pieces of %d streams", name, err, p.total, len(p.unread))
		}
	}
}

func FuzzPieces(f *testing.F) {
	f.Add(frame(frameData, frameOpens, 1, 10), uint8(3))
	f.Add(append(frame(1, frameOpens, 2, 5), frame(frameData, 0, 2, 300)...), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, at uint8) {
		whole, parts := newPieces(), newPieces()
		n := min(int(at), len(text))
		err := whole.pass(text)
		first := parts.pass(text[:n])
		if first == nil {
			first = parts.pass(text[n:])
		}
		if (err == nil) != (first == nil) || whole.total != parts.total || whole.payload != parts.payload || whole.have != parts.have {
			t.Errorf("%v, %v; %d and %d pieces", err, first, whole.total, parts.total)
		}
	})
}
