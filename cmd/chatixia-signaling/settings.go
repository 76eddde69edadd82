package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/chatixia-ai/mesh/internal/dotenv"
)

// errUsage marks an error in the command line.
var errUsage = errors.New("try -h")

// errVersion means that only the version was asked for.
var errVersion = errors.New("version")

// settings are the values of flags and environment variables.
type settings struct {
	addr, port         string
	keysFile           string
	secret, turnSecret string
	turnURL            string
	dev                bool
	logFormat          string
	logLevel           string
	trustDotEnv        bool
	given              string // names of the flags in the command line, separated by spaces
}

// variableOf are the variables whose place a flag takes.
var variableOf = map[string]string{"port": "PORT", "keys-file": "API_KEYS_FILE", "secret-file": "SIGNALING_SECRET",
	"turn-url": "TURN_URL", "turn-secret-file": "TURN_SECRET"}

// aims are the secrets of this command: who is named in the keys file gets tokens signed with the one, and peers
// show the TURN server credentials made with the other.
var aims = []dotenv.Aim{
	{Secret: "SIGNALING_SECRET", At: []string{"API_KEYS_FILE"}},
	{Secret: "TURN_SECRET", At: []string{"TURN_URL"}},
}

const usageText = `usage: chatixia-signaling [flags]

The signaling server of a mesh, which introduces peers to each other. It needs a file of API keys, or -dev.

Flags:
`

const environmentText = `
Environment variables (a flag takes precedence over its variable; an empty variable counts as unset):
  PORT              -port
  API_KEYS_FILE     -keys-file: {"keys": {"<key>": {"peer_id": "agent-001", "role": "agent"}}}
  SIGNALING_SECRET  signs the tokens; at least 32 random bytes (default: random at every start, which
                    suffices for a single server: clients fetch new tokens)
  TURN_URL          -turn-url
  TURN_SECRET       coturn's static-auth-secret, needed with TURN_URL

A file .env in the working directory may set any of them; variables that are already set keep their value. A
secret that is not in the file itself is not used with a keys file or TURN server that the file names, unless
-` + dotenv.TrustFlag + ` or ` + dotenv.TrustVariable + `=1 allows it.
Secrets are read from files (-secret-file, -turn-secret-file) or variables: the values of flags are visible
in the process list.

Exit status: 0 on SIGINT and SIGTERM, 1 on errors, 2 for invalid flags.
`

// parseSettings reads flags, with defaults from the environment. It returns errVersion for -version.
func parseSettings(args []string, env func(string) string, output io.Writer) (settings, error) {
	var s settings
	var secretFile, turnSecretFile string
	fs := flag.NewFlagSet("chatixia-signaling", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are returned, and printed once
	fs.StringVar(&s.addr, "addr", "", "listen on this `address` (default: every address; 127.0.0.1 with -dev)")
	fs.StringVar(&s.port, "port", cmp.Or(env("PORT"), "8080"), "listen on this TCP `port`; 0 picks a free one (default 8080)")
	fs.StringVar(&s.keysFile, "keys-file", env("API_KEYS_FILE"), "read API keys from this JSON `file`")
	fs.StringVar(&secretFile, "secret-file", "", "read the secret from this `file` instead of SIGNALING_SECRET")
	fs.StringVar(&s.turnURL, "turn-url", env("TURN_URL"), "`URL` of the TURN server that peers are told to use, such as turn:turn.example.org:3478")
	fs.StringVar(&turnSecretFile, "turn-secret-file", "", "read the TURN secret from this `file` instead of TURN_SECRET")
	fs.BoolVar(&s.dev, "dev", false, "development mode, for clients on this machine only: no API keys file; the key of a client is its peer id")
	fs.StringVar(&s.logFormat, "log-format", "text", "`format` of the log: text or json")
	fs.StringVar(&s.logLevel, "log-level", "info", "lowest `level` to log: trace, debug, info, warn, error or disabled")
	showVersion := fs.Bool("version", false, "print the version and exit")
	fs.BoolVar(&s.trustDotEnv, dotenv.TrustFlag, false, dotenv.TrustUsage)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			printUsage(fs, output)
			return s, err
		}
		return s, fmt.Errorf("%w; %w", err, errUsage)
	}
	fs.Visit(func(f *flag.Flag) { s.given += f.Name + " " })
	if *showVersion {
		return s, errVersion
	}
	if fs.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; %w", fs.Arg(0), errUsage)
	}
	if _, err := strconv.ParseUint(s.port, 10, 16); err != nil {
		return s, fmt.Errorf("-port (or PORT): %q is not a number from 0 to 65535; %w", s.port, errUsage)
	}
	var err error
	if s.secret, err = secret("SIGNALING_SECRET", env, "-secret-file", secretFile); err != nil {
		return s, err
	}
	s.turnSecret, err = secret("TURN_SECRET", env, "-turn-secret-file", turnSecretFile)
	return s, err
}

// printUsage prints the help, without defaults that come from the environment.
func printUsage(fs *flag.FlagSet, w io.Writer) {
	fs.VisitAll(func(f *flag.Flag) {
		switch f.Name {
		case "port", "keys-file", "turn-url":
			f.DefValue = ""
		}
	})
	fs.SetOutput(w)
	_, _ = io.WriteString(w, usageText)
	fs.PrintDefaults()
	_, _ = io.WriteString(w, environmentText)
}

// secret returns the content of the file at path, without line breaks at its end, or the variable if path is empty.
func secret(variable string, env func(string) string, flagName, path string) (string, error) {
	if path == "" {
		return env(variable), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flagName, err)
	}
	text := strings.TrimRight(strings.TrimPrefix(string(b), "\uFEFF"), "\r\n") // without the byte order mark of some editors
	if text == "" {
		return "", fmt.Errorf("%s: %s is empty", flagName, path)
	}
	return text, nil
}
