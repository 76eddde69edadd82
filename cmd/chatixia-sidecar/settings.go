//go:build !js

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/dotenv"
)

// errUsage marks an error in the command line.
var errUsage = errors.New("try -h")

// errVersion means that only the version was asked for.
var errVersion = errors.New("version")

// publicSTUN is the server that chatixia-mesh's sidecar always uses. It sees the addresses of its users, so
// the library does not use it by default.
const publicSTUN = "stun:stun.l.google.com:19302"

// settings are the values of the flags.
type settings struct {
	environ map[string]string // variables that flags set, for the environment of the process
	network mesh.Network
	noSTUN  bool
	// trustDotEnv lets .env say where secrets go that are not in it.
	trustDotEnv bool
	logFormat   string
	logLevel    string
}

// variables are what a .env file may set: what this command reads, and what the Go library reads on the way to the
// signaling server.
var variables = append([]string{"SIGNALING_URL", "TOKEN_URL", "API_KEY", "IPC_SOCKET", "TURN_URL", "TURN_SECRET",
	"TURN_USERNAME", "TURN_PASSWORD", "ICE_TRANSPORT_POLICY", "MESH_RECOVERY_TIMEOUT", "MESH_INTERFACES", "MESH_ADDRESSES", "MESH_NO_LOCAL",
	"RUST_LOG", "NO_PROXY", "no_proxy"}, detours...)

// detours are the variables by which the connection to the signaling server can be led elsewhere or read on the way.
var detours = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// aims returns the secrets of this command. The default API key is none. But where a user name and password in a URL, or a
// client certificate, are asked for as well, they are, and so is the token that the token URL gives for them.
func (s *settings) aims(env *dotenv.Env) []dotenv.Aim {
	all := []dotenv.Aim{
		{Secret: "API_KEY", At: append([]string{"TOKEN_URL", "SIGNALING_URL"}, detours...)},
		{Secret: "TURN_SECRET", At: []string{"TURN_URL"}},
		{Secret: "TURN_PASSWORD", At: []string{"TURN_URL"}},
	}
	for _, a := range []dotenv.Aim{
		{Secret: "TOKEN_URL", At: append([]string{"SIGNALING_URL"}, detours...)}, // the token goes to the one from the other
		{Secret: "SIGNALING_URL", At: detours},
	} {
		value, given := s.environ[a.Secret]
		if !given {
			value = env.Get(a.Secret)
		}
		u, err := url.Parse(value)
		if s.network.CertFile != "" || err == nil && u.User != nil {
			a.What = "the credentials for " + a.Secret
			all = append(all, a)
		}
	}
	return all
}

const usageText = `usage: chatixia-sidecar [flags]

The WebRTC side of one agent: listens on a Unix socket, serves the first agent that connects, and exits
when that agent disconnects. Agents of other users are refused.

Flags:
`

const environmentText = `
Environment variables (a flag takes precedence over its variable; an empty variable counts as unset):
  SIGNALING_URL         -signaling-url
  TOKEN_URL             -token-url
  API_KEY               key that the token URL exchanges for the id of this peer (default ak_dev_001)
  IPC_SOCKET            -socket
  TURN_URL              -turn-url
  TURN_SECRET           secret from which short-lived credentials for the TURN server are made, or
  TURN_USERNAME         -turn-username, and
  TURN_PASSWORD         password for the TURN server
  ICE_TRANSPORT_POLICY  relay means -relay-only
  MESH_RECOVERY_TIMEOUT -recovery-timeout
  MESH_INTERFACES       -interfaces
  MESH_ADDRESSES        -addresses
  MESH_NO_LOCAL         -no-local
  MESH_IDENTITY_KEY, MESH_NAME, MESH_IDENTITY_POLICY, MESH_IDENTITY_REQUIRED,
  MESH_KNOWN_PEERS, MESH_ROOTS, MESH_MEMBERSHIP, MESH_REVOKED
                        -identity-key, -mesh-name, -identity-policy, -identity-required,
                        -known-peers, -roots, -membership, -revoked
  RUST_LOG              -log-level; of several directives the one without a target, or the first

A file .env in the working directory may set any of them but those of the identity, and the variables of proxies
and certificate authorities; variables that are already set keep their value. A secret that is not in the file itself,
user:password@ in a URL included, is not sent where the file says, unless -` + dotenv.TrustFlag + ` or ` + dotenv.TrustVariable + `=1 allows it.
Secrets are read from files (-api-key-file, -turn-secret-file, -turn-password-file) or variables: the
values of flags are visible in the process list.
Without TURN_URL the signaling server decides which STUN and TURN servers are used. The public STUN server
` + publicSTUN + ` is used as well, unless -no-stun or -relay-only is set.

Exit status: 0 when the agent has disconnected or on SIGINT and SIGTERM, 1 on errors (also when the server
refuses the API key or cannot be used as configured, and when a sidecar with the same key was started later), 2
for invalid flags.
`

