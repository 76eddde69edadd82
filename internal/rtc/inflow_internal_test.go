//go:build !js

package rtc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

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

// data returns a frame with data.
func data(flags uint16, id uint32, text string) []byte {
	b := frame(frameData, flags, id, len(text))
	copy(b[frameHeader:], text)
	return b
}

func newInflows() *inflows {
	return &inflows{maxStreams: 4, ours: 1, streams: make(map[uint32]*inflow)}
}

// passAll passes b in parts of any size, and returns what is for the multiplexer.
func passAll(f *inflows, b []byte) (rest []byte, err error) {
	for len(b) > 0 {
		n := min(1+rand.IntN(100), len(b))
		if err := f.pass(b[:n]); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	rest, f.rest = f.rest, nil
	return rest, nil
}

// Data is for the readers of streams, all else for the multiplexer.
func TestInflows(t *testing.T) {
	const window, ping = frameWindow, 2
	f := newInflows()
	f.open(1) // ours
	for _, step := range []struct {
		frames, rest []byte
		stream       uint32
		want         string
		err          error
	}{
		{data(frameOpens, 2, "hel"), frame(window, frameOpens, 2, 0), 2, "hel", nil},
		{append(data(0, 2, "lo"), data(0, 2, " there")...), nil, 2, "lo there", nil},
		{data(0, 1, "ours"), nil, 1, "ours", nil},
		{data(0, 6, "of nobody"), nil, 2, "", nil},
		{data(0, 3, "early"), nil, 3, "early", nil}, // it is just being opened
		{frame(window, 0, 2, 1<<20), frame(window, 0, 2, 1<<20), 2, "", nil},
		{frame(ping, 1, 0, 7), frame(ping, 1, 0, 7), 2, "", nil},
		{data(frameEnds, 2, "bye"), frame(window, frameEnds, 2, 0), 2, "bye", nil},
		{nil, nil, 2, "", io.EOF},
		{frame(window, frameResets, 2, 5), frame(window, frameResets, 2, 5), 2, "", io.EOF}, // it was complete
		{append(data(0, 1, "lost"), frame(window, frameResets, 1, 5)...), frame(window, frameResets, 1, 5), 1, "", ErrStreamReset},
	} {
		rest, err := passAll(f, step.frames)
		if err != nil || !bytes.Equal(rest, step.rest) {
			t.Fatalf("%x: %x, %v; want %x", step.frames, rest, err, step.rest)
		}
		b := make([]byte, 100)
		n, _, err := f.open(step.stream).read(b, f, 0)
		if string(b[:n]) != step.want || !errors.Is(err, step.err) {
			t.Errorf("%x: read %q, %v; want %q, %v", step.frames, b[:n], err, step.want, step.err)
		}
	}
	f.forget(1)
	if _, err := passAll(f, data(0, 1, "late")); err != nil || f.streams[1] != nil {
		t.Errorf("a stream that is forgotten is back, %v", err)
	}
}

// Pieces of any size take as much memory as their bytes, and as little window.
func TestInflowIsCompact(t *testing.T) {
	f := newInflows()
	in := f.open(2)
	for range streamWindow {
		if err := f.pass(data(0, 2, "x")); err != nil {
			t.Fatal(err)
		}
	}
	memory := 0
	for _, c := range in.chunks {
		memory += cap(c)
	}
	if memory > 2*streamWindow || in.size != streamWindow || len(in.chunks) > 40 {
		t.Errorf("%d bytes in %d chunks take %d", in.size, len(in.chunks), memory)
	}
	if err := f.pass(data(0, 2, "x")); !errors.Is(err, ErrViolation) {
		t.Errorf("more than the window: %v", err)
	}
}

// The window is given back when half of it was read, and grows where that is what holds the peer up.
func TestInflowGrants(t *testing.T) {
	f := newInflows()
	in := f.open(2)
	granted, got, b := 0, 0, make([]byte, 1000)
	for got < 64*streamWindow {
		for in.credit >= 10_000 && in.size < 10_000 {
			if err := f.pass(data(0, 2, string(make([]byte, 10_000)))); err != nil {
				t.Fatal(err)
			}
		}
		n, more, err := in.read(b, f, time.Hour)
		if n == 0 || err != nil {
			t.Fatalf("stands still after %d bytes, with %d bytes of credit: %v", got, in.credit, err)
		}
		got, granted = got+n, granted+more
	}
	if in.window != streamWindowMost || f.grown != streamWindowMost-streamWindow {
		t.Errorf("the window has grown to %d, of all to %d more", in.window, f.grown)
	}
	if granted < got-streamWindow || granted > got+streamWindowMost {
		t.Errorf("%d bytes granted for %d", granted, got)
	}
	f.forget(2)
	if f.grown != 0 {
		t.Errorf("%d bytes are not given back", f.grown)
	}
}

// Beyond bounds the peer has broken the protocol.
func TestInflowsAreBounded(t *testing.T) {
	for name, next := range map[string]func(i int) []byte{
		"a frame": func(int) []byte { return frame(frameData, frameOpens, 2, wire.SliceSize) },
		"bytes":   func(int) []byte { return frame(frameData, frameOpens, 2, wire.SliceSize-frameHeader) },
		"opens":   func(i int) []byte { return frame(frameWindow, frameOpens, uint32(2*i+2), 0) },
	} {
		f := newInflows()
		var err error
		for i := 0; err == nil && i < 1000; i++ {
			err = f.pass(next(i))
		}
		if !errors.Is(err, ErrViolation) || len(f.streams) > opensAhead*f.maxStreams+1 {
			t.Errorf("%s: %v, with %d streams", name, err, len(f.streams))
		}
	}
}

// A peer that sends what answers streams that were never opened is none that has a place for each.
func TestOneStreamIsJustBeingOpened(t *testing.T) {
	f := newInflows()
	for id := uint32(1); id < 20; id += 2 { // an honest one may be faster than open
		if err := f.pass(data(0, id, "x")); err != nil {
			t.Fatal(err)
		}
		f.open(id)
	}
	f.open(25) // what was given up has no answer
	err := f.pass(data(0, 27, "x"))
	if err == nil {
		err = f.pass(frame(frameWindow, 0, 29, 0))
	}
	if !errors.Is(err, ErrViolation) || len(f.streams) != 12 {
		t.Errorf("%d streams, %v", len(f.streams), err)
	}
}

func FuzzInflows(f *testing.F) {
	f.Add(data(frameOpens, 2, "hello"), uint8(3))
	f.Add(append(frame(frameWindow, frameOpens, 2, 5), frame(frameData, 0, 2, 300)...), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, at uint8) {
		whole, parts := newInflows(), newInflows()
		n := min(int(at), len(text))
		err := whole.pass(text)
		first := parts.pass(text[:n])
		if first == nil {
			first = parts.pass(text[n:])
		}
		if (err == nil) != (first == nil) || err == nil && (!bytes.Equal(whole.rest, parts.rest) || whole.payload != parts.payload || whole.have != parts.have) {
			t.Fatalf("%v, %v; %x and %x", err, first, whole.rest, parts.rest)
		}
		for id, in := range whole.streams {
			if in.size > streamWindow || err == nil && in.size != parts.streams[id].size {
				t.Errorf("stream %d has %d bytes", id, in.size)
			}
		}
	})
}

// A deadline may be moved at any moment.
func TestDeadline(t *testing.T) {
	var d deadline
	if isClosed(d.wait()) {
		t.Error("the zero value has come")
	}
	d.set(time.Now().Add(-time.Second))
	if !isClosed(d.wait()) {
		t.Error("the past has not come")
	}
	d.set(time.Time{})
	if isClosed(d.wait()) {
		t.Error("never has come")
	}
	for range 1000 {
		d.set(time.Now().Add(time.Duration(rand.IntN(20)) * time.Microsecond))
	}
	<-d.wait()
	d.set(time.Now().Add(time.Hour))
	if isClosed(d.wait()) {
		t.Error("an hour is over")
	}
}
