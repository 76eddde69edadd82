package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/interop/chromium"
	"github.com/chatixia-ai/mesh/internal/testutil"
	"github.com/chatixia-ai/mesh/signaling"
)

// patience bounds every wait. It is generous because the machine may be busy.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if mesh.SidecarMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

// A console is a page, seen through its command API.
type console struct {
	t     *testing.T
	page  *chromium.Page
	lines []string // taken and not yet awaited
}

func browser(t *testing.T) *chromium.Browser {
	t.Helper()
	testutil.SkipUnlessFull(t, "all tests of the page, which need Chromium and take about a minute")
	dir, err := os.MkdirTemp("", "chromium") // not t.TempDir, whose path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b, err := chromium.Start(t.Context(), chromium.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// seen is a browser whose pages reveal their addresses, so that they can link over loopback.
func seen(t *testing.T) *chromium.Browser {
	t.Helper()
	b := browser(t)
	if err := b.ShowAddresses(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, b *chromium.Browser, base, name string) *console {
	t.Helper()
	page, err := b.Open(t.Context(), base+"/?name="+url.QueryEscape(name))
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, page: page}
	t.Cleanup(func() {
		for _, thrown := range page.Errors() {
			t.Errorf("%s: uncaught: %s", name, thrown)
		}
	})
	return c
}

func (c *console) eval(expression string, result any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.page.Eval(ctx, expression, result); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) command(line string) {
	c.t.Helper()
	quoted, _ := json.Marshal(line) // of a string: never fails
	// Not awaited: a request may take long, and its outcome is a line.
	c.eval(fmt.Sprintf("void command(%s)", quoted), nil)
}

// await blocks until the page has printed a line that matches, which it returns. That line and those before it are
// forgotten.
func (c *console) await(pattern string) string {
	c.t.Helper()
	return c.awaitAll(pattern)[0]
}

// awaitAll blocks until the page has printed a line for each pattern, in any order. Those lines, which it returns, and
// all before the last of them are forgotten.
func (c *console) awaitAll(patterns ...string) []string {
	c.t.Helper()
	found, missing := make([]string, len(patterns)), len(patterns)
	re := make([]*regexp.Regexp, len(patterns))
	for i, p := range patterns {
		re[i] = regexp.MustCompile("^" + p + "$")
	}
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for seen := 0; ; {
		for ; seen < len(c.lines); seen++ {
			for i := range re {
				if found[i] == "" && re[i].MatchString(c.lines[seen]) {
					found[i] = c.lines[seen]
					missing--
					break
				}
			}
			if missing == 0 {
				c.lines = c.lines[seen+1:]
				return found
			}
		}
		var more []string
		c.eval("takeLines()", &more)
		c.lines = append(c.lines, more...)
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("%d of the lines %q are missing after %s in:\n%.3000s", missing, patterns, patience, strings.Join(c.lines, "\n"))
		}
	}
}

// become blocks until a condition holds, whatever becomes of the page meanwhile.
func (c *console) become(condition string) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for holds := false; ; {
		err := c.page.Eval(c.t.Context(), condition, &holds)
		if err == nil && holds {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("not within %s: %s; %v", patience, condition, err)
		}
	}
}

// serve serves the page and signaling without the agents.
func serve(t *testing.T) (base string) {
	t.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(handler(server))
	t.Cleanup(func() {
		web.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return web.URL
}

// agent starts a Go agent and returns its peer events.
func agent(t *testing.T, base, name string, change func(*mesh.Config)) (*mesh.Mesh, <-chan mesh.PeerEvent) {
	t.Helper()
	events := make(chan mesh.PeerEvent, 100)
	cfg := mesh.Config{
		SignalingURL: "ws" + strings.TrimPrefix(base, "http") + "/ws", APIKey: name, WaitSignaling: true,
		OnPeer: func(e mesh.PeerEvent) { events <- e },
		Handlers: map[string]mesh.Handler{
			"echo_request": func(_ context.Context, msg *mesh.Message) (any, error) { return msg.Payload, nil },
			"nap_request": func(ctx context.Context, _ *mesh.Message) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		},
	}
	if change != nil {
		change(&cfg)
	}
	m, err := mesh.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, events
}

func expect(t *testing.T, events <-chan mesh.PeerEvent, peer string, connected bool) {
	t.Helper()
	select {
	case e := <-events:
		if e.Peer.ID != peer || e.Connected != connected {
			t.Fatalf("got %+v, want %s, connected %t", e, peer, connected)
		}
	case <-time.After(patience):
		t.Fatalf("not within %s: %s, connected %t", patience, peer, connected)
	}
}

// awaitPeer blocks until an agent is linked to a peer, and forgets what it was told of others before.
func awaitPeer(t *testing.T, events <-chan mesh.PeerEvent, peer string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-events:
			if e.Peer.ID == peer && e.Connected {
				return
			}
		case <-deadline:
			t.Fatalf("not within %s: a link to %s", patience, peer)
		}
	}
}

