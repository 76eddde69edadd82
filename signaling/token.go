package signaling

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
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

// verify returns the peer that a token was issued to, also with jwt.ErrTokenExpired. It accepts HS256 only: a token names its own algorithm,
// and "none", or a public key taken for an HMAC secret, are the classic forgeries (RFC 8725 section 3.1).
func (s *Server) verify(token string) (Key, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c,
		func(*jwt.Token) (any, error) { return s.secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithStrictDecoding())
	if err != nil && !errors.Is(err, jwt.ErrTokenExpired) { // which comes after the signature has been checked
		return Key{}, err
	}
	if err := checkID(c.Subject); err != nil {
		return Key{}, fmt.Errorf("sub: %w", err)
	}
	return Key{PeerID: c.Subject, Role: c.Role}, err
}

// verifyLasting is verify, but a token lasts as long as the WebSocket that was opened with it.
func (s *Server) verifyLasting(token string) (Key, error) {
	k, err := s.verify(token)
	if errors.Is(err, jwt.ErrTokenExpired) && s.connectedWith(k.PeerID, token) {
		return k, nil
	}
	return k, err
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
	k, ok := s.identify(w, r, func() (Key, error) { return s.authenticate(presentedKey(r)) })
	if !ok {
		return
	}
	if t, ok := s.respond(w, r, k); ok {
		writeJSON(w, http.StatusOK, t)
	}
}

// respond returns the response to k's request for a token. If there is none it has written the error.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, k Key) (*tokenResponse, bool) {
	token, err := s.issue(k)
	if err != nil {
		s.reportRequest(zerolog.ErrorLevel, r).Err(err).Msg("no token issued")
		writeError(w, http.StatusInternalServerError, "the token could not be signed")
		return nil, false
	}
	s.reportRequest(zerolog.DebugLevel, r).Str("peer_id", k.PeerID).Msg("token issued")
	return &tokenResponse{token, k.PeerID, k.Role, s.iceServers(time.Now()), true}, true
}

func presentedKey(r *http.Request) string {
	return cmp.Or(r.Header.Get("X-API-Key"), r.Header.Get("X-Device-Token"))
}

func presentedToken(r *http.Request) string {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return bearer
	}
	return r.URL.Query().Get("token")
}

// identify returns the peer that check finds, or responds to the request and returns false: with 429 if the address has
// presented too many wrong keys and tokens lately. It gets that for a right one, too, or it could go on guessing.
func (s *Server) identify(w http.ResponseWriter, r *http.Request, check func() (Key, error)) (Key, bool) {
	s.warnOfPlainHTTP(r)
	from := s.source(r)
	if wait := s.guesses.Wait(from); wait > 0 {
		s.reportRequest(zerolog.WarnLevel, r).Msg("request refused: too many wrong keys or tokens from this address")
		writeTooMany(w, wait, "too many wrong keys or tokens from this address; try again later")
		return Key{}, false
	}
	k, err := check()
	if err == nil {
		return k, true
	}
	// An expired token was right once, and nothing is no guess.
	if !errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, errNothing) {
		s.guesses.Take(from)
	}
	s.reportRequest(zerolog.WarnLevel, r).Str("path", logs.Cut(r.URL.Path)).Str("error", logs.Error(err)).Msg("key or token refused")
	text := err.Error()
	if presentedKey(r) == "" && r.Method != http.MethodPost {
		text = "invalid token; get one from /api/token of this server"
	}
	writeError(w, http.StatusUnauthorized, text)
	return Key{}, false
}

// warnOfPlainHTTP warns once of keys and tokens that others on the way can read.
func (s *Server) warnOfPlainHTTP(r *http.Request) {
	addr := parseAddr(r.RemoteAddr)
	if r.TLS == nil && addr.IsValid() && !addr.IsLoopback() && !s.cfg.trusts(addr) {
		s.exposed.Do(func() {
			s.log.Warn().Str("remote", logs.Cut(r.RemoteAddr)).
				Msg("keys and tokens arrive unencrypted, over plain HTTP from another machine; serve with TLS")
		})
	}
}

// errNothing is no key and no token at all.
var errNothing = errors.New("no API key: send it in the header X-API-Key")

// authenticate returns the peer that an API key belongs to.
func (s *Server) authenticate(presented string) (Key, error) {
	if !s.cfg.Dev {
		if k, ok := lookup(s.keys, presented); ok {
			return k, nil
		}
		if presented == "" {
			return Key{}, errNothing
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
