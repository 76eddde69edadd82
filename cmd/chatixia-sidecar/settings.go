package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/chatixia-ai/mesh"
)

// errUsage marks what is wrong with the command line itself.
var errUsage = errors.New("try -h")

// publicSTUN is the server that chatixia's own sidecar always uses. It sees the addresses of its users,
// which is why the library does not.
const publicSTUN = "stun:stun.l.google.com:19302"

// settings are what the flags say beyond the environment.
type settings struct {
	environ   map[string]string // variables to set
	udpPort   int
	mdns      bool
	noSTUN    bool
	logFormat string
	logLevel  string
}

const usageText = `usage: chatixia-sidecar [flags]

The WebRTC side of one agent: waits on a Unix socket for the agent, serves it, and ends when the agent
is gone. Agents of other users are refused.

Flags:
`

const environmentText = `
Environment (a flag goes before its variable; an empty variable counts as unset):
  SIGNALING_URL         -signaling-url
  TOKEN_URL             -token-url
  API_KEY               presented to the token URL, decides which peer this is (default ak_dev_001)
  IPC_SOCKET            -socket
  TURN_URL              -turn-url
  TURN_SECRET           makes ephemeral credentials for the TURN server, or
  TURN_USERNAME         -turn-username, and
  TURN_PASSWORD         its password
  ICE_TRANSPORT_POLICY  relay means -relay-only
  RUST_LOG              -log-level; of several directives the one without a target, or the first

A file .env in the working directory may set any of them; what is already in the environment stays.
Secrets have files (-api-key-file, -turn-secret-file, -turn-password-file) but no flags: those show in
the process list.
Without TURN_URL the signaling server says which STUN and TURN servers to use. The public STUN server
` + publicSTUN + ` is used as well, unless -no-stun or -relay-only is set.

Exit status: 0 when the agent is gone or on SIGINT and SIGTERM, 1 on errors, among them credentials that
are refused, 2 for wrong flags.
`

// parseSettings reads flags, and RUST_LOG from the environment.
func parseSettings(args []string, output io.Writer) (settings, error) {
	s := settings{environ: make(map[string]string)}
	fs := flag.NewFlagSet("chatixia-sidecar", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are returned, and printed once
	s.variable(fs, "signaling-url", "SIGNALING_URL", "`URL` of the signaling server (default ws://localhost:8080/ws)")
	s.variable(fs, "token-url", "TOKEN_URL", "`URL` where the API key is exchanged for a token (default: api/token beside the signaling URL)")
	s.variable(fs, "socket", "IPC_SOCKET", "wait for the agent at this `path` (default /tmp/chatixia-sidecar.sock)")
	s.variable(fs, "turn-url", "TURN_URL", "use the TURN server at this `URL`, like turn:turn.example.org:3478")
	s.variable(fs, "turn-username", "TURN_USERNAME", "`name` for the TURN server")
	s.file(fs, "api-key-file", "API_KEY", "read the API key from this `file` instead of API_KEY")
	s.file(fs, "turn-secret-file", "TURN_SECRET", "read the TURN secret from this `file` instead of TURN_SECRET")
	s.file(fs, "turn-password-file", "TURN_PASSWORD", "read the TURN password from this `file` instead of TURN_PASSWORD")
	relay := fs.Bool("relay-only", strings.EqualFold(os.Getenv("ICE_TRANSPORT_POLICY"), "relay"), "no direct connections, everything passes the TURN server")
	fs.IntVar(&s.udpPort, "udp-port", 0, "use this one UDP `port` for all peers (default: one for each connection)")
	fs.BoolVar(&s.mdns, "mdns", false, "resolve the .local names behind which browsers hide their addresses")
	fs.BoolVar(&s.noSTUN, "no-stun", false, "do not use the public STUN server")
	fs.StringVar(&s.logFormat, "log-format", "text", "log in this `format`: text, json")
	level := rustLevel(os.Getenv("RUST_LOG"))
	if level == "" {
		level = "info"
	}
	fs.StringVar(&s.logLevel, "log-level", level, "log from this `level` on: trace, debug, info, warn, error, disabled (default info)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(fs, output)
			return s, err
		}
		return s, fmt.Errorf("%w; %w", err, errUsage)
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

// variable is a flag that stands for an environment variable.
func (s *settings) variable(fs *flag.FlagSet, name, env, usage string) {
	fs.Func(name, usage, func(value string) error {
		s.environ[env] = value
		return nil
	})
}

// file is a flag that names a file with the value of an environment variable.
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

// stunServers is the public STUN server, unless it is of no use or not wanted. It is called once environ
// is in the environment.
func (s *settings) stunServers() []mesh.ICEServer {
	if s.noSTUN || os.Getenv("ICE_TRANSPORT_POLICY") == "relay" {
		return nil
	}
	return []mesh.ICEServer{{URLs: []string{publicSTUN}}}
}

// printUsage leaves a default out that comes from the environment of this moment.
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
