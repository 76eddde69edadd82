package mesh

import (
	"fmt"
	"os"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// An ICEServer is a STUN or TURN server, as in RTCIceServer of the WebRTC
// specification. Its JSON is that of the browsers, too.
type ICEServer struct {
	// URLs begin with stun:, stuns:, turn: or turns: (RFC 7064, RFC 7065).
	URLs []string `json:"urls"`
	// Username and Credential are needed for TURN.
	Username   string `json:"username,omitempty"`
	Credential string `json:"credential,omitempty"`
}

// UnmarshalJSON also accepts a single string for urls, as browsers do.
func (s *ICEServer) UnmarshalJSON(b []byte) error {
	return (*signal.ICEServer)(s).UnmarshalJSON(b)
}

// turnServer returns the TURN server of the environment, nil if there is none,
// and the secret that makes its credentials, "" if it has fixed ones.
func turnServer() (server *signal.ICEServer, secret string, err error) {
	turn := os.Getenv("TURN_URL")
	if turn == "" {
		return nil, "", nil
	}
	server = &signal.ICEServer{URLs: []string{turn}, Username: os.Getenv("TURN_USERNAME"), Credential: os.Getenv("TURN_PASSWORD")}
	checked := *server
	if secret = os.Getenv("TURN_SECRET"); secret != "" {
		server.Username, server.Credential = "", ""
		checked.Username, checked.Credential = "later", "later"
	}
	if err := checked.Check(); err != nil {
		return nil, "", &ConfigError{Field: "Network.ICEServers", Value: signal.PublicICEURL(turn), Err: fmt.Errorf("from TURN_URL, TURN_USERNAME and TURN_PASSWORD (or TURN_SECRET): %w", err)}
	}
	return server, secret, nil
}

func iceServers(servers []ICEServer) []signal.ICEServer {
	var out []signal.ICEServer
	for _, s := range servers {
		out = append(out, signal.ICEServer(s))
	}
	return out
}

func checkICEServers(field string, servers []ICEServer) error {
	for i, s := range servers {
		if err := signal.ICEServer(s).Check(); err != nil {
			return &ConfigError{Field: fmt.Sprintf("Network.%s[%d]", field, i), Value: signal.PublicICEURLs(s.URLs), Err: err}
		}
	}
	return nil
}
