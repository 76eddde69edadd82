package signaling

import (
	"net/http"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// ICEServer is a STUN or TURN server that peers are told to use, as in the W3C's RTCIceServer.
type ICEServer struct {
	// URLs are stun:, stuns:, turn: or turns: URLs (RFC 7064, RFC 7065). In JSON a single string is accepted,
	// too.
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`   // required with turn: and turns:
	Credential string   `json:"credential,omitempty"` // the password that belongs to Username
}

// UnmarshalJSON accepts a string or a list of strings for urls.
func (s *ICEServer) UnmarshalJSON(b []byte) error { return (*signal.ICEServer)(s).UnmarshalJSON(b) }

func (s *Server) handleConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string][]ICEServer{"iceServers": s.iceServers(time.Now())})
}

// iceServers returns the configured servers and, with TURNURL, one with fresh credentials. The list is never
// nil: clients expect one.
func (s *Server) iceServers(now time.Time) []ICEServer {
	servers := append([]ICEServer{}, s.cfg.ICEServers...)
	if s.cfg.TURNURL != "" {
		user, password := signal.TURNCredentials(s.cfg.TURNSecret, now.Add(s.cfg.TURNLifetime))
		servers = append(servers, ICEServer{URLs: []string{s.cfg.TURNURL}, Username: user, Credential: password})
	}
	return servers
}