// printed makes each line of a log one value of a channel.
type printed chan string

func (p printed) Write(b []byte) (int, error) {
	p <- strings.TrimSpace(string(b))
	return len(b), nil
}

func (p printed) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile("^" + pattern + "$")
	deadline := time.After(patience)
	for {
		select {
		case line := <-p:
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-deadline:
			t.Fatalf("nothing like %s printed within %s", pattern, patience)
		}
	}
}

// program starts the program as a whole and returns its address and what it prints.
func program(t *testing.T) (base string, out printed) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out = make(printed, 1000)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, log.New(out, "", 0), "127.0.0.1:0") }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return out.await(t, "open (http://.*) in a browser; .*")[1], out
}

// TestAgents is the program as another agent sees it.
func TestAgents(t *testing.T) {
	base, out := program(t)
	page, err := http.Get(base)
	if err != nil {
		t.Fatal(err)
	}
	html, err := io.ReadAll(page.Body)
	if err := errors.Join(err, page.Body.Close()); err != nil || !strings.Contains(string(html), "<title>A page on the mesh</title>") {
		t.Errorf("the page is %.200q, %v", html, err)
	}

	greetings := make(chan string, 10)
	m, events := agent(t, base, "page", func(cfg *mesh.Config) {
		cfg.Handlers["chat"] = func(_ context.Context, msg *mesh.Message) (any, error) {
			var text string
			err := msg.Decode(&text)
			greetings <- msg.From + ": " + text
			return nil, err
		}
	})
	for linked := map[string]bool{}; len(linked) < 2; {
		select {
		case e := <-events:
			linked[e.Peer.ID] = e.Connected
		case <-time.After(patience):
			t.Fatalf("linked to %v after %s, want alice and bob", linked, patience)
		}
	}
	select {
	case got := <-greetings:
		if got != "bob: hello page, bob here" {
			t.Errorf("greeted with %q", got)
		}
	case <-time.After(patience):
		t.Errorf("no greeting of bob within %s", patience)
	}
	for _, peer := range []string{"alice", "bob"} {
		reply, err := m.Request(t.Context(), peer, mesh.Message{Type: "task_request", Payload: map[string]string{"text": "three short words"}})
		var count struct{ Words int }
		if err == nil {
			err = reply.Decode(&count)
		}
		if err != nil || count.Words != 3 {
			t.Errorf("%s counts %d words of 3, %v", peer, count.Words, err)
		}
	}
	if err := m.Broadcast(t.Context(), mesh.Message{Type: "chat", Payload: "hi"}); err != nil {
		t.Error(err)
	}
	out.await(t, `(alice|bob): page says .*hi.*`)
}

// TestProgram is the program as a page sees it.
func TestProgram(t *testing.T) {
	b := seen(t)
	base, out := program(t)
	c := open(t, b, base, "page")
	c.awaitAll(`joined as page`, `\+ alice`, `\+ bob`, `bob: {"type":"chat","payload":"hello page, bob here"}`)
	c.command("peers")
	c.await(`peers: alice bob`)
	c.command(`request bob {"type":"task_request","payload":{"text":"three short words"}}`)
	c.await(`bob answers: .*"payload":{"words":3}}`)
	c.command(`broadcast {"type":"chat","payload":"hi"}`)
	out.await(t, `(alice|bob): page says .*hi.*`)
	c.await(`alice: {"type":"agent_status",.*`)

	for _, x := range []struct{ to, button, report string }{
		{"bob", "request", `^bob: answered in \d+ ms: {"words":5}$`},
		{"bob", "echo", `^bob: returned 1 MiB unchanged in \d+ ms$`},
		{"bob", "send", `^bob: sent$`},
		{"", "request", `^alice: answered in \d+ ms: {"words":5}\nbob: answered in \d+ ms: {"words":5}$`},
		{"", "echo", `^alice: returned 1 MiB unchanged in \d+ ms\nbob: returned 1 MiB unchanged in \d+ ms$`},
		{"", "send", `^everyone \(2 peers\): sent$`},
	} {
		c.press(x.to, x.button)
		c.reports(x.report)
	}
}

