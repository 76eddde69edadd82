//go:build !js

package signal

import (
	"net/http"

	"github.com/coder/websocket"
)

func dialOptions(hc *http.Client) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPClient: hc}
}
