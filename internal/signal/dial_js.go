package signal

import (
	"net/http"

	"github.com/coder/websocket"
)

// dialOptions has no use for the client: the browser makes the connection.
func dialOptions(*http.Client) *websocket.DialOptions { return nil }
