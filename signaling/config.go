package signaling

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh/internal/signal"
)

// fill sets the defaults, and returns an error about the first field that cannot be used.
func (cfg *Config) fill() error {
	if err := cfg.fillSecrets(); err != nil {
		return err
	}
	if err := cfg.fillLimits(); err != nil {
		return err
	}
	if cfg.Dev && len(cfg.TrustedProxies) > 0 {
		return invalid("TrustedProxies", "development mode takes no requests through proxies; leave either TrustedProxies or Dev unset")
	}
	if err := cfg.checkICE(); err != nil {
		return err
	}
	if !cfg.Dev && !cfg.AllowWeakSecrets {
		return cfg.checkLengths()
	}
	return nil
}

// fillLimits sets the defaults of numbers and times.
func (cfg *Config) fillLimits() error {
	// Of the descriptors that there are, a fifth is for other requests than WebSockets: see sockets.
	if err := fillDefault("MaxConnections", &cfg.MaxConnections, min(DefaultMaxConnections, max(1, (maxSockets()-8)*4/5))); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value *int
		def   int
	}{
		{"MaxPerAddress", &cfg.MaxPerAddress, min(DefaultMaxPerAddress, max(100, cfg.MaxConnections/2))},
		{"MaxGuesses", &cfg.MaxGuesses, DefaultMaxGuesses},
		{"MaxMessage", &cfg.MaxMessage, DefaultMaxMessage},
		{"MaxQueue", &cfg.MaxQueue, DefaultMaxQueue},
	} {
		if err := fillDefault(f.name, f.value, f.def); err != nil {
			return err
		}
	}
	if err := fillDefault("MaxQueueTotal", &cfg.MaxQueueTotal, min(cfg.MaxQueue, math.MaxInt/64)*64); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"PingInterval", &cfg.PingInterval, DefaultPingInterval},
		{"IdleTimeout", &cfg.IdleTimeout, DefaultIdleTimeout},
		{"TURNLifetime", &cfg.TURNLifetime, DefaultTURNLifetime},
	} {
		if err := fillDefault(f.name, f.value, f.def); err != nil {
			return err
		}
	}
	return nil
}

// invalid returns an error about one field.
func invalid(field, text string) error { return errors.New(field + ": " + text) }

func fillDefault[T int | time.Duration](name string, value *T, def T) error {
	if *value < 0 {
		return fmt.Errorf("%s: %v is negative", name, *value)
	}
	if *value == 0 {
		*value = def
	}
	return nil
}

func (cfg *Config) fillSecrets() error {
	if cfg.Dev {
		if len(cfg.Keys) > 0 {
			return invalid("Keys", "development mode uses none; leave either Keys or Dev unset")
		}
		if cfg.Secret == "" {
			cfg.Secret = rand.Text() + rand.Text()
		}
		return nil
	}
	if len(cfg.Keys) == 0 {
		return invalid("Keys", "empty, so that no peer could connect; set Keys, or Dev for development on this machine")
	}
	for key, k := range cfg.Keys {
		if err := checkKey(key, k); err != nil {
			return invalid("Keys", err.Error())
		}
	}
	if cfg.Secret == "" {
		return invalid("Secret", "empty; set at least 32 random bytes, for example two crypto/rand.Text()")
	}
	if slices.Contains(exampleSecrets, cfg.Secret) {
		return invalid("Secret", "from a published example, so that anyone can sign tokens; set at least 32 random bytes")
	}
	return nil
}

// checkLengths returns an error about the first secret that can be guessed.
func (cfg *Config) checkLengths() error {
	const instead = "; make one with openssl rand -hex 32, or set AllowWeakSecrets for as long as it takes to replace it"
	if n := len(cfg.Secret); n < MinSecret {
		return invalid("Secret", fmt.Sprintf("%d bytes, at least %d are required: whoever has a token could guess it%s", n, MinSecret, instead))
	}
	if n := len(cfg.TURNSecret); cfg.TURNURL != "" && n < MinSecret {
		return invalid("TURNSecret", fmt.Sprintf("%d bytes, at least %d are required: whoever has credentials could guess it%s", n, MinSecret, instead))
	}
	var short []string // peer ids
	for key, k := range cfg.Keys {
		if len(key) < MinKey {
			short = append(short, fmt.Sprintf("%q", k.PeerID))
		}
	}
	if len(short) > 0 {
		slices.Sort(short)
		more := ""
		if n := len(short); n > 5 {
			short, more = short[:5], fmt.Sprintf(" and of %d more peers", n-5)
		}
		return invalid("Keys", fmt.Sprintf("the key of %s%s is shorter than %d bytes, so that it could be guessed%s",
			strings.Join(short, ", of "), more, MinKey, instead))
	}
	return nil
}

func (cfg *Config) checkICE() error {
	for i, s := range cfg.ICEServers {
		if err := signal.ICEServer(s).Check(); err != nil {
			return fmt.Errorf("ICEServers[%d]: %w", i, err)
		}
	}
	switch {
	case cfg.TURNURL == "" && cfg.TURNSecret == "":
		return nil
	case cfg.TURNURL == "":
		return invalid("TURNURL", "empty, but TURNSecret is set")
	case cfg.TURNSecret == "":
		return invalid("TURNSecret", "empty, but TURNURL is set; a TURN server with fixed credentials goes into ICEServers")
	case !strings.HasPrefix(cfg.TURNURL, "turn:") && !strings.HasPrefix(cfg.TURNURL, "turns:"):
		return invalid("TURNURL", fmt.Sprintf("%q must start with turn: or turns:", signal.PublicICEURL(cfg.TURNURL)))
	case strings.Contains(cfg.TURNURL, "@"):
		return invalid("TURNURL", fmt.Sprintf("%q: no user name and password may stand in the URL, which all peers are told; TURNSecret makes them",
			signal.PublicICEURL(cfg.TURNURL)))
	}
	return nil
}
