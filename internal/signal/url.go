package signal

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// CheckURL returns nil if raw is an absolute URL with a host and one of schemes, else an error that says how to
// mend it. The error never contains user information, query or fragment, which may be secret.
func CheckURL(raw string, schemes ...string) error {
	want := "start it with " + strings.Join(schemes, ":// or ") + "://"
	u, err := url.Parse(raw)
	if err == nil && slices.Contains(schemes, u.Scheme) {
		if u.Hostname() == "" {
			return fmt.Errorf("%q has no host", public(u))
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return fmt.Errorf("%q: the port must be 1 to 65535", public(u))
			}
		}
		return nil
	}
	if raw == "" {
		return errors.New("empty; " + want)
	}
	if fixed := withScheme(raw, schemes[0]); fixed != "" {
		return fmt.Errorf("no scheme; %s; did you mean %q?", want, fixed)
	}
	switch {
	case err != nil && strings.Contains(raw, "@"):
		return errors.New("not a URL; special characters in the user name and password before @ must be percent-encoded")
	case err != nil:
		return fmt.Errorf("not a URL: %w", bare(err))
	}
	text := fmt.Sprintf("%q has the scheme %q; %s", public(u), u.Scheme, want)
	if u.Scheme == "" {
		text = "no scheme; " + want
	}
	if other := counterparts[u.Scheme]; slices.Contains(schemes, other) {
		u.Scheme = other
		text += fmt.Sprintf("; did you mean %q?", public(u))
	}
	return errors.New(text)
}

// counterparts are the schemes for the other kind of request to the same server.
var counterparts = map[string]string{"http": "ws", "https": "wss", "ws": "http", "wss": "https"}

// withScheme returns raw, which is not empty, with scheme in front and without secrets, or "" if raw lacks
// more than a scheme.
func withScheme(raw, scheme string) string {
	// What precedes a colon is a host, a user, or another scheme, which is neither followed by a port nor
	// by a password.
	before, after, colon := strings.Cut(raw, ":")
	if colon && !strings.ContainsAny(before, "[/?#") {
		port := strings.IndexFunc(after, func(r rune) bool { return r < '0' || r > '9' }) != 0
		if strings.HasPrefix(after, "//") || !port && !strings.Contains(after, "@") {
			return ""
		}
	}
	u, err := url.Parse(scheme + "://" + raw)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return public(u)
}

// public returns u without what may be secret: user information, query (the token is there) and fragment.
func public(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
