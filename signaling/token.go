package signaling

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

type claims struct {
	Role string `json:"role"`
	jwt.RegisteredClaims
}

// issue returns a signed token for k.
func (s *Server) issue(k Key) (string, error) {
	now := time.Now()
	c := claims{Role: k.Role, RegisteredClaims: jwt.RegisteredClaims{
		Subject:   k.PeerID,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(TokenLifetime)),
	}}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(s.secret)
}

// verify returns the peer that a token was issued to. It accepts HS256 only: a token names its own algorithm,
// and "none", or a public key taken for an HMAC secret, are the classic forgeries (RFC 8725 section 3.1).
func (s *Server) verify(token string) (Key, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c,
		func(*jwt.Token) (any, error) { return s.secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding())
	if err != nil {
		return Key{}, err
	}
	if err := checkID(c.Subject); err != nil {
		return Key{}, fmt.Errorf("sub: %w", err)
	}
	return Key{PeerID: c.Subject, Role: c.Role}, nil
}

// tokenResponse includes the ICE servers, which saves clients a request, and says that /ws takes the token in a
// header, so that clients which can set one keep it out of URLs.
type tokenResponse struct {
	Token      string      `json:"token"`
	PeerID     string      `json:"peer_id"`
	Role       string      `json:"role"`
	ICEServers []ICEServer `json:"iceServers"`
	Bearer     bool        `json:"bearer"`
}

func (s *Server) handleToken(w http.ResponseWriter, r *http.Request) {
	presented := r.Header.Get("X-API-Key")
	if presented == "" {
		presented = r.Header.Get("X-Device-Token")
	}
	k, err := s.authenticate(presented)
	if err != nil {
		s.log.Warn().Str("remote", r.RemoteAddr).Err(err).Msg("no token issued")
		writeError(w, http.StatusUnauthorized, err.Error())
		return
	}
	token, err := s.issue(k)
	if err != nil {
		s.log.Error().Err(err).Msg("no token issued")
		writeError(w, http.StatusInternalServerError, "the token could not be signed")
		return
	}
	s.log.Debug().Str("remote", r.RemoteAddr).Str("peer_id", k.PeerID).Msg("token issued")
	writeJSON(w, http.StatusOK, tokenResponse{token, k.PeerID, k.Role, s.iceServers(time.Now()), true})
}

// authenticate returns the peer that an API key belongs to.
func (s *Server) authenticate(presented string) (Key, error) {
	if !s.cfg.Dev {
		if k, ok := lookup(s.keys, presented); ok {
			return k, nil
		}
		if presented == "" {
			return Key{}, errors.New("no API key: send it in the header X-API-Key")
		}
		return Key{}, errors.New("unknown API key")
	}
	if presented == "" {
		presented = "agent-" + strings.ToLower(rand.Text()[:10])
	}
	if err := checkID(presented); err != nil {
		return Key{}, fmt.Errorf("the API key, which is the peer id in development mode: %w", err)
	}
	return Key{PeerID: presented, Role: "agent"}, nil
}

// forwardedHeaders are what proxies add.
var forwardedHeaders = []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"}

// checkLocal returns why r is not from a program on this machine, or nil. The remote address is not enough: a proxy
// on this machine may forward requests from anywhere, and a browser on it those of any web page (which names
// itself in Origin, also after DNS rebinding).
func checkLocal(r *http.Request) error {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !addr.Addr().IsLoopback() {
		return errors.New("the server accepts only clients on a loopback address")
	}
	for _, h := range forwardedHeaders {
		if r.Header.Get(h) != "" {
			return errors.New("the server does not accept requests that a proxy has forwarded")
		}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || !isLocalHost(u.Hostname()) {
			return errors.New("the server does not accept requests of web pages from other hosts")
		}
	}
	return nil
}

func isLocalHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
