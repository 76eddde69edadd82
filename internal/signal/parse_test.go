package signal

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseRegister(t *testing.T) {
	ms := func(n int64) *int64 { return &n }
	for payload, want := range map[string]struct {
		started *int64
		ifFree  bool
		err     string // a part of it
	}{
		``:                                {},
		`null`:                            {},
		`{}`:                              {},
		`{"started":5,"if_free":true}`:    {started: ms(5), ifFree: true},
		`{"STARTED":5}`:                   {err: "started: written in another case"},
		`{"if_free":true,"If_Free":true}`: {err: "if_free: written in another case"},
		`{"started":5,"started":6}`:       {err: "started: given twice"},
		`{"started":null,"other":[1]}`:    {},
		`[]`:                              {err: "payload: not an object"},
		`7`:                               {err: "payload: not an object"},
		`{"started":-1}`:                  {err: "started: not a Unix time"},
		`{"started":1.5}`:                 {err: "started: not a Unix time"},
		`{"started":"5"}`:                 {err: "started: not a Unix time"},
		`{"started":5,"if_free":"true"}`:  {err: "if_free: not true or false"},
	} {
		got, err := ParseRegister([]byte(payload))
		if want.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), want.err) {
				t.Errorf("%s: got %v, want %s", payload, err, want.err)
			}
			continue
		}
		same := got.Started == want.started || got.Started != nil && want.started != nil && *got.Started == *want.started
		if err != nil || got.IfFree != want.ifFree || !same {
			t.Errorf("%s: got %+v, %v", payload, got, err)
		}
	}
}

func TestCheckICEURL(t *testing.T) {
	for url, want := range map[string]string{ // what is wrong; "" for nothing
		"stun:example.org":            "",
		"stuns:example.org:5349":      "",
		"turn:10.0.0.1?transport=udp": "",
		"turns:[::1]:443":             "",
		"stun:[2001:db8::1]":          "",
		"example.org":                 "scheme",
		"http://example.org":          "scheme",
		"stun:a?transport=udp":        "transport",
		"turn:a?transport=sctp":       "transport",
		"stun:":                       "must follow",
		"stun://a":                    "must follow",
		"stun:u@a":                    "user name",
		"stun:a b":                    "must follow",
		"stun:a:0":                    "port",
		"stun:a:65536":                "port",
		"stun:a:http":                 "port",
		"stun:::1":                    "too many colons",
		"stun:[::1":                   "missing",
		"stun:[a:b]:1":                "not a host name",
		"stun::3478":                  "not a host name",
	} {
		err := checkICEURL(url)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
}

// The vector was made with openssl dgst -sha1 -hmac secret -binary | base64.
func TestTURNCredentials(t *testing.T) {
	user, password := TURNCredentials("secret", time.Unix(1700000000, 0))
	if user != "1700000000:mesh" || password != "vhdLisSDyH7rG+fKLVUtOKJbd/E=" {
		t.Errorf("got %s, %s", user, password)
	}
}

func TestFieldError(t *testing.T) {
	cause := errors.New("it is empty")
	err := &FieldError{Field: "URL", Err: cause}
	if err.Error() != "URL: it is empty" || !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}
