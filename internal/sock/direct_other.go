//go:build !unix

package sock

import "net"

// Direct is not available on this operating system.
type Direct struct {
	net.Conn
	Idle  func() []byte
	Later bool
	Until interface{ Over() bool }
}

// NewDirect returns nil.
func NewDirect(net.Conn) *Direct { return nil }

// Interrupt does nothing.
func (*Direct) Interrupt() {}

// TryWrite writes nothing.
func (*Direct) TryWrite([]byte) int { return 0 }
