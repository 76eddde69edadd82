package signal

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
)

// httpClient returns the client for one request, whose context is ctx, with the certificates that the files hold now.
func (c Config) httpClient(ctx context.Context) (*http.Client, error) {
	hc := &http.Client{}
	if c.HTTPClient != nil {
		*hc = *c.HTTPClient
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if hc.Transport == nil {
		// Kept connections would only be goroutines to wait for: requests are minutes apart, and
		// net/http makes a WebSocket a connection of its own.
		hc.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
			// net/http lets a dial outlive its request.
			DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, addr)
			}}
	}
	if !c.usesFiles() {
		return hc, nil
	}
	t, ok := hc.Transport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("CAFile, CertFile: cannot be used with an HTTPClient whose transport is a %T", hc.Transport)
	}
	t = t.Clone()
	t.DisableKeepAlives = true
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{}
	}
	if err := c.addCertificates(t.TLSClientConfig); err != nil {
		return nil, err
	}
	hc.Transport = t
	return hc, nil
}

// addCertificates adds what the files hold to conf.
func (c Config) addCertificates(conf *tls.Config) error {
	if c.CAFile != "" {
		pem, err := readPEM(c.CAFile)
		if err != nil {
			return &FieldError{"CAFile", err}
		}
		if conf.RootCAs, err = rootPool(conf.RootCAs); err != nil {
			return err
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return &FieldError{"CAFile", fmt.Errorf("%s holds no PEM certificate", c.CAFile)}
		}
	}
	switch {
	case c.CertFile == "" && c.KeyFile == "":
		return nil
	case c.KeyFile == "":
		return &FieldError{"KeyFile", errors.New("empty, but CertFile is set; name the file of the certificate's private key")}
	case c.CertFile == "":
		return &FieldError{"CertFile", errors.New("empty, but KeyFile is set; name the file of the key's certificate")}
	}
	cert, err := readPEM(c.CertFile)
	if err != nil {
		return &FieldError{"CertFile", err}
	}
	key, err := readPEM(c.KeyFile)
	if err != nil {
		return &FieldError{"KeyFile", err}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return &FieldError{"CertFile", fmt.Errorf("%s with KeyFile %s: %w", c.CertFile, c.KeyFile, err)}
	}
	conf.Certificates = []tls.Certificate{pair}
	return nil
}

// RootCAs returns the authorities that are trusted, with those of CAFile as it is now; nil means the system's alone.
func (c Config) RootCAs() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	conf := &tls.Config{}
	err := Config{Settings: Settings{CAFile: c.CAFile}}.addCertificates(conf)
	return conf.RootCAs, err
}

// rootPool returns a copy of pool, or of the system's authorities if there is none.
func rootPool(pool *x509.CertPool) (*x509.CertPool, error) {
	if pool != nil {
		return pool.Clone(), nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, &FieldError{"CAFile", fmt.Errorf("cannot be added to the system's certificate authorities: %w", err)}
	}
	return pool, nil
}

// readPEM reads a file without the byte order mark that some editors put at its start.
func readPEM(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	return bytes.TrimPrefix(b, []byte("\uFEFF")), err
}
