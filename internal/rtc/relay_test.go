//go:build !js

package rtc_test

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/internal/wire"
)

const turnPassword = "turn-password"

// turnServer is a TURN server on the loopback interface.
type turnServer struct {
	*turn.Server
	mu    sync.Mutex
	valid func(user string) bool
	users []string // whose credentials were valid
}

// startTURN starts one that listens for datagrams or, if datagrams is nil, for streams.
func startTURN(t *testing.T, datagrams net.PacketConn, streams net.Listener) *turnServer {
	t.Helper()
	s := &turnServer{valid: func(string) bool { return true }}
	relay := &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 1), Address: "127.0.0.1"}
	silent := &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}
	cfg := turn.ServerConfig{Realm: "mesh.test", AuthHandler: s.authorize, LoggerFactory: silent}
	if datagrams != nil {
		cfg.PacketConnConfigs = []turn.PacketConnConfig{{PacketConn: datagrams, RelayAddressGenerator: relay}}
	} else {
		cfg.ListenerConfigs = []turn.ListenerConfig{{Listener: streams, RelayAddressGenerator: relay}}
	}
	var err error
	if s.Server, err = turn.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (s *turnServer) authorize(r *turn.RequestAttributes) (id string, key []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.valid(r.Username) {
		return "", nil, false
	}
	if !slices.Contains(s.users, r.Username) {
		s.users = append(s.users, r.Username)
	}
	return r.Username, turn.GenerateAuthKey(r.Username, r.Realm, turnPassword), true
}

// accept changes whose credentials are valid.
func (s *turnServer) accept(valid func(user string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid = valid
}

func (s *turnServer) seen(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.users, user)
}

func relays(url, user string) []signal.ICEServer {
	return []signal.ICEServer{{URLs: []string{url}, Username: user, Credential: turnPassword}}
}

// onlyRelay has a node use a relay only, with credentials.
func onlyRelay(url, user string) func(*rtc.Config) {
	return func(c *rtc.Config) { c.RelayOnly, c.ICEServers = true, relays(url, user) }
}

func listenDatagrams(t *testing.T, at string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// When an interrupted link is repaired, both ends ask the relay with the credentials of that moment: those that it began
// with have expired.
func TestBothEndsRefreshCredentials(t *testing.T) {
	t.Parallel()
	at := listenDatagrams(t, "127.0.0.1:0")
	server := startTURN(t, at, nil)
	url := "turn:" + at.LocalAddr().String()
	h := newHub(t)
	a, b := start(t, h, "a", onlyRelay(url, "a1")).join(), start(t, h, "b", onlyRelay(url, "b1")).join()
	linked(t, a, b)
	if st := a.peer("b").Stats(); st.PeerID != "b" || st.Path != wire.PathRelayed {
		t.Errorf("a link by relays only has %+v", st)
	}
	a.ICEServers(relays(url, "a2"))
	b.ICEServers(relays(url, "b2"))
	_ = server.Close() // with all relayed addresses
	server = startTURN(t, listenDatagrams(t, at.LocalAddr().String()), nil)
	server.accept(func(user string) bool { return user == "a2" || user == "b2" })
	send(t, a.peer("b"), message(1, 100))
	testutil.Eventually(t, "the message", func() bool { return len(b.received("a")) == 1 })
	if got := a.history() + b.history(); got != "[+b][+a]" {
		t.Errorf("history %s", got)
	}
}

// A relayed link moves to new credentials before the old ones expire, or as soon as there are any.
func TestRelayedLinkRenewsCredentials(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"in time": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := listenDatagrams(t, "127.0.0.1:0")
			server := startTURN(t, at, nil)
			url := "turn:" + at.LocalAddr().String()
			user := func(who string, lifetime time.Duration) string {
				return fmt.Sprintf("%d:%s", time.Now().Add(lifetime).Unix(), who)
			}
			const lifetime = 5 * time.Second
			expires := time.Now().Add(lifetime)
			h := newHub(t)
			a := start(t, h, "a", onlyRelay(url, user("a", lifetime))).join()
			b := start(t, h, "b", onlyRelay(url, user("b", lifetime))).join()
			linked(t, a, b)
			before := a.peer("b").Stats()
			stop := stream(t, a.peer("b"))
			defer stop()
			if late {
				time.Sleep(lifetime)
			}
			offers := h.count(signal.Offer, "b", "a") + h.count(signal.Offer, "a", "b")
			a2, b2 := user("a", time.Hour), user("b", time.Hour)
			a.ICEServers(relays(url, a2))
			b.ICEServers(relays(url, b2))
			testutil.Eventually(t, "the new credentials", func() bool { return server.seen(a2) && server.seen(b2) })
			testutil.Eventually(t, "the link is restored", func() bool { return !a.Recovering("b") && !b.Recovering("a") })
			testutil.Eventually(t, "word of the new path", func() bool {
				told := a.paths.All()
				if len(told) == 0 {
					return false
				}
				last, now := told[len(told)-1], a.peer("b").Stats()
				return last.Path == wire.PathRelayed && last.Local != before.Local && last.Local == now.Local && last.Remote == now.Remote
			})
			gone := time.Now().After(expires) // the path, which is then looked for until it is found
			sent := stop()
			testutil.Eventually(t, "all messages", func() bool { return len(b.received("a")) == sent })
			if n := h.count(signal.Offer, "b", "a") + h.count(signal.Offer, "a", "b") - offers; n < 1 || n > 1 && !gone {
				t.Errorf("%d restarts", n)
			}
			if got := a.history() + b.history(); got != "[+b][+a]" {
				t.Errorf("history %s", got)
			}
		})
	}
}

