//go:build !js

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/dotenv"
)

// run serves one agent until it disconnects or ctx ends, neither of which is an error. It writes only to
// stderr. It puts the flags and .env into the environment of the process, from which the library takes its
// defaults.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	env, dotenvErr := dotenv.Load(".env", os.LookupEnv)
	if err := env.Export(variables); err != nil {
		return err
	}
	set, err := parseSettings(args, stderr)
	if err != nil {
		return err
	}
	log, err := newLogger(stderr, set.logFormat, set.logLevel)
	if err != nil {
		return err
	}
	for name := range set.environ {
		env.Override(name)
	}
	// Not by the environment: what it says there and is not used, the library logs.
	policy := mesh.IdentityPolicy(set.environ["MESH_IDENTITY_POLICY"])
	delete(set.environ, "MESH_IDENTITY_POLICY")
	if err := env.Report(log, dotenvErr, set.aims(env), set.trustDotEnv); err != nil {
		return err
	}
	for name, value := range set.environ {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	set.network.ExtraICEServers = set.stunServers()
	err = mesh.ServeSidecar(ctx, mesh.Config{Network: set.network, Identity: mesh.Identity{Policy: policy}, Logger: log})
	if err != nil {
		return withAdvice(err)
	}
	if ctx.Err() != nil {
		log.Info().Msg("stopped by a signal")
	} else {
		log.Info().Msg("agent disconnected")
	}
	return nil
}

// withAdvice adds to an error the flag and variable of this command that it is about.
func withAdvice(err error) error {
	if errors.Is(err, mesh.ErrRefused) {
		return fmt.Errorf("%w; set API_KEY or -api-key-file to a key that the server accepts", err)
	}
	var field *mesh.ConfigError
	if !errors.As(err, &field) {
		return err
	}
	for name, source := range map[string]string{
		"SignalingURL": "-signaling-url or SIGNALING_URL", "TokenURL": "-token-url or TOKEN_URL",
		"APIKey": "-api-key-file or API_KEY", "Socket": "-socket or IPC_SOCKET", "Network.UDPPort": "-udp-port",
		"Network.RecoveryTimeout": "-recovery-timeout or MESH_RECOVERY_TIMEOUT",
		"Network.Interfaces":      "-interfaces or MESH_INTERFACES", "Network.Addresses": "-addresses or MESH_ADDRESSES",
		"Network.NoLocal":  "-no-local or MESH_NO_LOCAL",
		"Identity.KeyFile": "-identity-key or MESH_IDENTITY_KEY", "Identity.Policy": "-identity-policy or MESH_IDENTITY_POLICY",
		"Identity.Required": "-identity-required or MESH_IDENTITY_REQUIRED", "Identity.KnownPeersFile": "-known-peers or MESH_KNOWN_PEERS",
		"Identity.Roots": "-roots or MESH_ROOTS", "Identity.MembershipFile": "-membership or MESH_MEMBERSHIP",
		"Identity.RevokedFile": "-revoked or MESH_REVOKED", "Identity.MeshName": "-mesh-name or MESH_NAME",
		"Network.CAFile": "-ca-file", "Network.CertFile": "-cert-file", "Network.KeyFile": "-key-file",
	} {
		if field.Field == name {
			return fmt.Errorf("%w (set by %s)", err, source)
		}
	}
	return err
}

// readText reads a file without the byte order mark that some editors put at its start.
func readText(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimPrefix(string(b), "\uFEFF"), err
}

func newLogger(w io.Writer, format, level string) (zerolog.Logger, error) {
	lvl, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), fmt.Errorf("-log-level: %q is not trace, debug, info, warn, error or disabled; %w", level, errUsage)
	}
	switch format {
	case "text":
		w = zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: time.DateTime}
	case "json":
	default:
		return zerolog.Nop(), fmt.Errorf("-log-format: %q is not text or json; %w", format, errUsage)
	}
	return zerolog.New(w).Level(lvl).With().Timestamp().Logger(), nil
}

// rustLevel returns the level in RUST_LOG as chatixia-mesh's sidecar understands it: directives such as
// "info" or "sidecar=debug,webrtc=warn". It is that of the directive without a target, else that of the
// first, else "".
func rustLevel(directives string) string {
	level := ""
	for d := range strings.SplitSeq(directives, ",") {
		target, l, scoped := strings.Cut(strings.TrimSpace(d), "=")
		if !scoped {
			l = target
		}
		l = strings.ToLower(strings.TrimSpace(l))
		if l == "off" {
			l = zerolog.Disabled.String()
		}
		if _, err := zerolog.ParseLevel(l); err != nil || l == "" {
			continue
		}
		if !scoped {
			return l
		}
		if level == "" {
			level = l
		}
	}
	return level
}
