//go:build !js

package rtc_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// hasLine reports whether one line of a log has all of these.
func hasLine(log *testutil.LogBuffer, parts ...string) bool {
	for line := range strings.Lines(log.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return true
		}
	}
	return false
}

// failure waits for ConnectFailed.
func (r *recorder) failure(t *testing.T, id string) *wire.Error {
	t.Helper()
	testutil.Eventually(t, "ConnectFailed", func() bool { return get(r, func() bool { return r.failed[id] != nil }) })
	return get(r, func() *wire.Error { return r.failed[id] })
}

// brokenNet is a network in which one thing fails.
type brokenNet struct {
	transport.Net
	listen, interfaces error
}

func (n brokenNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	if n.listen != nil {
		return nil, n.listen
	}
	return n.Net.ListenUDP(network, addr)
}

func (n brokenNet) Interfaces() ([]*transport.Interface, error) {
	if n.interfaces != nil {
		return nil, n.interfaces
	}
	return n.Net.Interfaces()
}

var fingerprint = regexp.MustCompile(`(a=fingerprint:sha-256 )([0-9A-F]{2})`)

// Whatever ends an attempt stands in the error of Connect, and in the log without asking for more.
func TestReasons(t *testing.T) {
	t.Parallel()
	network, err := rtc.NewNetwork(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	full := os.NewSyscallError("socket", syscall.EMFILE)
	turn := []signal.ICEServer{{URLs: []string{"turn:turn.example:3478"}, Username: "u", Credential: "c"}}
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		return nil, fmt.Errorf("no such host as %s", host)
	}
	tests := []struct {
		name   string
		cfg    func(*rtc.Config) // of the agent that connects
		filter func(signal.Message) []signal.Message
		code   wire.Code
		want   string
	}{
		{"no sockets", func(c *rtc.Config) { c.UseNet(brokenNet{Net: network, listen: full}) }, nil,
			wire.CodeInternal, "this host has no candidates; socket: too many open files"},
		{"no interfaces", func(c *rtc.Config) { c.UseNet(brokenNet{Net: network, interfaces: full}) }, nil,
			wire.CodeInternal, "socket: too many open files"},
		{"no name server", func(c *rtc.Config) { c.ICEServers, c.RelayOnly = turn, true; c.Lookup(lookup) }, nil,
			wire.CodePeerUnavailable, "look up turn.example:3478: no such host as turn.example"},
		{"no candidates of the peer", nil, func(m signal.Message) []signal.Message {
			if m.Type == signal.Candidate { // of both, or the peer would be found by its checks
				return nil
			}
			return []signal.Message{m}
		}, wire.CodePeerUnavailable, "the peer has sent no candidates"},
		{"another certificate", nil, func(m signal.Message) []signal.Message {
			m.Payload = fingerprint.ReplaceAll(m.Payload, []byte("${1}00"))
			return []signal.Message{m}
		}, wire.CodePeerUnavailable, "handshake error"},
		{"no answer", nil, func(m signal.Message) []signal.Message {
			if m.Type == signal.Answer {
				return nil
			}
			return []signal.Message{m}
		}, wire.CodePeerUnavailable, "the peer has not answered"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			h.setFilter(tt.filter)
			var log testutil.LogBuffer
			b := start(t, h, "b").join()
			a := start(t, h, "a", func(c *rtc.Config) {
				c.ConnectTimeout = 10 * time.Second // the first attempt has to fail meanwhile
				c.Log = zerolog.New(&log).Level(zerolog.InfoLevel)
				if tt.cfg != nil {
					tt.cfg(c)
				}
			})
			a.Connect("b")
			a.join()
			if err := a.failure(t, "b"); err.Code != tt.code || !strings.Contains(err.Text, tt.want) {
				t.Errorf("Connect: %v\nwant %s: ...%s", err, tt.code, tt.want)
			}
			testutil.Eventually(t, "the reason in the log", func() bool { return hasLine(&log, `"peer":"b"`, tt.want) })
			a.close(t)
			b.close(t)
		})
	}
}
