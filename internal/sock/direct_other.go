//go:build !unix

package sock

import "net"

// Direct is not available on this operating system.
type Direct struct {
	net.Conn
	Idle func() []byte
}

// NewDirect returns nil.
func NewDirect(net.Conn) *Direct { return nil }

// TryWrite writes nothing.
func (*Direct) TryWrite([]byte) int { return 0 }
