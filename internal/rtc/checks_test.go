//go:build !js

package rtc_test

import (
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Paths to peers that are known not to be base peers are checked less often. The answerer knows the kind of peer from the
// offer, the offerer from the peer_list.
func TestSteadyPeers(t *testing.T) {
	const often, steady = 200 * time.Millisecond, 300 * time.Millisecond
	slow := func(c *rtc.Config) { c.ICEKeepalive(often); c.SteadyKeepalive(steady) }
	for _, c := range []struct {
		name string
		base []string // as the peer_list says
		want time.Duration
	}{
		{"the list does not say", nil, often},
		{"all are extended", []string{}, steady},
		{"another one is not", []string{"other"}, steady},
		{"perhaps not", []string{"b"}, often},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			h.base = c.base
			b := start(t, h, "b", slow).join()
			a := start(t, h, "a", slow).join()
			linked(t, a, b)
			if got := a.Keepalive("b"); got != c.want {
				t.Errorf("the offerer checks every %v, want %v", got, c.want)
			}
			if got := b.Keepalive("a"); got != steady {
				t.Errorf("the answerer checks every %v, want %v", got, steady)
			}
		})
	}
	t.Run("a base peer's offer", func(t *testing.T) {
		h := newHub(t)
		a := start(t, h, "a", slow).join()
		h.join("b", startBase(t, h, "b"))
		testutil.Eventually(t, "a link", func() bool { return a.peer("b") != nil })
		if got := a.Keepalive("b"); got != often {
			t.Errorf("checks every %v, want %v", got, often)
		}
	})
}
