package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/signaling"
)

// benchPair is two agents with a link, and handlers on the second one: echo
// answers, count counts.
func benchPair(b *testing.B, mode Mode) (alice *Mesh, counted *atomic.Int64, reached chan struct{}) {
	b.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		b.Fatal(err)
	}
	web := httptest.NewServer(server)
	counted, reached = new(atomic.Int64), make(chan struct{}, 1)
	url := "ws" + strings.TrimPrefix(web.URL, "http") + "/ws"
	var pair [2]*Mesh
	for i, id := range []string{"alice", "bob"} {
		pair[i], err = New(context.Background(), Config{
			Mode: mode, SignalingURL: url, APIKey: id, WaitSignaling: true, Network: Network{UDPPort: AnyUDPPort},
			Handlers: map[string]Handler{
				"echo_request": func(_ context.Context, msg *Message) (any, error) { return msg.Payload, nil },
				"count": func(context.Context, *Message) (any, error) {
					if counted.Add(-1) == 0 {
						reached <- struct{}{}
					}
					return nil, nil
				},
			},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, m := range pair {
			_ = m.Close()
		}
		web.Close()
		_ = server.Close()
	})
	if err := pair[0].WaitPeer(context.Background(), "bob"); err != nil {
		b.Fatal(err)
	}
	return pair[0], counted, reached
}

func eachMode(b *testing.B, f func(b *testing.B, mode Mode)) {
	for _, mode := range []Mode{InProcess, SelfExec} {
		b.Run(mode.String(), func(b *testing.B) { f(b, mode) })
	}
}

// filler makes messages of so many bytes in all.
func filler(typ string, size int) json.RawMessage {
	envelope := len(`{"type":"","payload":""}`) + len(typ)
	return json.RawMessage(`"` + strings.Repeat("x", size-envelope) + `"`)
}

// BenchmarkRequest is the round trip of a request of 256 bytes.
func BenchmarkRequest(b *testing.B) {
	eachMode(b, func(b *testing.B, mode Mode) {
		alice, _, _ := benchPair(b, mode)
		msg := Message{Type: "echo_request", Payload: filler("echo_request", 256-30)}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := alice.Request(context.Background(), "bob", msg); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTyped is what Typed and Call do besides a Request: the payload is decoded at both ends. Encoded it is in either case.
func BenchmarkTyped(b *testing.B) {
	answer := func(req count) counted { return counted{N: req.To, Text: req.Text} }
	typed := Typed(func(_ context.Context, _ Peer, req count) (counted, error) { return answer(req), nil })
	for _, size := range []int{20, 200} {
		req := count{To: 7, Text: strings.Repeat("x", size)}
		for _, bench := range []struct {
			name   string
			handle Handler
			decode func(*Message, any) error
		}{
			{"raw", func(context.Context, *Message) (any, error) { return answer(req), nil }, func(*Message, any) error { return nil }},
			{"decoded by hand", func(_ context.Context, msg *Message) (any, error) {
				var req count
				err := msg.Decode(&req)
				return answer(req), err
			}, (*Message).Decode},
			{"typed", typed, func(m *Message, v any) error { return m.decodeResponse("request", v) }},
		} {
			b.Run(fmt.Sprintf("%dB/%s", size, bench.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					asked, _ := payload(req)
					reply, err := bench.handle(context.Background(), &Message{From: "bob", Payload: asked})
					if err != nil {
						b.Fatal(err)
					}
					response, err := payload(reply)
					if err != nil {
						b.Fatal(err)
					}
					var got counted
					if err := bench.decode(&Message{Payload: response}, &got); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSend is one-way messages until the last is handled.
func BenchmarkSend(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"256B", 256}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}} {
		b.Run(size.name, func(b *testing.B) {
			eachMode(b, func(b *testing.B, mode Mode) {
				alice, counted, reached := benchPair(b, mode)
				msg := Message{Type: "count", Payload: filler("count", size.bytes)}
				b.SetBytes(int64(size.bytes))
				b.ReportAllocs()
				counted.Store(int64(b.N))
				b.ResetTimer()
				for range b.N {
					if err := alice.Send(context.Background(), "bob", msg); err != nil {
						b.Fatal(err)
					}
				}
				<-reached
			})
		})
	}
}

// benchMembers returns the identities of agents under policy member, by id.
func benchMembers(b *testing.B, ids ...string) map[string]Identity {
	b.Helper()
	dir := b.TempDir()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	root, err := identity.NewKeyFile(filepath.Join(dir, "root"))
	check(err)
	sign, err := identity.ReadKey(filepath.Join(dir, "root"))
	check(err)
	all := make(map[string]Identity)
	for _, id := range ids {
		file := filepath.Join(dir, id)
		key, err := identity.NewKeyFile(file)
		check(err)
		statement, err := json.Marshal(identity.NewStatement(sign, "", id, key, time.Now().Add(time.Hour)))
		check(err)
		check(os.WriteFile(file+".member", statement, 0o600))
		all[id] = Identity{KeyFile: file, Policy: IdentityMember, Roots: []string{root.String()}, MembershipFile: file + ".member"}
	}
	return all
}

// BenchmarkJoin is from the second agent's New until both know the other, without
// and with identities.
func BenchmarkJoin(b *testing.B) {
	b.Run("off", func(b *testing.B) { benchJoin(b, nil) })
	b.Run("member", func(b *testing.B) { benchJoin(b, benchMembers(b, "first", "second")) })
}

func benchJoin(b *testing.B, identities map[string]Identity) {
	eachMode(b, func(b *testing.B, mode Mode) {
		server, err := signaling.New(signaling.Config{Dev: true})
		if err != nil {
			b.Fatal(err)
		}
		web := httptest.NewServer(server)
		defer web.Close()
		defer server.Close()
		met := make(chan struct{}, 2)
		join := func(id string, wait bool) *Mesh {
			m, err := New(context.Background(), Config{
				Mode: mode, SignalingURL: "ws" + strings.TrimPrefix(web.URL, "http") + "/ws", APIKey: id, WaitSignaling: wait, Identity: identities[id],
				OnPeer: func(e PeerEvent) {
					if e.Connected {
						met <- struct{}{}
					}
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			return m
		}
		var took []time.Duration
		for b.Loop() {
			b.StopTimer()
			first := join("first", true)
			b.StartTimer()
			began := time.Now()
			second := join("second", false)
			<-met
			<-met
			took = append(took, time.Since(began))
			b.StopTimer()
			_, _ = first.Close(), second.Close()
			b.StartTimer()
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns") // the mean is that of the few slow ones
	})
}
