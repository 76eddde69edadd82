package sidecar

import (
	"errors"

	"github.com/rs/zerolog"
)

// newNetwork fails: the sidecar's WebRTC needs sockets, which a browser does not give to WebAssembly.
func newNetwork(Settings, zerolog.Logger, networkEvents) (network, error) {
	return nil, errors.New("no WebRTC in js/wasm: a page joins the mesh by the browser's own WebRTC, see examples/browser")
}

// InMemory returns false in a browser.
func InMemory(string) bool { return false }