// A link that passes no relay is left alone, whatever happens to credentials.
func TestDirectLinkKeepsCredentials(t *testing.T) {
	t.Parallel()
	at := listenDatagrams(t, "127.0.0.1:0")
	startTURN(t, at, nil)
	url := "turn:" + at.LocalAddr().String()
	soon := fmt.Sprintf("%d:x", time.Now().Add(3*time.Second).Unix())
	h, a, b := pair(t, func(c *rtc.Config) { c.ICEServers = relays(url, soon) })
	later := relays(url, fmt.Sprintf("%d:x", time.Now().Add(time.Hour).Unix()))
	a.ICEServers(later)
	b.ICEServers(later)
	time.Sleep(4 * time.Second)
	if n := h.count(signal.Offer, "b", "a") + h.count(signal.Offer, "a", "b"); n != 1 {
		t.Errorf("%d offers", n)
	}
}

// Credentials that expire at once, again and again, restart a link no more often than the pace of renewals allows.
func TestRenewalIsPaced(t *testing.T) {
	t.Parallel()
	at := listenDatagrams(t, "127.0.0.1:0")
	startTURN(t, at, nil)
	url := "turn:" + at.LocalAddr().String()
	expiring := func(n int) []signal.ICEServer {
		return relays(url, fmt.Sprintf("%d:x", time.Now().Unix()+int64(2+n)))
	}
	h := newHub(t)
	set := func(c *rtc.Config) {
		c.RelayOnly, c.ICEServers = true, expiring(0)
		c.RenewMin(time.Hour)
	}
	a, b := start(t, h, "a", set).join(), start(t, h, "b", set).join()
	linked(t, a, b)
	for n := range 30 {
		a.ICEServers(expiring(n))
		b.ICEServers(expiring(n))
		time.Sleep(100 * time.Millisecond)
	}
	if n := h.count(signal.Offer, "b", "a") + h.count(signal.Offer, "a", "b"); n != 1 {
		t.Errorf("%d offers", n)
	}
}

// A link whose credentials are to be renewed while signaling hangs goes on as it is.
func TestRenewalWhileSignalingHangs(t *testing.T) {
	testutil.SkipUnlessFull(t, "a renewal while signaling hangs, in real time")
	t.Parallel()
	at := listenDatagrams(t, "127.0.0.1:0")
	startTURN(t, at, nil)
	url := "turn:" + at.LocalAddr().String()
	user := func(who string, lifetime time.Duration) string {
		return fmt.Sprintf("%d:%s", time.Now().Add(lifetime).Unix(), who)
	}
	h := newHub(t)
	set := func(c *rtc.Config) { c.RecoveryTimeout = 3 * time.Second }
	a := start(t, h, "a", set, onlyRelay(url, user("a", 10*time.Second))).join()
	b := start(t, h, "b", set, onlyRelay(url, user("b", 10*time.Second))).join()
	linked(t, a, b)
	stop := stream(t, a.peer("b"))
	defer stop()
	a.ICEServers(relays(url, user("a", time.Hour)))
	b.ICEServers(relays(url, user("b", time.Hour)))
	h.setMute("a", true)
	h.setMute("b", true)
	<-time.After(15 * time.Second) // longer than the credentials, and RecoveryTimeout after that
	if got := a.history() + b.history(); got != "[+b][+a]" {
		t.Errorf("history %s", got)
	}
}
