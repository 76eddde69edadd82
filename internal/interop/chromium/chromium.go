// Package chromium drives a headless Chromium in tests, over the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol).
package chromium

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrNotFound means that this machine has no Chromium.
var ErrNotFound = errors.New("no chromium, chromium-browser or google-chrome on the PATH")

// closeTimeout bounds each step of Close.
const closeTimeout = 30 * time.Second

// flags are for a machine without display, sandbox and internet. Pages in the background keep running, because tests
// use several at a time.
var flags = []string{
	"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
	"--disable-background-networking", "--disable-component-update", "--disable-sync",
	"--disable-breakpad", "--disable-crash-reporter",
	"--disable-background-timer-throttling", "--disable-renderer-backgrounding",
	"--disable-backgrounding-occluded-windows",
	// Without this flag pages do not use loopback addresses, which may be the only ones.
	"--allow-loopback-in-peer-connection",
	"--remote-debugging-port=0",
}

// Options configures Start.
type Options struct {
	Path string   // the executable; empty means the first one found on the PATH
	Dir  string   // an empty directory for all that the browser writes; required
	Args []string // flags in addition to those for a headless browser without internet
}

// Browser is a running Chromium.
type Browser struct {
	cmd    *exec.Cmd
	conn   *conn
	exited chan struct{} // closed after cmd.Wait
	close  sync.Once
	err    error
}

// Find returns the path of a Chromium, or ErrNotFound.
func Find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotFound
}

// Start starts a browser without a page. ctx bounds only the start; Close ends the browser.
func Start(ctx context.Context, o Options) (*Browser, error) {
	if o.Dir == "" {
		return nil, errors.New("chromium: Options.Dir is empty; use an empty directory, such as t.TempDir()")
	}
	if o.Path == "" {
		path, err := Find()
		if err != nil {
			return nil, err
		}
		o.Path = path
	}
	stderr, err := os.Create(filepath.Join(o.Dir, "stderr.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = stderr.Close() }() // the browser has its own copy
	b := &Browser{exited: make(chan struct{})}
	b.cmd = exec.Command(o.Path, append(append(append([]string{}, flags...), "--user-data-dir="+o.Dir), o.Args...)...)
	// A file instead of a pipe, because Wait must not wait for grandchildren.
	b.cmd.Stderr = stderr
	b.cmd.Env = append(os.Environ(), "HOME="+o.Dir, "TMPDIR="+o.Dir,
		"XDG_CONFIG_HOME="+o.Dir, "XDG_CACHE_HOME="+o.Dir, "XDG_RUNTIME_DIR="+o.Dir)
	ownGroup(b.cmd)
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("chromium: %w", err)
	}
	go func() {
		_ = b.cmd.Wait() // its status does not matter
		close(b.exited)
	}()
	if b.conn, err = b.connect(ctx, o.Dir); err != nil {
		text, _ := os.ReadFile(stderr.Name())
		_ = b.Close()
		return nil, fmt.Errorf("chromium: start %s: %w; its stderr ends: %s", o.Path, err, tail(string(text), 2000))
	}
	return b, nil
}

func tail(s string, n int) string { return strings.TrimSpace(s[max(0, len(s)-n):]) }

// connect waits for the file in which Chromium writes its address, and dials that.
func (b *Browser) connect(ctx context.Context, dir string) (*conn, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(dir, "DevToolsActivePort"))
		if port, path, ok := strings.Cut(strings.TrimSpace(string(text)), "\n"); err == nil && ok {
			return dial(ctx, "ws://127.0.0.1:"+port+path)
		}
		select {
		case <-tick.C:
		case <-b.exited:
			return nil, fmt.Errorf("it has ended: %s", b.cmd.ProcessState)
		case <-ctx.Done():
			return nil, fmt.Errorf("no DevToolsActivePort in %s: %w", dir, ctx.Err())
		}
	}
}

// Close ends the browser and returns once none of its processes is left. It does not wait for what pages do when they
// are closed; Page.Close does.
func (b *Browser) Close() error {
	b.close.Do(func() { b.err = b.shutdown() })
	return b.err
}

// Kill ends the browser without a word to anybody. Close is still to be called.
func (b *Browser) Kill() { killGroup(b.cmd) }

func (b *Browser) shutdown() error {
	if b.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		// Gracefully if possible, because only then Chromium removes its temporary files.
		if b.conn.call(ctx, "", "Browser.close", nil, nil) == nil {
			select {
			case <-b.exited:
			case <-ctx.Done():
			}
		}
		b.conn.close()
	}
	killGroup(b.cmd)
	deadline := time.NewTimer(closeTimeout)
	defer deadline.Stop()
	select {
	case <-b.exited:
	case <-deadline.C:
		return fmt.Errorf("chromium: process %d has not ended %s after SIGKILL", b.cmd.Process.Pid, closeTimeout)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for groupAlive(b.cmd) {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("chromium: some processes of group %d have not ended %s after SIGKILL", b.cmd.Process.Pid, closeTimeout)
		}
	}
	return nil
}