// parseSettings reads flags, and RUST_LOG from the environment.
func parseSettings(args []string, output io.Writer) (settings, error) {
	s := settings{environ: make(map[string]string)}
	fs := flag.NewFlagSet("chatixia-sidecar", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are returned, and printed by main
	s.variable(fs, "signaling-url", "SIGNALING_URL", "`URL` of the signaling server (default ws://localhost:8080/ws)")
	s.variable(fs, "token-url", "TOKEN_URL", "`URL` at which the API key is exchanged for a token (default: api/token next to the signaling URL)")
	s.variable(fs, "socket", "IPC_SOCKET", "`path` of the Unix socket to listen on (default /tmp/chatixia-sidecar.sock, a name that any local user can hold: among others use one in $XDG_RUNTIME_DIR)")
	s.variable(fs, "turn-url", "TURN_URL", "`URL` of the TURN server, such as turn:turn.example.org:3478")
	s.variable(fs, "turn-username", "TURN_USERNAME", "user `name` for the TURN server")
	s.file(fs, "api-key-file", "API_KEY", "read the API key from this `file` instead of API_KEY")
	s.file(fs, "turn-secret-file", "TURN_SECRET", "read the TURN secret from this `file` instead of TURN_SECRET")
	s.file(fs, "turn-password-file", "TURN_PASSWORD", "read the TURN password from this `file` instead of TURN_PASSWORD")
	s.identity(fs)
	relay := fs.Bool("relay-only", strings.EqualFold(os.Getenv("ICE_TRANSPORT_POLICY"), "relay"), "connect to peers only through the TURN server")
	s.variable(fs, "recovery-timeout", "MESH_RECOVERY_TIMEOUT", "keep an interrupted link to a peer for this `duration`, such as 90s (default 60s)")
	s.variable(fs, "interfaces", "MESH_INTERFACES", "use only the network interfaces of these `names` or patterns, separated by commas, such as eth0,wg* (default all)")
	s.variable(fs, "addresses", "MESH_ADDRESSES", "use only addresses of these `networks`, separated by commas, such as 10.0.0.0/8,fd00::/8 (default all)")
	fs.BoolFunc("no-local", "have links to agents of this user on this host go the way of all others, and not over a Unix socket", func(value string) error {
		s.environ["MESH_NO_LOCAL"] = value
		return nil
	})
	fs.Func("udp-port", "use one UDP `port` for all peers, \"any\" for one that the system picks (default: one for each connection)", s.udpPort)
	fs.StringVar(&s.network.CAFile, "ca-file", "", "trust the certificate authorities in this PEM `file` as well when connecting to the signaling server, and to TURN servers over TLS")
	fs.StringVar(&s.network.CertFile, "cert-file", "", "present the certificate in this PEM `file` to the signaling server")
	fs.StringVar(&s.network.KeyFile, "key-file", "", "the private key of -cert-file, a PEM `file`")
	fs.BoolVar(&s.network.MDNS, "mdns", false, "resolve the .local names that browsers use to hide their addresses")
	fs.BoolVar(&s.trustDotEnv, dotenv.TrustFlag, false, dotenv.TrustUsage)
	fs.BoolVar(&s.noSTUN, "no-stun", false, "do not use the public STUN server")
	fs.StringVar(&s.logFormat, "log-format", "text", "`format` of the log: text or json")
	level := rustLevel(os.Getenv("RUST_LOG"))
	if level == "" {
		level = "info"
	}
	fs.StringVar(&s.logLevel, "log-level", level, "lowest `level` to log: trace, debug, info, warn, error or disabled (default info)")
	fs.BoolVar(&s.network.LogWebRTC, "log-webrtc", false, "log ICE, DTLS and SCTP as well, at level debug and below; passwords are redacted")
	showVersion := fs.Bool("version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(fs, output)
			return s, err
		}
		return s, fmt.Errorf("%w; %w", err, errUsage)
	}
	if *showVersion {
		return s, errVersion
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; %w", fs.Arg(0), errUsage)
	}
	s.environ["ICE_TRANSPORT_POLICY"] = "all"
	if *relay {
		s.environ["ICE_TRANSPORT_POLICY"] = "relay"
	}
	return s, nil
}

