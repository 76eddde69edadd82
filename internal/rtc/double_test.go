//go:build !js

package rtc_test

import (
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// Over a path on which a repetition was lost, too, packets are sent twice, within bounds, and arrive once.
func TestLossyPathGetsPacketsTwice(t *testing.T) {
	t.Parallel()
	for name, port := range map[string]int{"own sockets": 0, "shared port": rtc.AnyUDPPort} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 500
			_, a, b, ca, _ := cables(t, func(c *rtc.Config) { c.UDPPort = port })
			ca.silent.Store(true)
			if err := a.peer("b").Send([]byte(message(0, 500)), wire.LaneOrdered); err != nil {
				t.Fatal(err)
			}
			testutil.Eventually(t, "a packet that is lost again and again", func() bool { return ca.dropped.Load() >= 4 && a.Doubles("b") })
			before, start := ca.twice.Load(), time.Now()
			ca.silent.Store(false)
			for i := 1; i < n; i++ {
				if err := a.peer("b").Send([]byte(message(i, 1000)), wire.LaneOrdered); err != nil {
					t.Fatal(err)
				}
			}
			testutil.Eventually(t, "all messages", func() bool { return len(b.received("a")) >= n })
			twice, most := ca.twice.Load()-before, rtc.MostDoubled(time.Since(start))
			if twice == 0 || twice > most {
				t.Errorf("%d packets were sent twice, want some, and no more than %d", twice, most)
			}
			for i, m := range b.received("a") {
				if m != message(i, len(m)) {
					t.Fatalf("message %d is %.40s", i, m)
				}
			}
		})
	}
}
