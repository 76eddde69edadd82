package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
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
	tlsCert, tlsKey    string // files; both or none
	trustedProxies     string // as given; see proxies
	limits             limits
	allow              allowances
	logFormat          string
	logLevel           string
	trustDotEnv        bool
	given              string // names of the flags in the command line, separated by spaces
}

// variableOf are the variables whose place a flag takes.
var variableOf = map[string]string{"port": "PORT", "keys-file": "API_KEYS_FILE", "secret-file": "SIGNALING_SECRET",
	"turn-url": "TURN_URL", "turn-secret-file": "TURN_SECRET"}

// aims are the secrets of this command. Who is named in the keys file gets tokens, signed with the signaling secret, and
// for a token credentials, made with the TURN secret, which peers show the TURN server. Who knows the signaling secret
// makes tokens for whomever the keys file names.
var aims = []dotenv.Aim{
	{Secret: "SIGNALING_SECRET", At: []string{"API_KEYS_FILE"}},
	{Secret: "TURN_SECRET", At: []string{"TURN_URL", "API_KEYS_FILE", "SIGNALING_SECRET"}},
	{Secret: "API_KEYS_FILE", At: []string{"SIGNALING_SECRET"}, What: "the API keys"},
}

// limits are those of signaling.Config, 0 for its defaults.
type limits struct{ connections, perAddress, guesses, queue, queueTotal int }

// allowances weaken the server.
type allowances struct{ weakSecrets, anonymousTURN bool }

const usageText = `usage: chatixia-signaling [flags]

The signaling server of a mesh, which introduces peers to each other. It needs a file of API keys, or -dev.

-dev is for trying things out on one machine, all of whose users and programs may be any peer. It takes requests
from this machine only, and refuses what a proxy or a web page of another host sends; but a tunnel, or a proxy that
adds nothing to a request, looks like a program on this machine. Never let one lead here.

Flags:
`

const environmentText = `
Environment variables (a flag takes precedence over its variable; an empty variable counts as unset):
  PORT              -port
  API_KEYS_FILE     -keys-file: {"keys": {"<key>": {"peer_id": "agent-001", "role": "agent"}}}; a key has at
                    least 16 bytes
  SIGNALING_SECRET  signs the tokens; at least 32 random bytes (default: random at every start, which
                    suffices for a single server: clients fetch new tokens)
  TURN_URL          -turn-url
  TURN_SECRET       coturn's static-auth-secret, needed with TURN_URL; at least 32 bytes

A file .env in the working directory may set any of them; variables that are already set keep their value. A
secret that is not in the file itself, or keys file that it does not name, is not used with a keys file, signaling
secret or TURN server of the file, unless -` + dotenv.TrustFlag + ` or
` + dotenv.TrustVariable + `=1 allows it.
Secrets are read from files (-secret-file, -turn-secret-file) or variables: the values of flags are visible
in the process list. What weakens the server (-dev, -allow-...) has a flag only, so that no .env file can do it.

A quarter more TCP connections are accepted than -max-connections and -max-per-address allow WebSockets; when there are
too many, a new one takes the place of the one that has been without a request for longest. Behind a reverse proxy all
clients have one address, unless -trusted-proxies names the proxy's.

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
	fs.StringVar(&s.tlsCert, "tls-cert", "", "serve TLS with the certificate, and what leads to its authority, in this PEM `file`; it is read again when it changes")
	fs.StringVar(&s.tlsKey, "tls-key", "", "the certificate's key is in this PEM `file`")
	fs.StringVar(&s.trustedProxies, "trusted-proxies", "", "the last of X-Forwarded-For is the client's address in requests from these `addresses` or networks, such as 10.0.0.1,10.1.0.0/16")
	s.limits.define(fs)
	fs.BoolVar(&s.allow.weakSecrets, "allow-weak-secrets", false, "accept short secrets and keys, which can be guessed")
	fs.BoolVar(&s.allow.anonymousTURN, "allow-anonymous-turn", false, "give TURN credentials to anyone who asks, as the sidecars of chatixia-mesh do")
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
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return s, fmt.Errorf("-tls-cert and -tls-key belong together: set both or none; %w", errUsage)
	}
	if err := s.limits.check(); err != nil {
		return s, err
	}
	if _, err := s.proxies(); err != nil {
		return s, err
	}
	var err error
	if s.secret, err = secret("SIGNALING_SECRET", env, "-secret-file", secretFile); err != nil {
		return s, err
	}
	s.turnSecret, err = secret("TURN_SECRET", env, "-turn-secret-file", turnSecretFile)
	return s, err
}

// define adds the flags. Their defaults are those of package signaling.
func (l *limits) define(fs *flag.FlagSet) {
	fs.IntVar(&l.connections, "max-connections", 0, "at most `n` WebSockets (default 10000, or what the limit of open files allows)")
	fs.IntVar(&l.perAddress, "max-per-address", 0, "at most `n` WebSockets from one address, or IPv6 network of 64 bits (default 1000, or half of -max-connections, but 100 or more)")
	fs.IntVar(&l.guesses, "max-guesses", 0, "at most `n` wrong keys and tokens from one address per minute, then 429 (default 300)")
	fs.IntVar(&l.queue, "max-queue", 0, "at most so many `bytes` of memory for what is queued for one peer (default 4194304)")
	fs.IntVar(&l.queueTotal, "max-queue-total", 0, "at most so many `bytes` for all peers (default 64 times -max-queue)")
}

func (l *limits) check() error {
	for name, n := range map[string]int{"-max-connections": l.connections, "-max-per-address": l.perAddress,
		"-max-guesses": l.guesses, "-max-queue": l.queue, "-max-queue-total": l.queueTotal} {
		if n < 0 {
			return fmt.Errorf("%s: %d is negative; %w", name, n, errUsage)
		}
	}
	return nil
}

// proxies parses -trusted-proxies.
func (s *settings) proxies() (all []netip.Prefix, err error) {
	for _, text := range strings.FieldsFunc(s.trustedProxies, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("-trusted-proxies: %q is not an IP address or network; %w", text, errUsage)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		all = append(all, p)
	}
	return all, nil
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
