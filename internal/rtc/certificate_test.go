//go:build !js

package rtc_test

import (
	"encoding/json"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

var fingerprintLine = regexp.MustCompile(`a=fingerprint:sha-256 [0-9A-F:]{95}`)

// A node that has run for weeks makes links with a certificate that has not expired. Those that are up keep theirs, also
// when they are repaired, and the proofs of identity are about the right one.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	c := newAuthority(t)
	h := newHub(t)
	ca, cb := newCable(t), newCable(t)
	var mu sync.Mutex
	shown := map[string][]string{} // the fingerprints of a, by the peer to which it has shown them
	h.setFilter(func(m signal.Message) []signal.Message {
		var d signal.Description
		if json.Unmarshal(m.Payload, &d) == nil && m.PeerID == "a" && d.SDP != "" {
			mu.Lock()
			shown[m.TargetID] = append(shown[m.TargetID], fingerprintLine.FindString(d.SDP))
			mu.Unlock()
		}
		return []signal.Message{m}
	})
	var age atomic.Int64
	clock := func(cfg *rtc.Config) {
		cfg.Now(func() time.Time { return time.Now().Add(time.Duration(age.Load())) })
	}
	a := start(t, h, "a", clock, c.with("a", identity.Off), func(cfg *rtc.Config) { cfg.UseNet(ca) }).join()
	b := start(t, h, "b", c.with("b", identity.Off), func(cfg *rtc.Config) { cfg.UseNet(cb) }).join()
	linked(t, a, b)

	age.Store(int64(29 * 24 * time.Hour))
	x := start(t, h, "x", c.with("x", identity.Off)).join()
	linked(t, a, x)
	ca.cut.Store(true)
	cb.cut.Store(true)
	testutil.Eventually(t, "a restart", func() bool { return a.Recovering("b") && b.Recovering("a") })
	ca.cut.Store(false)
	cb.cut.Store(false)
	testutil.Eventually(t, "the end of the repair", func() bool { return !a.Recovering("b") && !b.Recovering("a") })

	mu.Lock()
	defer mu.Unlock()
	old, latest := shown["b"], shown["x"]
	if len(old) < 2 || len(latest) == 0 || old[0] == "" || latest[0] == "" {
		t.Fatalf("a has shown b %q and x %q", old, latest)
	}
	if latest[0] == old[0] {
		t.Error("a new link has the certificate of a month ago")
	}
	if last := old[len(old)-1]; last != old[0] {
		t.Errorf("the repaired link has another certificate: %s, then %s", old[0], last)
	}
	if a.peer("b").Proof().Key.IsZero() || x.peer("a").Proof().Key.IsZero() {
		t.Error("a link without its proof")
	}
}