// press chooses a peer, or everyone if it is "", and presses a button.
func (c *console) press(to, button string) {
	c.t.Helper()
	c.eval(fmt.Sprintf(`{
		const { to } = document.getElementById("form").elements;
		to.value = %q;
		if (to.value !== %q) throw new Error("there is no such choice");
		document.querySelector("button[value=%s]").click();
	}`, to, to, button), nil)
}

// reports blocks until what the page shows of the last press of a button, with a line for each peer, matches.
func (c *console) reports(pattern string) {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	var report string
	defer func() {
		if c.t.Failed() {
			c.t.Logf("the page reports:\n%s", report)
		}
	}()
	testutil.Eventually(c.t, "a report that matches "+pattern, func() bool {
		c.eval(`[...document.querySelectorAll("output li")].map((li) => li.textContent).join("\n")`, &report)
		return re.MatchString(report)
	})
}

// TestButtons is what the buttons do without the peers that are asked for.
func TestButtons(t *testing.T) {
	base, b := serve(t), seen(t)
	c := open(t, b, base, "page")
	c.await(`joined as page`)
	for _, button := range []string{"send", "request", "echo"} {
		c.press("", button)
		c.reports(`^There are no peers yet\.$`)
	}

	alice, events := agent(t, base, "alice", nil)
	carol, others := agent(t, base, "carol", nil)
	c.awaitAll(`\+ alice`, `\+ carol`)
	c.become(`document.getElementById("form").elements.to[0].text === "everyone (2)"`)
	c.press("alice", "send")
	c.reports(`^alice: sent$`)
	awaitPeer(t, events, "page")
	awaitPeer(t, others, "page")
	c.press("", "request")
	c.reports(`^alice: .*no handler.*\ncarol: .*no handler.*$`)

	// The choice stays with a peer that goes, so that a message to it never goes to everyone instead.
	c.press("carol", "send")
	c.reports(`^carol: sent$`)
	if err := carol.Close(); err != nil {
		t.Error(err)
	}
	c.await(`- carol`)
	c.become(`document.getElementById("form").elements.to.selectedOptions[0].text === "carol (gone)"`)
	c.press("carol", "send")
	c.reports(`^carol: no link to carol$`)
	if err := alice.Close(); err != nil {
		t.Error(err)
	}
	c.await(`- alice`)
}

// TestReplaced: of two pages with one name the later one stays, and the other one says so and ends.
func TestReplaced(t *testing.T) {
	base, b := serve(t), seen(t)
	_, events := agent(t, base, "alice", nil)
	first := open(t, b, base, "page")
	first.await(`\+ alice`)
	expect(t, events, "page", true)
	const text = "replaced by another window or process with this key; reload to take over"
	replaced := func(c *console) {
		t.Helper()
		c.awaitAll(`error: signaling replaced: `+text, `- alice`)
		c.become(`document.getElementById("state").textContent === "` + text + `"`)
		c.command(`connect alice`)
		c.await(`error: peer_unavailable: .*`)
	}
	second := open(t, b, base, "page")
	second.await(`\+ alice`)
	expect(t, events, "page", false)
	expect(t, events, "page", true)
	replaced(first)

	if err := first.page.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.await(`\+ alice`)
	expect(t, events, "page", false)
	expect(t, events, "page", true)
	replaced(second)
	first.command(`request alice {"type":"echo_request","payload":1}`)
	first.await(`alice answers: .*`)
}

func TestPortInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	err = run(t.Context(), log.New(make(printed, 1), "", 0), listener.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "-addr") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}

