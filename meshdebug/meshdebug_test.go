package meshdebug

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/meshtest"
)

var hostileIDs = []string{
	`<script>window.hacked=1</script>`, `<img src=x onerror="window.hacked=1">`, `"'><b onclick=hacked=1>`, "abc\u202etxt.exe", "\u2066bell",
	`javascript:window.hacked=1`, strings.Repeat("long-", 40), `${window.hacked=1}`, "עברית",
}

// serve serves the page of an agent.
func serve(t *testing.T, h http.Handler) (base string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/debug/mesh/", h)
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	return web.URL + "/debug/mesh/"
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	client := http.Client{Timeout: limit}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestFiles(t *testing.T) {
	n := meshtest.New(t, "alice")
	base := serve(t, Handler(n.Mesh("alice")))
	for name, want := range map[string]string{
		"": "text/html; charset=utf-8", "page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "ring.js": "text/javascript; charset=utf-8",
	} {
		resp, body := get(t, base+name)
		h := resp.Header
		if resp.StatusCode != 200 || h.Get("Content-Type") != want || len(body) < 100 {
			t.Errorf("%q: %d, %q, %d bytes", name, resp.StatusCode, h.Get("Content-Type"), len(body))
		}
		if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: %v", name, h)
		}
	}
	for _, name := range []string{"nonesuch", "..%2fmeshdebug.go", "page", "x/../../go.mod"} {
		if resp, _ := get(t, base+name); resp.StatusCode != 404 {
			t.Errorf("%q: %d", name, resp.StatusCode)
		}
	}
	// The page has no script, style or event handler of its own, which the policy would refuse, and makes no HTML.
	html, _ := page.ReadFile("page/index.html")
	if s := string(html); strings.Contains(s, "<style") || strings.Contains(s, "style=") || regexp.MustCompile(`\son\w+=`).MatchString(s) {
		t.Error("the page has something inline")
	}
	scripts, _ := page.ReadDir("page")
	for _, f := range scripts {
		text, err := page.ReadFile("page/" + f.Name())
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"} {
			if strings.Contains(strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""), bad) || err != nil {
				t.Errorf("%s has %s, %v", f.Name(), bad, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	n := meshtest.New(t, "alice")
	h := Handler(n.Mesh("alice"))
	for name, x := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"this machine":         {func(*http.Request) {}, 200},
		"IPv6":                 {func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:1234", "[::1]:80" }, 200},
		"localhost":            {func(r *http.Request) { r.Host = "localhost:8080" }, 200},
		"another machine":      {func(r *http.Request) { r.RemoteAddr = "192.0.2.1:1234" }, 403},
		"a peer":               {func(r *http.Request) { r.RemoteAddr = "bob/http" }, 403},
		"DNS rebinding":        {func(r *http.Request) { r.Host = "evil.example" }, 403},
		"looks like localhost": {func(r *http.Request) { r.Host = "localhost.evil.example" }, 403},
		"no host":              {func(r *http.Request) { r.Host = "" }, 403},
		"a proxy":              {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "127.0.0.1") }, 403},
		"another page":         {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"POST":                 {func(r *http.Request) { r.Method = "POST" }, 405},
	} {
		for _, path := range []string{"", "page.js"} {
			r := httptest.NewRequest("GET", "/debug/mesh/"+path, nil)
			r.RemoteAddr, r.Host = "127.0.0.1:1234", "127.0.0.1:80"
			x.change(r)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != x.want {
				t.Errorf("%s, %q: %d %s", name, path, w.Code, w.Body)
			}
		}
	}
	for _, path := range []string{"stats.json", "events"} {
		r := httptest.NewRequest("GET", "/debug/mesh/"+path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:1234", "127.0.0.1:80"
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 403 {
			t.Errorf("%s for another site: %d", path, w.Code)
		}
	}
	allowed := Handler(n.Mesh("alice"), Allow(func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer yes" }))
	for _, key := range []string{"yes", "no"} {
		r := httptest.NewRequest("GET", "/debug/mesh/", nil)
		r.RemoteAddr = "192.0.2.1:1234"
		r.Header.Set("Authorization", "Bearer "+key)
		w := httptest.NewRecorder()
		if allowed.ServeHTTP(w, r); (w.Code == 200) != (key == "yes") {
			t.Errorf("with key %s: %d", key, w.Code)
		}
	}
}

func TestJSON(t *testing.T) {
	n := meshtest.New(t, "alice", "bob", "carol", "dave")
	for _, id := range []string{"bob", "carol"} {
		if err := Answer(n.Mesh(id), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := Answer(n.Mesh("dave"), func(p mesh.Peer) bool { return p.ID != "alice" }); err != nil {
		t.Fatal(err)
	}
	busy(t, n.Mesh("bob"), "carol")
	h := newHandler(n.Mesh("alice"), nil)
	_, body := get(t, serve(t, h)+"stats.json")
	var s Snapshot
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err, body)
	}
	if s.Self != "alice" || len(s.Nodes) != 4 || len(s.Links) != 6 || s.Signaling != mesh.SignalingConnected || len(s.Events) != 3 {
		t.Fatalf("%s", body)
	}
	for _, node := range s.Nodes {
		if node.Answers != (node.ID == "bob" || node.ID == "carol") || node.Linked != (node.ID != "alice") || node.Links != 3 {
			t.Errorf("%+v", node)
		}
	}
	for _, l := range s.Links {
		want := []string{l.A, l.B}
		if l.B == "dave" {
			want = []string{l.A}
		}
		if !slices.Equal(l.By, want) || l.Path != mesh.PathDirect {
			t.Errorf("%+v", l)
		}
		if l.A == "bob" && l.B == "carol" && (l.AB.PerSecond < 1000 || l.AB.MessagesPerSecond < 1 || l.AB.Bytes < 1000) {
			t.Errorf("bob's messages are not seen: %+v", l)
		}
	}
	testutil.Eventually(t, "an end of the samples", func() bool { h.c.mu.Lock(); defer h.c.mu.Unlock(); return h.c.stop == nil })
}

// busy has an agent send until the test ends.
func busy(t *testing.T, m *mesh.Mesh, to string) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = m.Send(ctx, to, mesh.Message{Type: "note", Payload: strings.Repeat("x", 1000)}) // until the end
			wait(ctx, 10*time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// A reader reads a stream of events.
type reader struct {
	t *testing.T
	*bufio.Scanner
}

func follow(t *testing.T, base string) (reader, func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	r, err := http.NewRequestWithContext(ctx, "GET", base+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	stop := func() { cancel(); _ = resp.Body.Close(); http.DefaultClient.CloseIdleConnections() }
	t.Cleanup(stop)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, 16<<20)
	return reader{t, s}, stop
}

// next reads events up to one of a kind.
func (r reader) next(kind string, into any) {
	r.t.Helper()
	found := false
	for r.Scan() {
		if name, ok := strings.CutPrefix(r.Text(), "event: "); ok {
			found = name == kind
		}
		if data, ok := strings.CutPrefix(r.Text(), "data: "); ok && found {
			if err := json.Unmarshal([]byte(data), into); err != nil {
				r.t.Fatal(err)
			}
			return
		}
	}
	r.t.Fatalf("no event %s: %v", kind, r.Err())
}

func TestEvents(t *testing.T) {
	n := meshtest.New(t, "alice", "bob")
	h := newHandler(n.Mesh("alice"), []Option{Interval(100 * time.Millisecond)})
	base := serve(t, h)
	one, stopOne := follow(t, base)
	two, _ := follow(t, base)
	var past history
	var s Snapshot
	one.next("history", &past)
	if len(past.Times) != 0 || one.Err() != nil {
		t.Errorf("%+v before anything was seen", past)
	}
	for range 5 {
		one.next("snapshot", &s)
		two.next("snapshot", &s)
	}
	n.Kill("bob")
	for len(s.Nodes) != 2 || s.Nodes[1].Gone.IsZero() {
		s = Snapshot{}
		one.next("snapshot", &s)
	}
	if e := s.Events[0]; e.Type != EventGone || e.Peer != "bob" {
		t.Errorf("%+v", s.Events)
	}
	n.Join("carol", mesh.Config{})
	for len(s.Links) == 0 {
		s = Snapshot{}
		one.next("snapshot", &s)
	}
	if e := s.Events[0]; e.Type != EventCame || e.Peer != "carol" || s.Links[0].B != "carol" {
		t.Errorf("%+v", s)
	}
	stopOne()
	two.next("snapshot", &s)
	three, _ := follow(t, base)
	three.next("history", &past)
	if len(past.Times) < 5 || len(past.Nodes["alice"][0]) != len(past.Times) || past.Nodes["carol"][0][0] != nil || past.Nodes["bob"][0] != nil {
		t.Errorf("%d times, %v", len(past.Times), past.Nodes)
	}
	if err := n.Mesh("alice").Close(); err != nil {
		t.Error(err)
	}
	var end struct{}
	two.next("end", &end)
}

// No more streams than may be, none after its request, and no work when there is none.
func TestBounded(t *testing.T) {
	n := meshtest.New(t, "alice", "bob")
	h := newHandler(n.Mesh("alice"), []Option{Interval(100 * time.Millisecond)})
	base := serve(t, h)
	var stops []func()
	for range maxLookers {
		r, stop := follow(t, base)
		var s Snapshot
		r.next("snapshot", &s)
		stops = append(stops, stop)
	}
	for _, name := range []string{"events", "stats.json"} {
		if resp, _ := get(t, base+name); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d with %d open", name, resp.StatusCode, maxLookers)
		}
	}
	for _, stop := range stops {
		stop()
	}
	testutil.Eventually(t, "an end of the samples", func() bool { h.c.mu.Lock(); defer h.c.mu.Unlock(); return h.c.stop == nil })
	<-h.c.ended
	for i := range 2 * maxPoints {
		at := time.Now().Add(time.Duration(i) * 100 * time.Millisecond)
		h.c.remember(&Snapshot{At: at, Nodes: []Node{{ID: "alice"}}})
	}
	if len(h.c.points) > maxPoints {
		t.Errorf("%d points", len(h.c.points))
	}
}

// What a peer answers may be anything.
func TestLies(t *testing.T) {
	n := meshtest.New(t, "alice")
	var many []answeredLink
	for i := range 3 * maxNodes {
		many = append(many, answeredLink{Peer: fmt.Sprint("ghost", i), BytesSent: int64(i) << 50, Queued: -5, Path: "<b>", HeldBack: "x"})
	}
	for id, payload := range map[string]any{
		"many": answer{Links: many}, "text": "no", "none": nil, "large": answer{Links: []answeredLink{{Peer: strings.Repeat("x", 2<<20)}}},
		"wrong": map[string]any{"clock_ms": "1", "links": 5}, "alone": map[string]any{"clock_ms": -1 << 62}, "self": answer{Links: []answeredLink{{Peer: "self"}, {Peer: "alice", Path: mesh.PathRelayed, BytesSent: 1 << 40, Outages: 7}, {}}},
		"hostile": answer{Links: []answeredLink{{Peer: "<script>\u202e\x00\n</script>"}}},
	} {
		n.Join(id, mesh.Config{Handlers: map[string]mesh.Handler{StatsQuery: func(context.Context, *mesh.Message) (any, error) { return payload, nil }}})
	}
	n.Join("mute", mesh.Config{Handlers: map[string]mesh.Handler{StatsQuery: func(ctx context.Context, _ *mesh.Message) (any, error) { <-ctx.Done(); return nil, nil }}})
	h := newHandler(n.Mesh("alice"), nil)
	_, body := get(t, serve(t, h)+"stats.json")
	var s Snapshot
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Nodes) != maxNodes || s.LeftOut == 0 || len(s.Links) > maxLinks {
		t.Errorf("%d nodes, %d links, %d left out", len(s.Nodes), len(s.Links), s.LeftOut)
	}
	answers := map[string]bool{"many": true, "alone": true, "self": true, "hostile": true}
	for _, node := range s.Nodes {
		if node.Linked && node.Answers != answers[node.ID] {
			t.Errorf("%+v", node)
		}
		if len(node.ID) > maxID || node.Queued < 0 {
			t.Errorf("%.50q: %d", node.ID, node.Queued)
		}
	}
	for _, l := range s.Links {
		if l.A == "alice" && l.B == "self" && (l.Path != mesh.PathDirect || l.BA.Bytes > 1<<20 || l.Outages > 0) {
			t.Errorf("a peer's word counts for the agent's own link: %+v", l)
		}
		if l.AB.Queued < 0 || l.BA.Queued < 0 || l.Path != "" && l.Path != mesh.PathDirect || l.AB.HeldBack != "" || l.A == l.B {
			t.Errorf("%+v", l)
		}
	}
}

// Peers that do not say that they answer are not asked, and those that refuse are asked once.
func TestAskedRarely(t *testing.T) {
	n := meshtest.New(t, "alice")
	asked := make(chan string, 100)
	refuse := func(_ context.Context, m *mesh.Message) (any, error) {
		asked <- m.Mesh().ID()
		return nil, errors.New("no")
	}
	n.Join("bob", mesh.Config{Handlers: map[string]mesh.Handler{StatsQuery: refuse}})
	n.Join("carol", mesh.Config{
		Card:     &mesh.Card{Name: "Carol", Version: "2", Skills: []mesh.Skill{{Name: "sing"}, {Name: strings.Repeat("x", 1000)}}, Queries: []string{StatsQuery}},
		Handlers: map[string]mesh.Handler{"": refuse},
	})
	rounds := 0
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for s := range Watch(ctx, n.Mesh("alice"), Interval(100*time.Millisecond)) {
		if len(s.Links) != 2 || s.Nodes[1].Answers || s.Nodes[2].Answers {
			t.Errorf("%+v", s)
		}
		if c := s.Nodes[2]; c.Name != "Carol" || c.Version != "2" || len(c.Skills) != 2 || c.Skills[0] != "sing" || len(c.Skills[1]) > maxShown+3 {
			t.Errorf("carol's card: %+v", c)
		}
		if rounds++; rounds == 10 {
			break
		}
	}
	if len(asked) != 1 || <-asked != "bob" || rounds != 10 {
		t.Errorf("asked %d times more than bob in %d rounds", len(asked), rounds)
	}
	for range Watch(ctx, n.Mesh("alice"), Interval(100*time.Millisecond), OwnView()) {
		break
	}
	if len(asked) > 0 {
		t.Error("asked although only our own view is wanted")
	}
}

// A peer that was slow, or cut off, tells of its links again soon.
func TestAnswersAgain(t *testing.T) {
	for name, fault := range map[string]func(n *meshtest.Network) (until time.Duration){
		"slow": func(n *meshtest.Network) time.Duration {
			answer, slow := AnswerHandler(nil), true
			if err := n.Mesh("bob").Handle(StatsQuery, func(ctx context.Context, msg *mesh.Message) (any, error) {
				if slow {
					slow = false
					time.Sleep(3 * time.Second)
				}
				return answer(ctx, msg)
			}); err != nil {
				t.Error(err)
			}
			return 0
		},
		"outage": func(n *meshtest.Network) time.Duration {
			if err := Answer(n.Mesh("bob"), nil); err != nil {
				t.Error(err)
			}
			time.AfterFunc(20*time.Second, func() { n.Cut("alice", "bob") })
			time.AfterFunc(40*time.Second, func() { n.Heal("alice", "bob") })
			return 40 * time.Second
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := meshtest.New(t, "alice", "bob")
				over := time.Now().Add(fault(n))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				last := time.Time{}
				for s := range Watch(ctx, n.Mesh("alice")) {
					if s.Nodes[1].Answers {
						last = s.At
					}
				}
				if last.Before(over.Add(15 * time.Second)) {
					t.Errorf("last told %v after it was over", last.Sub(over))
				}
			})
		})
	}
}

func TestWatchEnds(t *testing.T) {
	n := meshtest.New(t, "alice", "bob")
	for range Watch(t.Context(), n.Mesh("alice")) {
		if err := n.Mesh("alice").Close(); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for s := range Watch(ctx, n.Mesh("bob")) {
		t.Errorf("%+v", s)
	}
}

func containsAny(text, chars string) bool { return strings.ContainsAny(text, chars) }
