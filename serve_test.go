//go:build linux || darwin

package mesh

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// A sidecar command that cannot work says why.
func TestServeSidecarFails(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer refusing.Close()
	taken := socketPath(t)
	listener, err := sock.Listen(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, tt := range map[string]struct {
		change func(*Config)
		field  string // of a ConfigError
		is     error
	}{
		"setting":     {func(c *Config) { c.SignalingURL = "http://h" }, "SignalingURL", nil},
		"socket":      {func(c *Config) { c.Socket = "/" + strings.Repeat("x", 200) }, "Socket", sock.ErrPath},
		"second one":  {func(c *Config) { c.Socket = taken }, "Socket", sock.ErrInUse},
		"credentials": {func(c *Config) { c.TokenURL = refusing.URL }, "", ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := alone(InProcess) // a mode says nothing here
			cfg.Socket = socketPath(t)
			tt.change(&cfg)
			err := ServeSidecar(t.Context(), cfg)
			var ce *ConfigError
			if errors.As(err, &ce) != (tt.field != "") || ce != nil && ce.Field != tt.field || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v", err)
			}
		})
	}
}
