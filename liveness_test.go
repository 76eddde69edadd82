package mesh

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A sidecar that does not respond to a ping for 15 s is ended, with that reason, and replaced; one that responds before is
// not, however often; nor is one that knows no ping.
func TestLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports testutil.Record[error]
		m, f := newFakeAgentWith(t, Config{OnError: reports.Add}, true, processLiveness)
		<-f.started
		began := time.Now()
		for range 5 {
			for line := f.heard(); line["type"] != "ping"; line = f.heard() {
				t.Errorf("the agent wrote %v", line)
			}
			time.Sleep(15*time.Second - 1)
			f.say(`{"type":"pong","payload":{}}`)
		}
		if d, want := time.Since(began), 5*25*time.Second-5; d != want {
			t.Errorf("five pings took %v, want %v", d, want)
		}
		if all := reports.All(); len(all) > 0 {
			t.Errorf("reported %v", all)
		}
		began = time.Now()
		if line := f.heard(); line["type"] != "ping" {
			t.Errorf("the agent wrote %v", line)
		}
		<-f.started
		// The next one is started after restartFirst, with jitter.
		if d := time.Since(began); d < 25*time.Second || d > 26*time.Second {
			t.Errorf("replaced after %v", d)
		}
		synctest.Wait()
		if all := reports.All(); len(all) != 1 || !errors.Is(all[0], ErrSidecarHung) || !errors.Is(all[0], ErrSidecarLost) || !strings.Contains(all[0].Error(), "does not respond") {
			t.Errorf("reported %v", all)
		}
		if m.ipc() == nil {
			t.Error("there is no sidecar")
		}
	})
}

// A sidecar that knows no ping gets none.
func TestLivenessOfOlderSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := newFakeAgentWith(t, Config{}, false, processLiveness)
		time.Sleep(time.Hour)
		if n := len(f.lines); n > 0 {
			t.Errorf("it was sent %q", <-f.lines)
		}
	})
}
