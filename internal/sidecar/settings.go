package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Variable is the name of the environment variable that marks a process as a sidecar and holds its
// Settings.
const Variable = "MESH_SIDECAR"

// Settings are those of a sidecar: plain data with every default filled in, so that it means the same
// in the process of the agent and, as JSON in one environment variable, in a forked one.
type Settings struct {
	Signaling       signal.Settings    `json:"signaling"`
	Network         Network            `json:"network"`
	Identity        identity.Settings  `json:"identity"`
	Limits          wire.Limits        `json:"limits"`
	ICEServers      []signal.ICEServer `json:"ice_servers,omitempty"`
	ExtraICEServers []signal.ICEServer `json:"extra_ice_servers,omitempty"`
	TURNSecret      string             `json:"turn_secret,omitempty"` // makes credentials for those of ICEServers that have none

	// The rest is for a process of its own.

	Socket string `json:"socket,omitempty"` // where it listens
	// Token is the secret that the agent's hello must carry; empty where the socket's owner is proof
	// enough.
	Token string `json:"token,omitempty"`
	// WatchStdin says that the end of stdin is the end of the agent.
	WatchStdin bool   `json:"watch_stdin,omitempty"`
	LogLevel   string `json:"log_level,omitempty"`
}

// ParseSettings parses the value of the environment variable.
func ParseSettings(raw string) (Settings, error) {
	var s Settings
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return s, fmt.Errorf("settings of the sidecar in %s: %w", Variable, err)
	}
	return s, nil
}

// Environ returns the settings as an environment variable, NAME=VALUE.
func (s *Settings) Environ() (string, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	return Variable + "=" + string(raw), nil
}

func (s *Settings) signaling(log zerolog.Logger) signal.Config {
	return signal.Config{Settings: s.Signaling, FetchICE: len(s.ICEServers) == 0, Log: log}
}

// Check returns a *signal.FieldError or *identity.FieldError for settings that cannot work, nil if there are none. It
// reads the files that they name, and makes that of known peers if there is none.
func (s *Settings) Check(log zerolog.Logger) error {
	if !InMemory(s.Signaling.URL) {
		if err := s.signaling(zerolog.Nop()).Check(); err != nil {
			return err
		}
	}
	_, err := s.openIdentity(log)
	return err
}

// openIdentity reads the files of the identity. A file of known peers that was not there is one that may have got lost,
// so the log says that there is a new one.
func (s *Settings) openIdentity(log zerolog.Logger) (*identity.Identity, error) {
	id, err := identity.Open(s.Identity)
	if err == nil && id.Forgetful() {
		log.Warn().Str("file", s.Identity.KnownPeersFile).
			Msg("there was no file of known peers, so there is a new one: the first key that each peer shows is taken for its own")
	}
	return id, err
}

// errNotOurID means that signaling has given this agent an id for which its key does not sign.
var errNotOurID = errors.New("the signaling server has given this agent an id that its key does not sign for")

// CheckCredentials blocks until the signaling server has decided about the API key. It returns nil if the
// key was accepted, an error that wraps signal.ErrRefused or signal.ErrMisconfigured, or ctx.Err().
func CheckCredentials(ctx context.Context, set Settings) error {
	return signal.New(set.signaling(zerolog.Nop())).CheckCredentials(ctx)
}

// baseVariables are the environment variables of chatixia-mesh's own sidecar.
var baseVariables = []string{"SIGNALING_URL", "TOKEN_URL", "API_KEY", "IPC_SOCKET",
	"TURN_URL", "TURN_SECRET", "TURN_USERNAME", "TURN_PASSWORD", "ICE_TRANSPORT_POLICY"}

// BaseEnviron returns env with the settings as chatixia-mesh's own sidecar reads them, so that it can be
// the executable of mode Binary. What has no value is left out: that sidecar takes an empty variable for
// a value.
func (s *Settings) BaseEnviron(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(baseVariables, name)
	})
	add := func(name, value string) {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	add("SIGNALING_URL", s.Signaling.URL)
	add("TOKEN_URL", s.Signaling.TokenURL)
	add("API_KEY", s.Signaling.APIKey)
	add("IPC_SOCKET", s.Socket)
	if s.Network.RelayOnly {
		add("ICE_TRANSPORT_POLICY", "relay")
	}
	if url, server := s.turnServer(); url != "" {
		add("TURN_URL", url)
		add("TURN_SECRET", s.TURNSecret)
		add("TURN_USERNAME", server.Username)
		add("TURN_PASSWORD", server.Credential)
	}
	return env
}

// turnServer returns the first TURN server: chatixia-mesh's sidecar takes only one.
func (s *Settings) turnServer() (url string, server signal.ICEServer) {
	for _, server := range s.ICEServers {
		for _, url := range server.URLs {
			if strings.HasPrefix(url, "turn") {
				return url, server
			}
		}
	}
	return "", signal.ICEServer{}
}
