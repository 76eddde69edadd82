//go:build !js

package rtc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// certificateLeft is how long the certificate of a new connection is valid at least. pion makes them for a month, and makes
// no connection with one that has expired; that of a connection that is up may expire.
const certificateLeft = 21 * 24 * time.Hour

// certificates has the certificate of all connections: a key for each would cost more than the rest of the setup.
type certificates struct {
	now func() time.Time

	mu     sync.Mutex
	latest certificate
}

type certificate struct {
	webrtc.Certificate
	hash [sha256.Size]byte
}

// get returns the certificate for a new connection. It makes one, which takes less than a millisecond, if there is none or
// it expires before long.
func (c *certificates) get() (certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest.Expires().Sub(c.now()) > certificateLeft { // Expires returns the zero time if there is none
		return c.latest, nil
	}
	made, err := makeCertificate()
	if err != nil {
		return certificate{}, err
	}
	c.latest = made
	return made, nil
}

func makeCertificate() (certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, fmt.Errorf("make a DTLS key: %w", err)
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return certificate{}, fmt.Errorf("make a DTLS certificate: %w", err)
	}
	c := certificate{Certificate: *cert}
	prints, err := cert.GetFingerprints()
	if err != nil {
		return certificate{}, fmt.Errorf("hash the DTLS certificate: %w", err)
	}
	for _, f := range prints {
		if f.Algorithm != "sha-256" {
			continue
		}
		if hash, err := hex.DecodeString(strings.ReplaceAll(f.Value, ":", "")); err == nil && copy(c.hash[:], hash) == len(c.hash) {
			return c, nil
		}
	}
	return certificate{}, errors.New("hash the DTLS certificate: pion has no SHA-256 of it")
}
