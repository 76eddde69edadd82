//go:build !js && !(linux && (amd64 || arm64))

package rtc

import "github.com/pion/transport/v5"

func directly(c transport.UDPConn) transport.UDPConn { return c }
