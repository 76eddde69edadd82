//go:build !js

package rtc

import "regexp"

// What redact takes for a secret: what a label calls one, and any run of characters as long as the shortest
// ICE password (RFC 8445, 5.3: 22). A user name is one too, since it is that of a TURN account or made of the
// two ufrags.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`(?i)([a-z_-]*(?:ufrag|pwd|passw(?:or)?d|credential|secret|token|username|key)s?["']?\s*[:= ]\s*)` +
		`("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\[[^\]]*\]|[^\s,;)}\]]+)`),
	regexp.MustCompile(`()[A-Za-z0-9+/]{22,}`),
}

// redact returns a message without passwords and keys.
func redact(msg string) string {
	for _, secret := range secrets {
		msg = secret.ReplaceAllString(msg, "${1}[redacted]")
	}
	return msg
}