// identity defines the flags that say who this agent is, and who its peers must be.
func (s *settings) identity(fs *flag.FlagSet) {
	s.variable(fs, "identity-key", "MESH_IDENTITY_KEY", "`file` with the agent's private key, from mesh key new")
	s.variable(fs, "mesh-name", "MESH_NAME", "`name` of the mesh, the same for all of its agents; part of what keys sign")
	s.variable(fs, "identity-policy", "MESH_IDENTITY_POLICY", "the `policy` about the identities of peers: off, known or member (default off, unless -known-peers or -roots is set, which need one)")
	fs.BoolFunc("identity-required", "refuse peers without an identity; with -identity-policy member they are refused in any case", func(value string) error {
		required, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("want true or false")
		}
		s.environ["MESH_IDENTITY_REQUIRED"] = strconv.FormatBool(required)
		return nil
	})
	s.variable(fs, "known-peers", "MESH_KNOWN_PEERS", "`file` that keeps the keys of peers, for -identity-policy known")
	s.variable(fs, "roots", "MESH_ROOTS", "public `keys` that sign the members of the mesh, separated by commas, for -identity-policy member")
	s.variable(fs, "membership", "MESH_MEMBERSHIP", "`file` with the statement about this agent, from mesh key sign")
	s.variable(fs, "revoked", "MESH_REVOKED", "`file` with public keys that are refused, one a line")
}

// udpPort reads the value of -udp-port.
func (s *settings) udpPort(value string) error {
	if value == "any" {
		s.network.UDPPort = mesh.AnyUDPPort
		return nil
	}
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil || port == 0 {
		return errors.New("want a port from 1 to 65535, or any")
	}
	s.network.UDPPort = int(port)
	return nil
}

// variable defines a flag that sets an environment variable.
func (s *settings) variable(fs *flag.FlagSet, name, env, usage string) {
	fs.Func(name, usage, func(value string) error {
		s.environ[env] = value
		return nil
	})
}

// file defines a flag that names a file with the value of an environment variable.
func (s *settings) file(fs *flag.FlagSet, name, env, usage string) {
	fs.Func(name, usage, func(path string) error {
		text, err := readText(path)
		if err != nil {
			return err
		}
		value := strings.TrimRight(text, "\r\n")
		if value == "" {
			return errors.New("the file is empty")
		}
		s.environ[env] = value
		return nil
	})
}

// stunServers returns the public STUN server, unless it is disabled or only relayed connections are allowed. Call
// it when the variables of environ are in the environment.
func (s *settings) stunServers() []mesh.ICEServer {
	if s.noSTUN || os.Getenv("ICE_TRANSPORT_POLICY") == "relay" {
		return nil
	}
	return []mesh.ICEServer{{URLs: []string{publicSTUN}}}
}

// printUsage prints the help, with defaults that do not depend on the environment.
func printUsage(fs *flag.FlagSet, w io.Writer) {
	fs.VisitAll(func(f *flag.Flag) {
		switch f.Name {
		case "log-level":
			f.DefValue = ""
		case "relay-only":
			f.DefValue = "false"
		}
	})
	fs.SetOutput(w)
	_, _ = io.WriteString(w, usageText)
	fs.PrintDefaults()
	_, _ = io.WriteString(w, environmentText)
}
