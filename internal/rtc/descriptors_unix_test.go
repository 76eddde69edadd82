//go:build unix

package rtc_test

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// With no descriptors left, the reason is that, on both sides.
func TestNoDescriptors(t *testing.T) {
	const child = "RTC_TEST_NO_DESCRIPTORS"
	if os.Getenv(child) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestNoDescriptors$", "-test.v")
		c.Env = append(os.Environ(), child+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for name, full := range map[string]string{"the offerer's process": "a", "the answerer's process": "b"} {
		t.Run(name, func(t *testing.T) { noDescriptors(t, full) })
	}
}

func noDescriptors(t *testing.T, full string) {
	h := newHub(t)
	var log testutil.LogBuffer
	cfg := func(c *rtc.Config) {
		c.ConnectTimeout = 2 * time.Second
		c.Log = zerolog.New(&log).Level(zerolog.InfoLevel)
	}
	a, b := start(t, h, "a", cfg), start(t, h, "b", cfg).join()
	// Descriptors are the whole process's, so they run out when the one side is done.
	var once sync.Once
	var restore func()
	spend := func() { once.Do(func() { restore = testutil.NoMoreDescriptors(t) }) }
	defer func() { restore() }()
	if full == "a" {
		spend()
	}
	h.setFilter(func(m signal.Message) []signal.Message {
		if m.Type == signal.Offer && full == "b" {
			spend()
		}
		return []signal.Message{m}
	})
	a.Connect("b")
	a.join()
	err := a.failure(t, "b")
	if full == "a" && (err.Code != wire.CodeInternal || !strings.Contains(err.Text, "too many open files")) {
		t.Errorf("Connect: %v", err)
	}
	t.Logf("Connect: %v", err)
	peer := map[string]string{"a": "b", "b": "a"}[full]
	testutil.Eventually(t, "the reason in the log", func() bool {
		return hasLine(&log, `"level":"warn"`, `"peer":"`+peer+`"`, "too many open files")
	})
	a.close(t)
	b.close(t)
}
