package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// A .env file, which anybody may have put into the working directory, must not use a secret from elsewhere: it could
// have tokens signed for keys of its own, and credentials of the TURN server shown to another one.
func TestDotEnvDoesNotAimSecrets(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "keys.json", keysFile)
	write(t, "secret", strings.Repeat("hush", 9))
	signs := vars{"SIGNALING_SECRET": strings.Repeat("hush", 9)}
	server := vars{"TURN_URL": "turn:t", "TURN_SECRET": strings.Repeat("hush", 9)}
	turns := vars{"API_KEYS_FILE": "keys.json", "TURN_SECRET": strings.Repeat("hush", 9)}
	for _, c := range []struct {
		name, dotenv string
		env          vars
		args         []string
		err, log     string
	}{
		{"keys file", "API_KEYS_FILE=keys.json", signs, nil, "API_KEYS_FILE", ""},
		{"keys file, secret of a file", "API_KEYS_FILE=keys.json", nil, []string{"-secret-file", "secret"}, "API_KEYS_FILE", ""},
		{"TURN server", "TURN_URL=turn:t", turns, nil, "TURN_URL", ""},
		{"keys file, whose keys get credentials", "API_KEYS_FILE=keys.json", server, nil, "API_KEYS_FILE", ""},
		{"signaling secret, by which anyone makes tokens for credentials", "SIGNALING_SECRET=" + strings.Repeat("hush", 9), server, []string{"-keys-file", "keys.json"}, "SIGNALING_SECRET", ""},
		{"signaling secret, by which anyone is a peer of the keys file", "SIGNALING_SECRET=" + strings.Repeat("hush", 9), vars{"API_KEYS_FILE": "keys.json"}, nil, "SIGNALING_SECRET", ""},
		{"it cannot vouch for itself", "TURN_URL=turn:t\nMESH_TRUST_DOTENV_WITH_SECRETS=1", turns, nil, "TURN_URL", ""},
		{"its own secrets", "API_KEYS_FILE=keys.json\nTURN_URL=turn:t\nTURN_SECRET=" + strings.Repeat("hush", 9) + "\nSIGNALING_SECRET=" + strings.Repeat("hush", 9), nil, nil, "",
			`"variables":["API_KEYS_FILE","SIGNALING_SECRET","TURN_SECRET","TURN_URL"]`},
		{"no secret", "API_KEYS_FILE=keys.json", nil, nil, "", `"variables":["API_KEYS_FILE"]`},
		{"a flag in its place", "TURN_URL=turn:other", turns, []string{"-turn-url", "turn:t"}, "", ""},
		{"the same flag in its place", "TURN_URL=turn:t", turns, []string{"-turn-url", "turn:t"}, "", ""},
		{"trusted", "TURN_URL=turn:t", turns, []string{"-trust-dotenv-with-secrets"}, "", ".env is trusted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, ".env", c.dotenv)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // listens, and stops at once
			var log bytes.Buffer
			err := run(ctx, append([]string{"-addr", "127.0.0.1", "-port", "0", "-log-format", "json"}, c.args...), c.env.lookup, &log)
			if c.err == "" && (err != nil && !strings.Contains(err.Error(), "canceled") || !strings.Contains(log.String(), c.log)) {
				t.Errorf("%v; want %s in the log:\n%s", err, c.log, &log)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "-trust-dotenv-with-secrets")) {
				t.Errorf("error %v, want one about %s", err, c.err)
			}
			if strings.Contains(log.String(), "hush") {
				t.Errorf("the log tells a secret:\n%s", &log)
			}
		})
	}
}
