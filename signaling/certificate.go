package signaling

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Certificate is a TLS certificate in two files. They are read at every handshake, so that a renewed certificate is
// used at once; connections that are open keep theirs. As long as the files cannot be used, which is normal between the
// writing of the one and of the other, the last certificate stays in use.
type Certificate struct {
	certFile, keyFile string
	log, failures     zerolog.Logger

	mu        sync.Mutex
	cert, key []byte // what is in the files
	pair      *tls.Certificate
}

// LoadCertificate reads a certificate, with what leads to its authority, and its private key from PEM files. Its Get is
// for a tls.Config. It logs to log when the files have changed, or cannot be used any more.
func LoadCertificate(certFile, keyFile string, log zerolog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log,
		failures: log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.readLocked(); err != nil {
		return nil, fmt.Errorf("signaling: TLS certificate: %w", err)
	}
	return c, nil
}

// Get is a tls.Config's GetCertificate. Its error is always nil.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.readLocked()
	switch {
	case err != nil:
		c.failures.Warn().Err(err).Msg("TLS certificate files cannot be used; keeping the last certificate")
	case changed:
		c.log.Info().Str("file", c.certFile).Time("not_after", c.pair.Leaf.NotAfter).Msg("TLS certificate reloaded")
	}
	return c.pair, nil
}

// readLocked reads the files, and reports whether they hold another certificate than before.
func (c *Certificate) readLocked() (changed bool, err error) {
	cert, err := readPEM(c.certFile)
	if err != nil {
		return false, err
	}
	key, err := readPEM(c.keyFile)
	if err != nil {
		return false, err
	}
	if bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("%s with the key %s: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.key, c.pair = cert, key, &pair
	return true, nil
}

// readPEM reads a file without the byte order mark that some editors put at its start.
func readPEM(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	return bytes.TrimPrefix(b, []byte("\ufeff")), err
}