// TestElsewhere: the development mode serves this machine only.
func TestElsewhere(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "nonsense"} {
		err := run(t.Context(), log.New(make(printed, 10), "", 0), addr)
		if err == nil || !strings.Contains(err.Error(), "-addr") {
			t.Errorf("%s: got %v, want an error that says what to do", addr, err)
		} else if addr != "nonsense" && !strings.Contains(err.Error(), "this machine only") {
			t.Errorf("%s: got %v, want an error that says why", addr, err)
		}
	}
	for _, addr := range []string{"localhost:0", "127.0.0.1:0"} {
		listener, err := listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPageAndAgent(t *testing.T) {
	base, b := serve(t), seen(t)
	m, events := agent(t, base, "alice", nil)
	c := open(t, b, base, "page")
	c.await(`\+ alice`)
	expect(t, events, "page", true)

	large := strings.Repeat("0123456789äöü\u2028😀\\", 1<<16)
	reply, err := m.Request(t.Context(), "page", mesh.Message{Type: "echo_request", Payload: large})
	var back string
	if err == nil {
		err = reply.Decode(&back)
	}
	if err != nil || back != large {
		t.Errorf("%d characters came back of %d, %v", len(back), len(large), err)
	}
	c.command(`request alice {"type":"echo_request","payload":"` + strings.Repeat("x€", 1<<18) + `"}`)
	line := c.await(`alice answers: {"type":"echo_response","request_id":"[0-9a-f]{12}","payload":"(x\\u20ac)+"}`)
	if n := strings.Count(line, `x\u20ac`); n != 1<<18 {
		t.Errorf("%d of %d characters came back", 2*n, 1<<19)
	}

	if _, err := m.Request(t.Context(), "page", mesh.Message{Type: "ping"}); err != nil {
		t.Error(err)
	}
	_, err = m.Request(t.Context(), "page", mesh.Message{Type: "odd_query"})
	if remote := (&mesh.RemoteError{}); !errors.As(err, &remote) || remote.Text != "no handler for odd_query" || remote.Code != mesh.CodeNoHandler {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := m.Request(ctx, "page", mesh.Message{Type: "sleep_request", RequestID: "nap1", Payload: map[string]int{"seconds": 60}})
		failed <- err
	}()
	c.await(`alice: {"type":"sleep_request","request_id":"nap1",.*`)
	cancel()
	c.await(`alice gave up on nap1`)
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	for _, x := range []struct{ command, line string }{
		{`send dave {"type":"chat"}`, `error: peer_not_connected: no link to dave`},
		{`request dave {"type":"x_request","request_id":"r1"}`, `error: request r1 to dave: no link to dave`},
		{`connect dave`, `error: peer_unavailable: no link to dave: it is not on the mesh`},
		{`connect page`, `error: peer_unavailable: no link to page: that is our own id`},
		{`connect`, `error: peer_unavailable: .*`},
		{`send alice hello`, `error: malformed: .*`},
		{`send alice ["hello"]`, `error: malformed: .*`},
		{`send alice {"type":7}`, `error: invalid_field: type .*`},
		{`cancel r1`, `error: invalid_field: no request r1 .*`},
		{`dance`, `error: unknown_type: .*peers, send, .*`},
		{`constructor`, `error: unknown_type: .*`},
		{`peers`, `peers: alice`},
	} {
		c.command(x.command)
		c.await(x.line)
	}
	c.command(`request alice {"type":"nap_request","request_id":"nap2"}`)
	c.command(`cancel nap2`)
	c.await(`error: request nap2 to alice: cancelled`)

	// A reload is a peer that restarts; what waits for it fails.
	go func() {
		_, err := m.Request(t.Context(), "page", mesh.Message{Type: "sleep_request", RequestID: "nap3", Payload: map[string]int{"seconds": 60}})
		failed <- err
	}()
	c.await(`alice: {"type":"sleep_request","request_id":"nap3",.*`)
	if err := c.page.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, mesh.ErrPeerGone) {
		t.Errorf("got %v, want %v", err, mesh.ErrPeerGone)
	}
	expect(t, events, "page", false)
	expect(t, events, "page", true)
	c.await(`\+ alice`)
	c.command("quit")
	expect(t, events, "page", false)
}

// TestPauses: an agent with slow handlers makes the page wait, and no message is lost.
func TestPauses(t *testing.T) {
	base, b := serve(t), seen(t)
	gate, got := make(chan struct{}), make(chan int, 1<<16)
	_, events := agent(t, base, "alice", func(cfg *mesh.Config) {
		cfg.Handlers["bulk"] = func(_ context.Context, msg *mesh.Message) (any, error) {
			<-gate
			var p struct{ N int }
			err := msg.Decode(&p)
			got <- p.N
			return nil, err
		}
	})
	c := open(t, b, base, "page")
	c.await(`\+ alice`)
	expect(t, events, "page", true)
	// Ten messages are more than the agent queues for its handlers. The following ones wait in the page, until they
	// are too many.
	script := `(async () => {
		let n = 0;
		const send = (data) => command("send alice " + JSON.stringify({ type: "bulk", payload: { n: n++, data } }));
		while (n < 10) send("x".repeat(1 << 20));
		for (;;) {
			for (let i = 0; i < 10; i++) send("");
			await new Promise((resolve) => setTimeout(resolve, 10));
			const failed = takeLines().filter((line) => line.startsWith("error: queue_full: not sent to alice: ")).length;
			if (failed > 0) return n - failed;
		}
	})()`
	var accepted int
	c.eval(script, &accepted)
	close(gate)
	deadline := time.After(patience)
	for n := range accepted {
		select {
		case i := <-got:
			if i != n {
				t.Fatalf("message %d came as number %d", i, n)
			}
		case <-deadline:
			t.Fatalf("%d of %d messages within %s", n, accepted, patience)
		}
	}
	c.command(`request alice {"type":"echo_request","payload":2}`)
	c.await(`alice answers: .*`)
}

