package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
)

// telling returns an agent that tells of its links.
func telling(t *testing.T, id string) *mesh.Mesh {
	t.Helper()
	return joined(t, id, mesh.Config{Handlers: map[string]mesh.Handler{meshdebug.StatsQuery: meshdebug.AnswerHandler(nil)}})
}

// link blocks until two agents are.
func link(t *testing.T, a, b *mesh.Mesh) {
	t.Helper()
	for _, way := range [][2]*mesh.Mesh{{a, b}, {b, a}} {
		if err := way[0].WaitPeer(t.Context(), way[1].ID()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTop(t *testing.T) {
	onMesh(t)
	bob, carol := telling(t, "bob"), telling(t, "carol")
	link(t, bob, carol)
	p := start(t, "top", "--id", "watcher", "--interval", "100ms")
	p.out.wait(t, "mesh, as watcher sees it  connected")
	p.out.wait(t, "3 agents, 3 links, 0 relayed")
	p.out.wait(t, "\nbob    carol    local")
	p.out.wait(t, "bob came")
	if strings.Contains(p.out.String(), "\x1b") {
		t.Errorf("codes for a terminal where there is none:\n%s", &p.out)
	}
	p.interrupt()
	p.ends(t, 0)

	var s meshdebug.Snapshot
	q := start(t, "top", "--json", "-n", "30", "--interval", "100ms", "--id", "counter")
	q.ends(t, 0)
	lines := strings.Split(strings.TrimSpace(q.out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil || len(lines) != 30 || s.Self != "counter" || len(s.Nodes) != 3 || len(s.Links) != 3 {
		t.Errorf("%d lines, %v, %+v", len(lines), err, s)
	}
	cli("top", "--own", "-n", "20", "--interval", "100ms").hasStatus(t, 0, "3 agents, 2 links")
	for _, args := range [][]string{{"top", "x"}, {"top", "-n", "-1"}, {"top", "--interval", "1ms"}, {"web", "x"}, {"web", "--addr", "x"}, {"web", "--addr", "0.0.0.0:0"}, {"web", "--addr", "unix:/tmp/x"}} {
		cli(args...).want(t, 2, "try --help")
	}
}

func TestWeb(t *testing.T) {
	onMesh(t)
	bob, carol := telling(t, "bob"), telling(t, "carol")
	link(t, bob, carol)
	p := start(t, "web", "--id", "watcher")
	url := p.out.after(t, "open ")
	for name, want := range map[string]string{"": "<title>mesh</title>", "page.js": "EventSource", "stats.json": `"self": "watcher"`} {
		resp, err := http.Get(url + name)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || !strings.Contains(string(body), want) {
			t.Errorf("%s: %v\n%.300s", name, err, body)
		}
	}
	stream, err := http.Get(url + "events") // which does not keep the command from ending
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	p.interrupt()
	p.ends(t, 0)
}

// crowd returns a snapshot of many agents, whose names would steer a terminal.
func crowd(n int) *meshdebug.Snapshot {
	at := time.Now()
	s := &meshdebug.Snapshot{Self: "self", At: at, Signaling: mesh.SignalingConnecting, SignalingError: "no\x1b[2J\nserver", Nodes: []meshdebug.Node{{ID: "self", Self: true}}}
	for i := range n {
		id := fmt.Sprintf("\x1b[31magent \u202e%d", i)
		s.Nodes = append(s.Nodes, meshdebug.Node{ID: id, Linked: true, Since: at, SentPerSecond: float64(i) * 1e6, RTT: 1.5, Behind: i % 2})
		l := meshdebug.Link{A: "self", B: id, Path: mesh.PathRelayed, AB: meshdebug.Flow{PerSecond: 1e3, HeldBack: mesh.HoldNewWork, Queued: 1e5}}
		s.Links = append(s.Links, l)
		s.Events = append(s.Events, meshdebug.Event{At: at, Type: meshdebug.EventCame, Peer: id}, meshdebug.Event{At: at, Type: meshdebug.EventRestart})
	}
	return s
}

func TestScreen(t *testing.T) {
	for _, height := range []int{5, 10, 24, 50, 200} {
		var out strings.Builder
		s := &screen{w: &out, size: func() (int, int, error) { return 80, height, nil }}
		for _, n := range []int{0, 1, 5, 40} {
			out.Reset()
			if err := s.show(crowd(n)); err != nil {
				t.Fatal(err)
			}
			text := strings.TrimPrefix(out.String(), enterScreen)
			if lines := strings.Split(text, "\n"); len(lines) > height {
				t.Errorf("%d agents, %d lines of %d", n, len(lines), height)
			}
			plain := strings.NewReplacer(home, "", restOfLine, "", restOfAll, "").Replace(text)
			if strings.ContainsAny(plain, "\x1b\u202e") {
				t.Errorf("%q", plain)
			}
		}
		s.leave()
		s.leave()
		if text := out.String(); strings.Count(text, leaveScreen) != 1 || !strings.HasSuffix(text, leaveScreen) {
			t.Errorf("%q", text)
		}
	}
	var out strings.Builder
	s := &screen{w: &out, colours: true}
	for range 2 {
		if err := s.show(crowd(3)); err != nil {
			t.Fatal(err)
		}
	}
	s.leave()
	for _, want := range []string{"\x1b[33mrelayed\x1b[0m", "\x1b[31m1 link\x1b[0m", "new work to ", "2.0 MB/s", "1.50 ms", "100 kB", "3 held back", "connecting: no?[2J server"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), enterScreen) || strings.Contains(out.String(), leaveScreen) {
		t.Error("a terminal that is none")
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[float64]string{0: "-", 1: "1 B", 999.4: "999 B", 999.6: "1.0 kB", 123456: "123 kB", 99960: "100 kB", 5e9: "5.0 GB", 1e18: "1000000 TB"} {
		if got := size(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-1: "0 s", 90 * time.Second: "90 s", 3 * time.Minute: "3 min", 3 * time.Hour: "3 h", 50 * time.Hour: "2 d"} {
		if got := short(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if got := cut(strings.Repeat("x", 50) + "end"); len([]rune(got)) != widestName || !strings.HasSuffix(got, "end") {
		t.Errorf("%q", got)
	}
}
