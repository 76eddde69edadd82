package signaling

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
)

func (s *Server) handleConfig(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string][]ICEServer{"iceServers": s.iceServers(time.Now())})
}

// iceServers is never nil: clients expect a list.
func (s *Server) iceServers(now time.Time) []ICEServer {
	servers := append([]ICEServer{}, s.cfg.ICEServers...)
	if s.cfg.TURNURL != "" {
		user, password := turnCredentials(s.cfg.TURNSecret, now.Add(s.cfg.TURNLifetime))
		servers = append(servers, ICEServer{URLs: []string{s.cfg.TURNURL}, Username: user, Credential: password})
	}
	return servers
}

// turnCredentials makes the time-limited credentials of the TURN REST API
// (draft-uberti-behave-turn-rest-00 section 2.2). SHA-1 is what that draft and coturn prescribe; HMAC
// does not need its hash to be free of collisions.
func turnCredentials(secret string, expiry time.Time) (user, password string) {
	user = strconv.FormatInt(expiry.Unix(), 10) + ":mesh"
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(user))
	return user, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
