package signal

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// CheckURL reports why raw is not an absolute URL with one of schemes and a host. The error never repeats user
// information, query or fragment, which may be secret.
func CheckURL(raw string, schemes ...string) error {
	want := "start it with " + strings.Join(schemes, ":// or ") + "://"
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || !slices.Contains(schemes, u.Scheme) {
		if fixed := withScheme(raw, u, schemes[0]); fixed != "" {
			return fmt.Errorf("no scheme; %s; did you mean %q?", want, fixed)
		}
	}
	switch {
	case raw == "":
		return errors.New("empty; " + want)
	case err != nil && strings.Contains(raw, "@"):
		return errors.New("not a URL; special characters in the user name and the password before @ must be percent-encoded")
	case err != nil:
		// The text of a url.Error repeats the URL.
		return fmt.Errorf("not a URL: %w", bare(err))
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("%q has the scheme %q; %s", public(u), u.Scheme, want)
	case u.Hostname() == "":
		return fmt.Errorf("%q has no host", public(u))
	}
	return nil
}

// withScheme returns raw with scheme in front, without secrets, if that is all that it lacks.
func withScheme(raw string, parsed *url.URL, scheme string) string {
	if raw == "" || strings.Contains(raw, "://") || strings.HasPrefix(raw, "/") {
		return ""
	}
	if parsed != nil && parsed.Opaque != "" && !startsWithPort(parsed.Opaque) && !strings.Contains(raw, "@") {
		return "" // another scheme, such as mailto:
	}
	u, err := url.Parse(scheme + "://" + raw)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return public(u)
}

// startsWithPort reports whether s, what follows a colon, begins with digits that end there or at a slash.
func startsWithPort(s string) bool {
	port, _, _ := strings.Cut(s, "/")
	port, _, _ = strings.Cut(port, "?")
	return port != "" && strings.Trim(port, "0123456789") == ""
}

// public returns u without what may be secret: user information, query (the token is there) and fragment.
func public(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
