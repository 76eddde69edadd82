package signal

import "testing"

func TestHide(t *testing.T) {
	for _, c := range []struct{ text, secret, want string }{
		{"key ak_1 is not known", "ak_1", "key *** is not known"},
		{"ak_1 ak_1 (ak_1), ak_1", "ak_1", "*** *** (***), ***"},
		{`use "https://127.0.0.1/u"`, "u", `use "https://127.0.0.1/***"`},
		{"https", "tt", "https"},
		{"a+b", "+b", "a+b"},
		{"no key", "", "no key"},
		{"key \xff is not known", "\xff", "key *** is not known"},
	} {
		if got := hide(c.text, c.secret); got != c.want {
			t.Errorf("hide(%q, %q) = %q, want %q", c.text, c.secret, got, c.want)
		}
	}
}
