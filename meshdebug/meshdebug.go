// Package meshdebug draws a mesh while it works: who is there, the links with their round trip times and rates, whether they are
// direct or relayed, what waits and what is held back, who has just come and gone, and the last minutes of it.
//
//	http.Handle("/debug/mesh/", meshdebug.Handler(m))
//
// It shows the links of the agent, and those of its peers that allow it: see Answer.
package meshdebug

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"mime"
	"net/http"
	"path"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/local"
)

//go:embed page
var page embed.FS

// An Option changes what Handler and Watch do.
type Option func(*options)

type options struct {
	allow    func(*http.Request) bool
	ownView  bool
	interval time.Duration
}

// Allow has a function say which requests are served, in place of the rule that they come from this machine: such as one that
// checks who is logged in. The page says who is on the mesh, by which addresses, and how much they send each other.
func Allow(allow func(*http.Request) bool) Option { return func(o *options) { o.allow = allow } }

// OwnView leaves it at the links of this agent: its peers are not asked for theirs.
func OwnView() Option { return func(o *options) { o.ownView = true } }

// Interval is the time from one sample to the next, 1 s by default and 100 ms at least. Peers are asked half as often, and less
// often where there are many.
func Interval(d time.Duration) Option { return func(o *options) { o.interval = d } }

func made(opts []Option) options {
	o := options{interval: defaultInterval}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// maxLookers is how many pages may be open at a time.
const maxLookers = 32

// writeTimeout is how long a page may take no data.
const writeTimeout = 10 * time.Second

// Handler returns the page, which is at every path that ends in a slash. Beside it are events, a stream of server-sent events,
// and stats.json, a Snapshot.
//
// Requests are refused unless they come from a program on this machine, and for a name of this machine: see Allow. Samples are taken
// while somebody looks. A stream ends with its request and with the mesh; http.Server.Shutdown waits for it, and Close ends it.
func Handler(m *mesh.Mesh, opts ...Option) http.Handler { return newHandler(m, opts) }

type handler struct {
	options
	c *collector
}

func newHandler(from source, opts []Option) *handler {
	o := made(opts)
	return &handler{o, newCollector(from, o.interval, o.ownView)}
}

// securityPolicy allows what the page consists of, and no HTML that is made of text.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	for name, value := range map[string]string{
		"Content-Security-Policy": securityPolicy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		header.Set(name, value)
	}
	_, name := path.Split(r.URL.Path)
	if err := h.check(r, name); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "there is only GET", http.StatusMethodNotAllowed)
		return
	}
	switch name {
	case "events":
		h.events(w, r)
	case "stats.json":
		h.stats(w, r)
	case "":
		h.file(w, r, "index.html")
	default:
		h.file(w, r, name)
	}
}

var (
	errNotAllowed = errors.New("not allowed")
	errOtherPage  = errors.New("not for pages of other sites")
)

// check returns why a request is refused, nil if it is not.
func (h *handler) check(r *http.Request, name string) error {
	if h.allow == nil {
		if err := local.Check(r); err != nil {
			return err
		}
	} else if !h.allow(r) {
		return errNotAllowed
	}
	// Browsers say which page wants something. A link on one may lead to the page itself.
	if site := r.Header.Get("Sec-Fetch-Site"); name != "" && site != "" && site != "same-origin" && site != "none" {
		return errOtherPage
	}
	return nil
}

func (h *handler) file(w http.ResponseWriter, r *http.Request, name string) {
	text, err := fs.ReadFile(page, "page/"+name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	types := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
	kind := types[path.Ext(name)]
	if kind == "" {
		kind = mime.TypeByExtension(path.Ext(name))
	}
	w.Header().Set("Content-Type", kind)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

// look begins to look, or says that too many do.
func (h *handler) look(w http.ResponseWriter) *looker {
	l := h.c.look(maxLookers)
	if l == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
	}
	return l
}

// stats responds with one snapshot. If nobody looks otherwise that takes a second or two, since rates are differences.
func (h *handler) stats(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "application/json")
		return
	}
	l := h.look(w)
	if l == nil {
		return
	}
	defer h.c.leave(l)
	for {
		select {
		case s := <-l.snapshots:
			if !s.settled {
				continue
			}
			text, err := json.MarshalIndent(s, "", " ")
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(append(text, '\n')) // whoever has asked may have gone
			return
		case <-h.c.from.Done():
			http.Error(w, "the mesh has ended", http.StatusServiceUnavailable)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// events responds with a stream: the history first, then each snapshot.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	l := h.look(w)
	if l == nil {
		return
	}
	defer h.c.leave(l)
	w.Header().Set("X-Accel-Buffering", "no")
	s := stream{w, http.NewResponseController(w)}
	err := s.send("history", h.c.history())
	for err == nil {
		select {
		case snapshot := <-l.snapshots:
			err = s.send("snapshot", snapshot)
		case <-h.c.from.Done():
			_ = s.send("end", struct{}{}) // if it fails the page finds out by itself
			return
		case <-r.Context().Done():
			return
		}
	}
}

// A stream is one of server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) send(event string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, text); err != nil {
		return err
	}
	return s.control.Flush()
}

// Watch returns snapshots, one each Interval, until the loop over them, ctx or the mesh ends. The first one is there after a second
// or two, since rates are differences.
func Watch(ctx context.Context, m *mesh.Mesh, opts ...Option) iter.Seq[*Snapshot] {
	return watch(ctx, m, opts)
}

func watch(ctx context.Context, from source, opts []Option) iter.Seq[*Snapshot] {
	return func(yield func(*Snapshot) bool) {
		o := made(opts)
		c := newCollector(from, o.interval, o.ownView)
		l := c.look(1)
		defer func() {
			c.leave(l)
			<-c.ended
		}()
		for settled := false; ; {
			select {
			case s := <-l.snapshots:
				if settled = settled || s.settled; settled && !yield(s) {
					return
				}
			case <-from.Done():
				return
			case <-ctx.Done():
				return
			}
		}
	}
}
