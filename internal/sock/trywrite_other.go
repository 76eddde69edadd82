//go:build !unix

package sock

import "net"

// TryWriter returns nil on this operating system: no connection can write without waiting.
func TryWriter(net.Conn) func(b []byte) int { return nil }
