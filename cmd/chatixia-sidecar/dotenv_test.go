//go:build linux || darwin

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A .env file, which anybody may have put into the working directory, must not have a key from elsewhere sent where it
// says.
func TestDotEnvDoesNotAimSecrets(t *testing.T) {
	requests := make(chan *http.Request, 100)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		w.WriteHeader(http.StatusUnauthorized) // ends the command
	}))
	defer thief.Close()
	ws := "ws" + strings.TrimPrefix(thief.URL, "http") + "/ws"
	const nowhere = "SIGNALING_URL=ws://192.0.2.1/ws" // TEST-NET-1: reached through a proxy only
	trust := "MESH_TRUST_DOTENV_WITH_SECRETS=1"
	for _, c := range []struct {
		name, dotenv string
		env, args    []string
		sent         string // the key that goes to the thief; "" for none
		says         string
	}{
		{name: "token URL", dotenv: "TOKEN_URL=" + thief.URL, env: []string{"API_KEY=ak_mine"}, says: "TOKEN_URL"},
		{name: "signaling URL", dotenv: "SIGNALING_URL=" + ws, env: []string{"SIGNALING_URL", "API_KEY=ak_mine"}, says: "SIGNALING_URL"},
		{name: "signaling URL, where only the token would go", dotenv: "SIGNALING_URL=" + ws, env: []string{"SIGNALING_URL", "TOKEN_URL=http://127.0.0.1:1", "API_KEY=ak_mine"}, says: "SIGNALING_URL"},
		{name: "key of a file", dotenv: "TOKEN_URL=" + thief.URL, args: []string{"-api-key-file", "key"}, says: "TOKEN_URL"},
		{name: "key in the file as well", dotenv: "API_KEY=ak_theirs\nTOKEN_URL=" + thief.URL, env: []string{"API_KEY=ak_mine"}, says: "TOKEN_URL"},
		{name: "proxy", dotenv: "HTTP_PROXY=" + thief.URL, env: []string{nowhere, "API_KEY=ak_mine"}, says: "HTTP_PROXY"},
		{name: "proxy in lower case", dotenv: "http_proxy=" + thief.URL, env: []string{nowhere, "API_KEY=ak_mine"}, says: "http_proxy"},
		{name: "certificate authorities", dotenv: "SSL_CERT_FILE=key", env: []string{"API_KEY=ak_mine"}, says: "SSL_CERT_FILE"},
		{name: "TURN secret", dotenv: "TURN_URL=turn:127.0.0.1:1", env: []string{"TURN_SECRET=hush"}, says: "TURN_SECRET"},
		{name: "TURN password", dotenv: "TURN_URL=turn:127.0.0.1:1\nTURN_USERNAME=u", env: []string{"TURN_PASSWORD=hush"}, says: "TURN_PASSWORD"},
		{name: "password in the signaling URL", dotenv: "HTTP_PROXY=" + thief.URL, env: []string{"SIGNALING_URL=ws://user:hush@192.0.2.1/ws"}, says: "the credentials for SIGNALING_URL"},
		{name: "password in the URL of a flag", dotenv: "HTTP_PROXY=" + thief.URL, args: []string{"-signaling-url", "ws://user:hush@192.0.2.1/ws"}, says: "HTTP_PROXY"},
		{name: "password in the token URL", dotenv: "HTTP_PROXY=" + thief.URL, env: []string{"TOKEN_URL=http://user:hush@192.0.2.1"}, says: "the credentials for TOKEN_URL"},
		{name: "token for a password", dotenv: "SIGNALING_URL=" + ws, env: []string{"SIGNALING_URL", "TOKEN_URL=http://user:hush@127.0.0.1:1"}, says: "SIGNALING_URL"},
		{name: "token for a client certificate", dotenv: "SIGNALING_URL=" + ws, env: []string{"SIGNALING_URL", "TOKEN_URL=https://127.0.0.1:1"}, args: []string{"-cert-file", "key", "-key-file", "key"}, says: "the credentials for TOKEN_URL"},
		{name: "it cannot vouch for itself", dotenv: trust + "\nTOKEN_URL=" + thief.URL, env: []string{"API_KEY=ak_mine"}, says: "TOKEN_URL"},

		{name: "its own key", dotenv: "API_KEY=ak_theirs\nTOKEN_URL=" + thief.URL, sent: "ak_theirs", says: "API_KEY"},
		{name: "no key", dotenv: "TOKEN_URL=" + thief.URL, sent: "ak_dev_001"},
		{name: "no key, and a proxy", dotenv: "HTTP_PROXY=" + thief.URL, env: []string{nowhere}, sent: "ak_dev_001"},
		{name: "its own password", dotenv: "TOKEN_URL=http://user:hush@" + strings.TrimPrefix(thief.URL, "http://"), sent: "ak_dev_001"},
		{name: "a flag in its place", dotenv: "TOKEN_URL=http://127.0.0.1:1", env: []string{"API_KEY=ak_mine"}, args: []string{"-token-url", thief.URL}, sent: "ak_mine"},
		{name: "a variable in its place", dotenv: "TOKEN_URL=http://127.0.0.1:1", env: []string{"API_KEY=ak_mine", "TOKEN_URL=" + thief.URL}, sent: "ak_mine"},
		{name: "trusted by flag", dotenv: "TOKEN_URL=" + thief.URL, env: []string{"API_KEY=ak_mine"}, args: []string{"-trust-dotenv-with-secrets"}, sent: "ak_mine", says: "trusted"},
		{name: "trusted by variable", dotenv: "TOKEN_URL=" + thief.URL, env: []string{"API_KEY=ak_mine", trust}, sent: "ak_mine", says: "trusted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, stderr := command(t, append([]string{"-socket", "s"}, c.args...)...)
			for _, v := range c.env {
				if v == "SIGNALING_URL" { // unset
					cmd.Env = []string{cmd.Env[0], cmd.Env[2]}
					continue
				}
				cmd.Env = append(cmd.Env, v)
			}
			for name, text := range map[string]string{".env": c.dotenv, "key": "ak_mine"} {
				if err := os.WriteFile(filepath.Join(cmd.Dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			start(t, cmd)
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("%v, want exit status 1:\n%s", err, stderr)
			}
			sent := ""
			for len(requests) > 0 {
				sent += (<-requests).Header.Get("X-API-Key")
			}
			if sent != c.sent {
				t.Errorf("the key %q was sent there, want %q:\n%s", sent, c.sent, stderr)
			}
			log := stderr.String()
			if !strings.Contains(log, c.says) || strings.Contains(log, "ak_") || strings.Contains(log, "hush") {
				t.Errorf("want a log with %q and without secrets:\n%s", c.says, log)
			}
			if c.sent == "" && (!strings.Contains(log, filepath.Join(cmd.Dir, ".env")) || !strings.Contains(log, "-trust-dotenv-with-secrets")) {
				t.Errorf("the error does not name the file and the way out:\n%s", log)
			}
		})
	}
}
