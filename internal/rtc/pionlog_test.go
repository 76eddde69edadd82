//go:build !js

package rtc_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// tracedMesh links agents that log at level trace, and returns their log and the ICE credentials in their SDP.
func tracedMesh(t *testing.T, messages int, edit ...func(*rtc.Config)) (log string, ufrags, pwds []string) {
	t.Helper()
	h := newHub(t)
	var mu sync.Mutex
	seen := func(m signal.Message) []signal.Message {
		if m.Type == signal.Offer || m.Type == signal.Answer {
			var d signal.Description
			if err := json.Unmarshal(m.Payload, &d); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ufrags = append(ufrags, credential(d.SDP, "ufrag"))
			pwds = append(pwds, credential(d.SDP, "pwd"))
		}
		return []signal.Message{m}
	}
	h.setFilter(seen)
	var out testutil.LogBuffer
	edit = append([]func(*rtc.Config){func(c *rtc.Config) { c.Log = zerolog.New(&out).Level(zerolog.TraceLevel) }}, edit...)
	var as []*agent
	for _, id := range []string{"a", "b", "c"} {
		as = append(as, start(t, h, id, edit...).join())
	}
	linked(t, as...)
	for i := range messages {
		for _, x := range as {
			for _, y := range as {
				if x != y {
					send(t, x.peer(y.id), message(i, 100))
				}
			}
		}
	}
	for _, x := range as {
		for _, y := range as {
			if x != y {
				testutil.Eventually(t, "all messages", func() bool { return len(x.received(y.id)) == messages })
			}
		}
	}
	for _, x := range as {
		h.leave(x.id)
		x.close(t)
	}
	mu.Lock()
	defer mu.Unlock()
	return out.String(), ufrags, pwds
}

func credential(sdp, name string) string {
	if m := regexp.MustCompile(`a=ice-` + name + `:(\S+)`).FindStringSubmatch(sdp); m != nil {
		return m[1]
	}
	return ""
}

// pion's log is off unless asked for, and ours has a few lines for each link and none for each message.
func TestLogIsShort(t *testing.T) {
	log, _, _ := tracedMesh(t, 100)
	lines := strings.Count(log, "\n")
	t.Logf("%d lines", lines)
	if strings.Contains(log, `"pion":`) {
		t.Errorf("pion's log:\n%s", log)
	}
	if ends := 6; lines > 10*ends {
		t.Errorf("%d lines for %d ends of links:\n%s", lines, ends, log)
	}
}

// What pion logs when asked to has no ICE password and no user name fragment in it.
func TestPionLogIsRedacted(t *testing.T) {
	log, ufrags, pwds := tracedMesh(t, 2, func(c *rtc.Config) { c.LogWebRTC = true })
	if n := strings.Count(log, `"pion":`); n < 100 {
		t.Errorf("%d lines of pion's", n)
	}
	if len(pwds) < 6 {
		t.Fatalf("%d passwords seen", len(pwds))
	}
	for i, secrets := range [][]string{ufrags, pwds} {
		for _, s := range secrets {
			if len(s) < 4 {
				t.Fatalf("not a credential: %q", s)
			}
			for line := range strings.Lines(log) {
				if strings.Contains(line, s) {
					t.Errorf("secret %d: %s", i, line)
					break
				}
			}
		}
	}
}