// ShowAddresses makes pages that are opened from now on reveal their addresses to peers, as after a user has granted
// them the microphone. By default they give out a .local name for each address, and none for loopback.
func (b *Browser) ShowAddresses(ctx context.Context) error {
	return b.conn.call(ctx, "", "Browser.grantPermissions", object{"permissions": []string{"audioCapture"}}, nil)
}

// Page is one tab.
type Page struct {
	conn    *conn
	target  string
	session string
}

// Open opens a page in a new tab and blocks until it is loaded.
func (b *Browser) Open(ctx context.Context, url string) (*Page, error) {
	p := &Page{conn: b.conn}
	var target struct{ TargetID string }
	err := p.conn.call(ctx, "", "Target.createTarget", object{"url": "about:blank"}, &target)
	if err != nil {
		return nil, err
	}
	p.target = target.TargetID
	var attached struct{ SessionID string }
	err = p.conn.call(ctx, "", "Target.attachToTarget", object{"targetId": p.target, "flatten": true}, &attached)
	if err != nil {
		return nil, err
	}
	p.session = attached.SessionID
	for _, domain := range []string{"Page.enable", "Runtime.enable"} {
		if err := p.call(ctx, domain, nil, nil); err != nil {
			return nil, err
		}
	}
	return p, p.load(ctx, "Page.navigate", object{"url": url})
}

func (p *Page) call(ctx context.Context, method string, params, result any) error {
	return p.conn.call(ctx, p.session, method, params, result)
}

// load makes a call that loads a document, and blocks until that is loaded.
func (p *Page) load(ctx context.Context, method string, params any) error {
	loaded, stop := p.conn.await(p.session, "Page.loadEventFired")
	defer stop()
	var result struct{ ErrorText string }
	if err := p.call(ctx, method, params, &result); err != nil {
		return err
	}
	if result.ErrorText != "" {
		return fmt.Errorf("chromium: %s %v: %s", method, params, result.ErrorText)
	}
	select {
	case <-loaded:
		return nil
	case <-p.conn.done:
		return p.conn.err
	case <-ctx.Done():
		return fmt.Errorf("chromium: waiting for the page to load: %w", ctx.Err())
	}
}

// Before has a script run in every document that the page loads from now on, before the document's own scripts.
func (p *Page) Before(ctx context.Context, script string) error {
	return p.call(ctx, "Page.addScriptToEvaluateOnNewDocument", object{"source": script}, nil)
}

// Reload reloads the page and blocks until it is loaded.
func (p *Page) Reload(ctx context.Context) error { return p.load(ctx, "Page.reload", nil) }

// Eval evaluates a JavaScript expression, awaits it if it is a promise, and decodes its value, as JSON, into result; a
// nil result discards the value. An exception is an error.
func (p *Page) Eval(ctx context.Context, expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *exception
	}
	err := p.call(ctx, "Runtime.evaluate", object{
		"expression": expression, "awaitPromise": true, "returnByValue": true,
	}, &answer)
	switch {
	case err != nil:
		return err
	case answer.ExceptionDetails != nil:
		return fmt.Errorf("chromium: %.200s: %s", expression, answer.ExceptionDetails)
	case result == nil || answer.Result.Value == nil:
		return nil
	}
	return json.Unmarshal(answer.Result.Value, result)
}

// Errors returns the uncaught exceptions of the page.
func (p *Page) Errors() []string { return p.conn.thrown(p.session) }

// Resize gives the page a window of this size, in CSS pixels; dark sets prefers-color-scheme.
func (p *Page) Resize(ctx context.Context, width, height int, dark bool) error {
	err := p.call(ctx, "Emulation.setDeviceMetricsOverride",
		object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	if err != nil {
		return err
	}
	scheme := map[bool]string{false: "light", true: "dark"}[dark]
	return p.call(ctx, "Emulation.setEmulatedMedia",
		object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Screenshot returns the visible part of the page as PNG.
func (p *Page) Screenshot(ctx context.Context) ([]byte, error) {
	// Chromium draws nothing of a tab in the background, and would make us wait for that.
	if err := p.call(ctx, "Page.bringToFront", nil, nil); err != nil {
		return nil, err
	}
	var shot struct{ Data string }
	if err := p.call(ctx, "Page.captureScreenshot", object{"format": "png"}, &shot); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(shot.Data)
}

// Close closes the tab as a user does, and returns once it is closed.
func (p *Page) Close(ctx context.Context) error {
	gone, stop := p.conn.await("", "Target.detachedFromTarget:"+p.session)
	defer stop()
	if err := p.call(ctx, "Page.close", nil, nil); err != nil {
		return err
	}
	select {
	case <-gone:
		return nil
	case <-p.conn.done:
		return p.conn.err
	case <-ctx.Done():
		return fmt.Errorf("chromium: waiting for the page to close: %w", ctx.Err())
	}
}