// TestBack: a page that is left and returned to is a peer again, even if the browser has kept it meanwhile.
func TestBack(t *testing.T) {
	base, b := serve(t), seen(t)
	_, events := agent(t, base, "alice", nil)
	c := open(t, b, base, "page")
	c.await(`\+ alice`)
	expect(t, events, "page", true)

	c.eval(`addEventListener("pageshow", ({ persisted }) => persisted && (sessionStorage.kept = "yes"))`, nil)
	c.eval(`void setTimeout(() => (location.href = "/mesh.js"))`, nil)
	expect(t, events, "page", false)
	c.become(`location.pathname === "/mesh.js" && document.readyState === "complete"`)
	c.eval(`void setTimeout(() => history.back())`, nil)
	expect(t, events, "page", true)
	c.await(`\+ alice`)
	var kept bool
	c.eval(`sessionStorage.kept === "yes"`, &kept)
	t.Logf("the browser had kept the page: %t", kept)

	// The same in a browser that keeps no pages, with the events that it would send.
	c.eval(`void dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }))`, nil)
	expect(t, events, "page", false)
	c.eval(`void dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }))`, nil)
	expect(t, events, "page", true)
	c.await(`\+ alice`)
	c.command(`request alice {"type":"echo_request","payload":1}`)
	c.await(`alice answers: .*"payload":1}`)
}

func TestTwoPages(t *testing.T) {
	base, b := serve(t), seen(t)
	one, two := open(t, b, base, "one"), open(t, b, base, "zwö")
	one.await(`\+ zw\\u00f6`)
	two.await(`\+ one`)
	large := strings.Repeat("x", 1<<20)
	two.command(`request one {"type":"echo_request","payload":"` + large + `"}`)
	if line := two.await(`one answers: .*"payload":"x+"}`); !strings.Contains(line, large) {
		t.Errorf("%d bytes came back of %d", len(line), len(large))
	}
	two.command(`request one {"type":"sleep_request","payload":{"seconds":0.01}}`)
	two.await(`one answers: .*"payload":{"result":"slept 0.01 s"}}`)
	if err := two.page.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	one.await(`- zw.*`)
	one.await(`\+ zw.*`)
	two.await(`\+ one`)
	if err := two.page.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	one.await(`- zw.*`)
}

// TestHiddenAddresses: where the page cannot reach the agent, the agent has to reach the page, of which it knows only
// a .local name.
func TestHiddenAddresses(t *testing.T) {
	if !onNetwork(t) {
		t.Skip("only loopback is up, for which browsers have no .local name")
	}
	base, b := serve(t), browser(t)
	c := open(t, b, base, "page")
	c.await(`joined as page`)
	deaf := `void (RTCPeerConnection.prototype.addIceCandidate = async () => {})`
	c.eval(deaf, nil)
	_, events := agent(t, base, "alice", func(cfg *mesh.Config) { cfg.Network.MDNS = true })
	expect(t, events, "page", true)
	c.await(`\+ alice`)
}

func onNetwork(t *testing.T) bool {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		up := net.FlagUp | net.FlagMulticast
		if err == nil && i.Flags&net.FlagLoopback == 0 && i.Flags&up == up && len(addrs) > 0 {
			return true
		}
	}
	return false
}

