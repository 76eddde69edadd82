package signaling

import (
	"net/http"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
)

func (s *Server) handleConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string][]ICEServer{"iceServers": s.iceServers(time.Now())})
}

// iceServers is never nil: clients expect a list.
func (s *Server) iceServers(now time.Time) []ICEServer {
	servers := append([]ICEServer{}, s.cfg.ICEServers...)
	if s.cfg.TURNURL != "" {
		user, password := signal.TURNCredentials(s.cfg.TURNSecret, now.Add(s.cfg.TURNLifetime))
		servers = append(servers, ICEServer{URLs: []string{s.cfg.TURNURL}, Username: user, Credential: password})
	}
	return servers
}
