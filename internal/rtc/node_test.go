//go:build !js

package rtc_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

var verbose = flag.Bool("rtc.log", false, "show the log of nodes")

func TestMain(m *testing.M) {
	flag.Parse()
	// Those that run side by side wait: for ICE to notice something, or to give up.
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// agent is a node with what it needs in a test.
type agent struct {
	*rtc.Node
	*recorder
	id string
	h  *hub
}

// start makes a node. It is not registered yet.
func start(t *testing.T, h *hub, id string, edit ...func(*rtc.Config)) *agent {
	t.Helper()
	cfg := rtc.Config{}
	cfg.Quick()
	cfg.OnlyLoopback()
	if *verbose {
		cfg.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.DebugLevel).With().Str("self", id).Timestamp().Logger()
	} else {
		cfg.Log = zerolog.New(os.Stderr).Level(zerolog.Disabled)
	}
	for _, e := range edit {
		e(&cfg)
	}
	a := &agent{recorder: newRecorder(t, id), id: id, h: h}
	var err error
	if a.Node, err = rtc.New(cfg, port{h, id}, a.recorder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close(t) })
	return a
}

// close closes the node without waiting for peers that do not read.
func (a *agent) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_ = a.Node.Close(ctx)
}

func (a *agent) join() *agent {
	a.h.join(a.id, a.Node)
	return a
}

// linked waits until agents have links to each other.
func linked(t *testing.T, as ...*agent) {
	t.Helper()
	for _, a := range as {
		for _, b := range as {
			if a != b {
				testutil.Eventually(t, a.id+" has a link to "+b.id, func() bool { return a.peer(b.id) != nil })
			}
		}
	}
}

func pair(t *testing.T, edit ...func(*rtc.Config)) (h *hub, a, b *agent) {
	t.Helper()
	h = newHub(t)
	a, b = start(t, h, "a", edit...).join(), start(t, h, "b", edit...).join()
	linked(t, a, b)
	return h, a, b
}

// message returns a message of a length, with a number in it.
func message(n, size int) string {
	head := fmt.Sprintf(`{"type":"t","n":%d,"x":"`, n)
	return head + strings.Repeat("x", max(0, size-len(head)-2)) + `"}`
}

func send(t *testing.T, p *rtc.Peer, msg string) {
	t.Helper()
	if p == nil {
		t.Fatal("no such peer")
	}
	if err := p.Send([]byte(msg), wire.LaneOrdered); err != nil {
		t.Fatalf("send to %s: %v", p.ID(), err)
	}
}

// A name server that does not answer keeps no node from connecting or closing.
func TestSilentNameServer(t *testing.T) {
	h := newHub(t)
	asked := make(chan string, 100)
	silent := func(c *rtc.Config) {
		c.ICEServers = []signal.ICEServer{{URLs: []string{"stun:stun.example:3478"}}}
		c.Lookup(func(ctx context.Context, _, host string) ([]netip.Addr, error) {
			asked <- host
			<-ctx.Done()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Error("the lookup ended by its own bound, and closing waited for that")
			}
			return nil, ctx.Err()
		})
	}
	a, b := start(t, h, "a", silent).join(), start(t, h, "b", silent).join()
	linked(t, a, b)
	if host := <-asked; host != "stun.example" {
		t.Errorf("asked for %s", host)
	}
	a.close(t)
	b.close(t)
}
