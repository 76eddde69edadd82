package logs_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/logs"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// What one source causes does not fill the log, hides nothing that another one causes, and no graver record of its own.
func TestOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b testutil.LogBuffer
		o := logs.NewOutside(zerolog.New(&b).Level(zerolog.InfoLevel), 400)
		for range 1000 {
			o.Debug("bob").Msg("chatter")
			o.Info("bob").Msg("noise")
			o.Warn("bob").Msg("nonsense")
		}
		o.Error("bob").Msg("panic")
		o.Info("carol").Msg("arrival")
		for text, want := range map[string]int{"chatter": 0, "noise": 40, "nonsense": 40, "panic": 1, "arrival": 1} {
			if got := b.Count(text); got != want {
				t.Errorf("%d records of %s, want %d", got, text, want)
			}
		}
		if !strings.Contains(b.String(), `"left_out":1920`) {
			t.Errorf("the log does not say how many are left out:\n%s", &b)
		}
		for i := range 1000 {
			o.Warn(fmt.Sprint("mallory-", i)).Msg("crowd")
		}
		if got := b.Count("crowd"); got != 400-82 {
			t.Errorf("%d records of a thousand sources", got)
		}
		<-time.After(10 * time.Second)
		for range 10 {
			o.Warn("bob").Msg("later")
		}
		if got := b.Count("later"); got != 2 {
			t.Errorf("%d records after 10 s", got)
		}
	})
}
