package meshdebug

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/interop/chromium"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// shots is where TestPage leaves pictures of what it sees.
var shots = flag.String("shots", "", "write screenshots to this `directory`")

func browser(t *testing.T) *chromium.Browser {
	t.Helper()
	testutil.SkipUnlessFull(t, "the tests of the page, which need Chromium")
	b, err := chromium.Start(t.Context(), chromium.Options{Dir: testutil.ShortDir(t)})
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

// A view of a page.
type tab struct {
	t *testing.T
	*chromium.Page
}

func open(t *testing.T, b *chromium.Browser, from source) tab {
	t.Helper()
	web := httptest.NewServer(newHandler(from, nil))
	t.Cleanup(web.Close)
	page, err := b.Open(t.Context(), web.URL+"/debug/mesh/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, thrown := range page.Errors() {
			t.Errorf("uncaught: %s", thrown)
		}
		if err := page.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	p := tab{t, page}
	p.resize(1280, 900, false)
	return p
}

func (p tab) resize(width, height int, dark bool) {
	p.t.Helper()
	if err := p.Resize(p.t.Context(), width, height, dark); err != nil {
		p.t.Fatal(err)
	}
}

// eval returns the value of an expression.
func eval[T any](p tab, expression string) (value T) {
	p.t.Helper()
	if err := p.Eval(p.t.Context(), expression, &value); err != nil {
		p.t.Fatal(err)
	}
	return value
}

func (p tab) become(condition string) {
	p.t.Helper()
	testutil.Eventually(p.t, condition, func() bool { return eval[bool](p, condition) })
}

// shoot leaves a picture, if they are wanted.
func (p tab) shoot(name string) {
	p.t.Helper()
	if *shots == "" {
		return
	}
	png, err := p.Screenshot(p.t.Context())
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

const (
	drawn  = `document.querySelectorAll("#ring g.node").length`
	lines  = `document.querySelectorAll("#ring path").length`
	listed = `document.querySelectorAll("#agents tbody tr").length`
)

func TestPage(t *testing.T) {
	b := browser(t)
	for _, n := range []int{3, 11, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			net, first := stage(t, n)
			p := open(t, b, first)
			p.become(fmt.Sprintf("%s === %d && %s === %d && %s === %[2]d", drawn, n, lines, n*(n-1)/2, listed))
			p.become(fmt.Sprintf(`document.querySelectorAll("#ring .tells").length === %d`, n-1))
			p.fits(n)
			if *shots != "" {
				time.Sleep(6 * time.Second)
			}
			p.shoot(fmt.Sprintf("%d-idle-light", n))
			load(t, net, n)
			p.become(`document.querySelectorAll("#ring path.busy").length >= 2 && document.querySelectorAll("#ring path.held").length >= 1`)
			p.become(`document.querySelectorAll("figure polyline").length >= 3`)
			if *shots != "" {
				time.Sleep(20 * time.Second)
			}
			p.shoot(fmt.Sprintf("%d-load-light", n))
			p.resize(1280, 900, true)
			p.shoot(fmt.Sprintf("%d-load-dark", n))
			p.choose(names(n)[2])
			p.shoot(fmt.Sprintf("%d-chosen-dark", n))
			p.resize(380, 800, false)
			p.become(`document.documentElement.scrollWidth <= innerWidth`)
			p.fits(n)
			p.shoot(fmt.Sprintf("%d-phone", n))
			eval[any](p, `scrollTo(0, 700)`)
			p.shoot(fmt.Sprintf("%d-phone-2", n))
		})
	}
}

// fits checks that no label leaves the drawing.
func (p tab) fits(n int) {
	p.t.Helper()
	out := eval[[]string](p, `new Promise((done) => setTimeout(() => {
		const frame = document.getElementById("ring").getBoundingClientRect();
		done([...document.querySelectorAll("#ring g.node text")].filter((e) => {
			const r = e.getBoundingClientRect();
			return r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1;
		}).map((e) => e.textContent));
	}, 200))`)
	if len(out) > 0 {
		p.t.Errorf("with %d agents these labels are cut off: %q", n, out)
	}
}

// choose has an agent chosen by keyboard, and checks what there is to see of it.
func (p tab) choose(id string) {
	p.t.Helper()
	eval[any](p, `document.querySelector("#ring g.node[tabindex='0']").focus()`)
	p.key("ArrowRight")
	for range 50 {
		if eval[string](p, `document.activeElement.dataset.id`) == id {
			break
		}
		p.key("ArrowRight")
	}
	p.key("Enter")
	quoted, _ := json.Marshal(id) // of a string: never fails
	p.become(fmt.Sprintf(`document.querySelector("#side-title").textContent === %s && document.querySelectorAll("#details tbody tr").length > 0`, quoted))
	p.become(`document.querySelector("#details dl").textContent.includes("work, remember")`)
	p.become(`document.querySelector("#agents tr.chosen button").getAttribute("aria-pressed") === "true"`)
}

func (p tab) key(name string) {
	p.t.Helper()
	eval[any](p, fmt.Sprintf(`document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: %q, bubbles: true, cancelable: true }))`, name))
}

// What a peer is called does nothing to the page, and shows as what it is.
func TestPageHostile(t *testing.T) {
	b := browser(t)
	net, first := stage(t, 2)
	for _, id := range hostileIDs {
		net.Join(id, mesh.Config{Card: &mesh.Card{Name: id, Version: id, Skills: []mesh.Skill{{Name: id}, {Name: id}}}})
	}
	p := open(t, b, first)
	p.become(fmt.Sprintf("%s === %d", drawn, 2+len(hostileIDs)))
	if n := eval[int](p, `document.querySelectorAll("img, iframe, script:not([src]), a[href^=javascript]").length + (window.hacked ? 100 : 0)`); n != 0 {
		t.Errorf("%d elements that an id has made", n)
	}
	if text := eval[string](p, `document.body.textContent`); containsAny(text, "\u202e\u2066\u0007") {
		t.Error("marks of direction are in the page")
	}
	for _, id := range hostileIDs {
		p.choose2(id)
	}
	p.shoot("hostile")
	for _, id := range hostileIDs {
		if err := net.Mesh(id).Close(); err != nil {
			t.Error(err)
		}
	}
	p.become(fmt.Sprintf(`document.querySelectorAll("#ring g.gone").length === %d && document.querySelectorAll("#events .gone").length >= 1`, len(hostileIDs)))
}

// choose2 chooses an agent in the table.
func (p tab) choose2(id string) {
	p.t.Helper()
	quoted, _ := json.Marshal(id) // of a string: never fails
	eval[any](p, fmt.Sprintf(`[...document.querySelectorAll("#ring g.node")].find((e) => e.dataset.id === %s).dispatchEvent(new MouseEvent("click"))`, quoted))
	p.become(`document.querySelectorAll("#details tbody tr").length > 0`)
}

// Pages that are open have the same to show, and one that is closed is not looked for.
func TestPageHold(t *testing.T) {
	b := browser(t)
	net, first := stage(t, 3)
	p := open(t, b, first)
	p.become(drawn + " === 3")
	eval[any](p, `document.getElementById("hold").click()`)
	net.Join("late", mesh.Config{})
	time.Sleep(1500 * time.Millisecond)
	if n := eval[int](p, drawn); n != 3 {
		t.Errorf("a page that is to hold still draws %d agents", n)
	}
	eval[any](p, `document.getElementById("hold").click()`)
	p.become(drawn + ` === 4 && document.querySelectorAll("#ring .fresh").length >= 1`)
}
