//go:build !js

package signal

import (
	"net/http"

	"github.com/coder/websocket"
)

const canSetHeaders = true

func dialOptions(hc *http.Client, header http.Header) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPClient: hc, HTTPHeader: header}
}
