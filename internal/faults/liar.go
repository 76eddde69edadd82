//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/chatixia-ai/mesh/internal/signal"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// A liar stands in front of a signaling server. It passes on everything until it is to lie: then it tells each agent
// garbage and old messages, as fast as the agent reads, and what the server says late and in another order.
type liar struct {
	*netpath.Proxy
	seed uint64
	huge [][]byte     // garbage of megabytes
	told atomic.Int64 // lies
	work sync.WaitGroup

	mu     sync.Mutex
	lying  chan struct{} // closed when it is to stop; nil while it is honest
	conns  map[*netpath.Conn]string
	old    map[string][][]byte // what the server has said to each agent
	choked map[string]bool     // who has been told more than an agent reads, which ends a connection
}

// liar puts a liar in front of a server. It ends with the row, after the server.
func (r *run) liar(server string) *liar {
	l := &liar{seed: r.seed, huge: huge(), conns: make(map[*netpath.Conn]string), old: make(map[string][][]byte), choked: make(map[string]bool)}
	var err error
	l.Proxy, err = netpath.NewProxy(server, nil, l.down)
	r.stop("proxy", err)
	return l
}

// down handles what the server says to an agent.
func (l *liar) down(c *netpath.Conn, typ websocket.MessageType, b []byte) { l.note(c, typ, b)() }

// note keeps what the server says, and returns what is to be done about it at once.
func (l *liar) note(c *netpath.Conn, typ websocket.MessageType, b []byte) func() {
	var m signal.Message
	_ = json.Unmarshal(b, &m)
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Type == signal.Welcome {
		var w struct {
			PeerID string `json:"peer_id"`
		}
		_ = json.Unmarshal(m.Payload, &w)
		l.joinsLocked(c, w.PeerID)
	}
	id := l.conns[c]
	l.old[id] = append(l.old[id], bytes.Clone(b))
	if l.lying == nil || m.Type == signal.Welcome {
		return func() { c.ToAgent(typ, b) }
	}
	late := time.Duration(rand.IntN(300)) * time.Millisecond
	l.work.Go(func() {
		time.Sleep(late)
		c.ToAgent(typ, b)
	})
	return func() {}
}

// joinsLocked has an agent lied to, from now on or later.
func (l *liar) joinsLocked(c *netpath.Conn, id string) {
	l.conns[c] = id
	if stop := l.lying; stop != nil {
		first := !l.choked[id]
		l.choked[id] = true
		l.work.Go(func() { l.lie(c, id, first, stop) })
	}
}

// lies lies to everybody for a while, and at least so many times.
func (l *liar) lies(r *run, span time.Duration, least int64) {
	stop := make(chan struct{})
	l.mu.Lock()
	l.lying = stop
	for c, id := range l.conns {
		l.joinsLocked(c, id)
	}
	l.mu.Unlock()
	defer l.work.Wait()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lying = nil
		close(stop)
	}()
	r.pause(span)
	r.until("enough lies", func() bool { return l.told.Load() >= least })
}

// lie lies to one agent until stop is closed, the first time beginning with more than an agent reads.
func (l *liar) lie(c *netpath.Conn, id string, first bool, stop <-chan struct{}) {
	if first {
		c.ToAgent(websocket.MessageText, l.huge[0])
	}
	random := rand.New(rand.NewPCG(l.seed, uint64(len(id))))
	l.mu.Lock()
	var others []string
	for other := range l.old {
		others = append(others, other)
	}
	l.mu.Unlock()
	garbage := garbage(id, others)
	for {
		select {
		case <-stop:
			return
		case <-c.Done():
			return
		default:
		}
		typ := websocket.MessageText
		if random.IntN(20) == 0 {
			typ = websocket.MessageBinary
		}
		c.ToAgent(typ, l.pick(random, id, others, garbage))
		l.told.Add(1)
	}
}

// pick returns a lie: an old message to the agent, or sometimes to another one, or garbage, of which little is huge.
func (l *liar) pick(random *rand.Rand, id string, others []string, garbage [][]byte) []byte {
	from := id
	switch random.IntN(8) {
	case 0:
		from = others[random.IntN(len(others))]
	case 1, 2, 3:
		if random.IntN(500) == 0 {
			return l.huge[1+random.IntN(len(l.huge)-1)]
		}
		return garbage[random.IntN(len(garbage))]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.old[from]
	return old[random.IntN(len(old))]
}

// huge returns what is more than an agent reads at once, and what is just not.
func huge() (all [][]byte) {
	const most = 4 << 20 // of the client
	all = append(all, bytes.Repeat([]byte(" "), most+most/4))
	for _, text := range []string{
		strings.Repeat(`{"type":`, most/8),
		fmt.Sprintf(`{"type":"peer_list","peer_id":"registry","payload":{"peers":[%s""]}}`, strings.Repeat(`"",`, most/4)),
		fmt.Sprintf(`{"type":"offer","peer_id":"x","payload":{"sdp":%q}}`, strings.Repeat("x", most/2)),
	} {
		all = append(all, []byte(text))
	}
	return all
}

// garbage returns what no server of ours says to an agent, in the name of others and of the server.
func garbage(id string, others []string) (all [][]byte) {
	add := func(text string) { all = append(all, []byte(text)) }
	add("")
	add("{")
	add("null")
	add("\xff\xfe\x00")
	add(`[{"type":"offer"}]`)
	add(`{"type":7,"peer_id":[],"payload":"x"}`)
	add(`{"type":"offer","peer_id":"x","payload":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}")
	types := []string{signal.Offer, signal.Answer, signal.Candidate, signal.ErrorType, signal.Left, signal.PeerList, signal.Welcome, signal.Register, "gossip", strings.Repeat("t", 1000)}
	payloads := []string{
		`null`, `7`, `"x"`, `[]`, `{}`, `{"sdp":7}`, `{"sdp":"x","session":"y"}`, `{"sdp":"x","session":"y","instance":"z","caps":["jsonl","restart","drain"]}`,
		`{"sdp":"v=0\r\n","Session":"s","session":"t"}`, `{"sdp":"` + strings.Repeat("v=0\\r\\n", 5000) + `","session":"y"}`,
		`{"candidate":"x"}`, `{"candidate":"candidate:1 1 udp 1 127.0.0.1 9 typ host","session":"` + strings.Repeat("s", 500) + `"}`,
		`{"code":"busy","target_id":"x"}`, `{"peers":"x"}`, `{"peers":[7]}`, `{"peer_id":7}`, `{"ago":-1}`,
	}
	for _, other := range others {
		payloads = append(payloads, fmt.Sprintf(`{"code":"peer_unavailable","target_id":%q}`, other), fmt.Sprintf(`{"peer_id":%q,"ago":100}`, other))
	}
	for _, typ := range types {
		for _, payload := range payloads {
			for _, from := range append([]string{"", "registry", id}, others...) {
				add(fmt.Sprintf(`{"type":%q,"peer_id":%q,"target_id":%q,"payload":%s}`, typ, from, id, payload))
			}
		}
	}
	return all
}