// TestSignalingRestart: links survive without signaling, and new peers are linked once it is back.
func TestSignalingRestart(t *testing.T) {
	b := seen(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	stop := start(t, listener)
	_, events := agent(t, "http://"+addr, "alice", nil)
	c := open(t, b, "http://"+addr, "page")
	c.await(`\+ alice`)
	expect(t, events, "page", true)
	stop()
	c.command(`request alice {"type":"echo_request","payload":1}`)
	c.await(`alice answers: .*`)
	if listener, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	stop = start(t, listener)
	defer stop()
	c.await(`joined as page`)
	_, others := agent(t, "http://"+addr, "carol", nil)
	awaitPeer(t, others, "page")
	c.await(`\+ carol`)
	c.command(`request alice {"type":"echo_request","payload":2}`)
	c.await(`alice answers: .*`)
	select {
	case e := <-events:
		if e.Peer.ID == "page" {
			t.Errorf("the link was touched: %+v", e)
		}
	default:
	}
}

// TestBrowserIsKilled: a page that is gone without a word is known to be, without waiting until its link is given up.
func TestBrowserIsKilled(t *testing.T) {
	browser(t) // or there is none
	b, err := chromium.Start(t.Context(), chromium.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	base := serve(t)
	_, events := agent(t, base, "alice", func(c *mesh.Config) { c.Network.RecoveryTimeout = time.Hour })
	open(t, b, base, "page").await(`\+ alice`)
	expect(t, events, "page", true)
	b.Kill()
	expect(t, events, "page", false)
}

func start(t *testing.T, listener net.Listener) (stop func()) {
	t.Helper()
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: handler(server), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	return func() {
		if err := errors.Join(web.Close(), server.Close()); err != nil {
			t.Error(err)
		}
		<-served
	}
}

// TestRules runs the tests of what needs no browser, in Node: the rules of identities with the fixtures of the protocol.
func TestRules(t *testing.T) {
	node, err := exec.LookPath("node")
	switch {
	case err == nil:
	case testutil.Full():
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	if out, err := exec.Command(node, "--test", "testdata/identity.test.js").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCards: the page shows what its peers say of themselves, as text, and what it says itself.
func TestCards(t *testing.T) {
	base, b := serve(t), seen(t)
	const odd = `<img src=x onerror="throw 1"> & co`
	m, events := agent(t, base, "alice", func(cfg *mesh.Config) {
		cfg.Card = &mesh.Card{Name: odd, Version: "2.1", Skills: []mesh.Skill{{Name: "sum"}, {Name: "<b>sing</b>"}}}
	})
	c := open(t, b, base, "page")
	c.await(`\+ alice`)
	awaitPeer(t, events, "page")
	c.shows("peer-cards", "alice: "+odd+" 2.1; can sum, <b>sing</b>")
	c.shows("own-card", "This page: page, a page 1.0; can echo, count")
	var elements int
	c.eval(`document.querySelectorAll("#cards img, #cards b").length`, &elements)
	if elements != 0 {
		t.Errorf("a card has made %d elements", elements)
	}
	if reply, err := mesh.Call[int](t.Context(), m, mesh.BySkill("echo"), "", 7); reply != 7 || err != nil {
		t.Errorf("a call of the page by its skill: %d, %v", reply, err)
	}

	for _, x := range []struct {
		card  *mesh.Card
		shown string
	}{
		{&mesh.Card{Description: "of few words"}, "alice: a card without a name"},
		{nil, "alice: no card"},
	} {
		if err := m.SetCard(x.card); err != nil {
			t.Fatal(err)
		}
		c.shows("peer-cards", x.shown)
	}
	c.command(`card {"name":7,"version":"3","skills":[null,7,{"name":[]},{"name":"dance"}]}`)
	c.shows("own-card", "This page: 3; can dance")
	c.command(`card []`)
	c.await(`error: invalid_field: a card is an object, or null`)
	c.command(`card null`)
	c.shows("own-card", "This page: no card")
	testutil.Eventually(t, "the page has no card", func() bool {
		peers := m.Peers()
		return len(peers) == 1 && peers[0].Card == nil
	})
}

// shows blocks until an element of the page has this text.
func (c *console) shows(id, text string) {
	c.t.Helper()
	c.become(fmt.Sprintf("document.getElementById(%q).textContent === %q", id, text))
}

// TestScripts runs the modules' own tests in the browser.
func TestScripts(t *testing.T) {
	base, b := serve(t), seen(t)
	for _, module := range []string{"link", "session", "trust", "peers", "signaling", "base", "console", "picture"} {
		t.Run(module, func(t *testing.T) {
			script, err := os.ReadFile("testdata/" + module + ".js")
			if err != nil {
				t.Fatal(err)
			}
			c := open(t, b, base, "page")
			var failures []string
			c.eval(string(script), &failures)
			for _, f := range failures {
				t.Error(f)
			}
			if err := c.page.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
