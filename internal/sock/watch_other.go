//go:build !linux

package sock

import "net"

// A Watch waits until a connection has something to read, without reading. There is none on this system.
type Watch struct{}

// NewWatch fails.
func NewWatch(net.Conn) (*Watch, error) { return nil, ErrUnsupported }

// Off does nothing.
func (*Watch) Off() {}

// On does nothing.
func (*Watch) On() {}

// Wait fails.
func (*Watch) Wait() error { return ErrUnsupported }

// Wake does nothing.
func (*Watch) Wake() {}

// Close does nothing.
func (*Watch) Close() {}
