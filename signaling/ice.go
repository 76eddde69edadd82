package signaling

import (
	"net/http"
	"slices"
	"time"

	"github.com/rs/zerolog"

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

// handleConfig gives servers with credentials to holders of a token or key. A wrong one is an error, rather than a
// shorter list: a client that renews its credentials would take that for the truth.
func (s *Server) handleConfig(w http.ResponseWriter, r *http.Request) {
	servers := s.iceServers(time.Now())
	token, key := presentedToken(r), presentedKey(r)
	switch {
	case s.cfg.Dev || s.cfg.AllowAnonymousTURN: // for anyone
	case token != "":
		if _, ok := s.identify(w, r, func() (Key, error) { return s.verifyLasting(token) }); !ok {
			return
		}
	case key != "":
		if _, ok := s.identify(w, r, func() (Key, error) { return s.authenticate(key) }); !ok {
			return
		}
	default:
		all := len(servers)
		servers = slices.DeleteFunc(servers, func(i ICEServer) bool { return i.Username != "" || i.Credential != "" })
		if n := all - len(servers); n > 0 {
			s.reportRequest(zerolog.InfoLevel, r).Int("withheld", n).Msg("ICE servers asked for without a token; those with credentials withheld")
		}
	}
	writeJSON(w, http.StatusOK, map[string][]ICEServer{"iceServers": servers})
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
