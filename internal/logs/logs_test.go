package logs_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

func TestCut(t *testing.T) {
	for _, short := range []string{"", "x", strings.Repeat("x", logs.MaxField)} {
		if got := logs.Cut(short); got != short {
			t.Errorf("%q became %q", short, got)
		}
	}
	for shift := range utf8.UTFMax {
		long := strings.Repeat("x", shift) + strings.Repeat("\U0001F600", logs.MaxField)
		got := logs.Cut([]byte(long))
		text, cut := strings.CutSuffix(got, "...")
		if !cut || !utf8.ValidString(text) || !strings.HasPrefix(long, text) || len(text) > logs.MaxField || len(text) <= logs.MaxField-utf8.UTFMax {
			t.Errorf("%d bytes became %q", len(long), got)
		}
	}
	if got := logs.Cut(strings.Repeat("\x80", 1000)); len(got) > logs.MaxField+3 {
		t.Errorf("%d bytes of what is no text", len(got))
	}
	if got := logs.Error(nil) + logs.Error(errors.New("no")); got != "no" {
		t.Errorf("got %q", got)
	}
}

// Records beyond a rate are dropped, and later ones kept again.
func TestSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b testutil.LogBuffer
		log := logs.Sampled(zerolog.New(&b))
		for range 2 {
			for range 10_000 {
				log.Warn().Msg("again")
			}
			<-time.After(time.Minute)
		}
		if n := b.Count("again"); n != 200 {
			t.Errorf("%d records are kept", n)
		}
	})
}
