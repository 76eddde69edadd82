//go:build !js

package rtc

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"sync"
)

const (
	// maxWaiting bounds the memory of the packets that wait in one connection, in bytes. pion keeps as much of those
	// that it has read from there.
	maxWaiting = 1 << 20
	// maxWaitingChecks is the part of it that checks may take. Whoever knows a ufrag can send them, and leaves room for
	// the peer's other packets.
	maxWaitingChecks = maxWaiting / 16
	// minRing is the least memory for packets, in bytes. Most connections get only checks.
	minRing = 1 << 10
)

// packets are those of one connection that wait to be read, in a ring of bytes: for each one the lengths of its address
// and of itself (2 bytes each), the address, and the packet.
type packets struct {
	mu     sync.Mutex
	come   sync.Cond
	ring   []byte // grows as needed, and stays
	start  int    // in ring
	size   int    // of all, in bytes
	closed bool
}

func (p *packets) init() { p.come.L = &p.mu }

// put adds a packet. It drops it, as a socket does, if more than limit bytes would wait.
func (p *packets) put(b []byte, from netip.AddrPort, limit int) {
	var scratch [64]byte
	head, _ := from.AppendBinary(scratch[:4]) // never fails
	binary.BigEndian.PutUint16(head, uint16(len(head)-4))
	binary.BigEndian.PutUint16(head[2:], uint16(len(b)))
	p.mu.Lock()
	defer p.mu.Unlock()
	size := p.size + len(head) + len(b)
	if p.closed || size > limit {
		return
	}
	if size > len(p.ring) {
		p.grow(size)
	}
	p.add(head)
	p.add(b)
	p.come.Signal()
}

// take waits for a packet and copies it to b, as much of it as b holds. It fails with net.ErrClosed after close.
func (p *packets) take(b []byte) (n int, from netip.AddrPort, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && p.size == 0 {
		p.come.Wait()
	}
	if p.closed {
		return 0, from, net.ErrClosed
	}
	var scratch [64]byte
	p.remove(scratch[:4])
	ofAddr, of := int(binary.BigEndian.Uint16(scratch[:])), int(binary.BigEndian.Uint16(scratch[2:]))
	addr := slices.Grow(scratch[:0], ofAddr)[:ofAddr]
	p.remove(addr)
	_ = from.UnmarshalBinary(addr) // never fails
	n = min(of, len(b))
	p.remove(b[:n])
	p.skip(of - n)
	return n, from, nil
}

func (p *packets) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.ring, p.size = true, nil, 0
	p.come.Broadcast()
}

// grow makes room for size bytes in all.
func (p *packets) grow(size int) {
	ring := make([]byte, max(minRing, 1<<bits.Len(uint(size-1))))
	n := p.size
	p.remove(ring[:n])
	p.ring, p.start, p.size = ring, 0, n
}

// add appends b, for which there is room.
func (p *packets) add(b []byte) {
	end := (p.start + p.size) % len(p.ring)
	copy(p.ring, b[copy(p.ring[end:], b):])
	p.size += len(b)
}

// remove moves the first bytes to b.
func (p *packets) remove(b []byte) {
	copy(b[copy(b, p.ring[p.start:]):], p.ring)
	p.skip(len(b))
}

func (p *packets) skip(n int) {
	p.start += n
	if p.start >= len(p.ring) {
		p.start -= len(p.ring)
	}
	if p.size -= n; p.size == 0 {
		p.start = 0 // the memory that was used last is fast
	}
}
