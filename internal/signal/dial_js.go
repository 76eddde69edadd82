package signal

import (
	"net/http"

	"github.com/coder/websocket"
)

const canSetHeaders = false

// dialOptions has no use for the client: the browser makes the connection.
func dialOptions(*http.Client, http.Header) *websocket.DialOptions { return nil }
