package mesh

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

func TestSlog(t *testing.T) {
	var out bytes.Buffer
	strip := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := Slog(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: strip}))
	log.Debug().Msg("not this")
	log.Info().Str("peer", "bob\n").Int("n", 7).Float64("share", 0.5).Strs("list", []string{"a"}).Dur("took", time.Second).Msg("linked")
	log.Warn().Err(ErrPeerGone).Send()
	log.Error().Bool("last", true).Msg("over")
	want := `level=INFO msg=linked peer="bob\n" n=7 share=0.5 list=[a] took=1000
level=WARN msg="" error="mesh: the peer is gone"
level=ERROR msg=over last=true
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	if Slog(slog.DiscardHandler).GetLevel() != zerolog.Disabled {
		t.Error("a handler that discards everything is given something")
	}
}

// The whole log of a mesh passes.
func TestSlogOfMesh(t *testing.T) {
	s := newStage(t, "")
	var out testutil.LogBuffer
	alice := s.startAs(t, InProcess, "alice", Identity{}, func(cfg *Config) { cfg.Logger = Slog(slog.NewJSONHandler(&out, nil)) })
	alice.end(t)
	if got := out.String(); !strings.Contains(got, `"msg":"registered with the signaling server","peer_id":"alice"`) {
		t.Errorf("the log is %s", got)
	}
}
