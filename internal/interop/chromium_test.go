//go:build linux || darwin

package interop

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/interop/chromium"
)

// theBrowser is shared by all tests, and started with the first page.
var theBrowser struct {
	sync.Mutex
	*chromium.Browser
}

func browser(t *testing.T) *chromium.Browser {
	t.Helper()
	theBrowser.Lock()
	defer theBrowser.Unlock()
	if theBrowser.Browser != nil {
		return theBrowser.Browser
	}
	dir, err := os.MkdirTemp("", "chromium") // removed by TestMain
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := chromium.Start(ctx, chromium.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	// By default pages hide their addresses. Machines with loopback only need them, as do two pages on a network
	// without multicast.
	if err := b.ShowAddresses(ctx); err != nil {
		t.Fatal(err)
	}
	theBrowser.Browser = b
	return b
}

// closeBrowser ends the shared browser.
func closeBrowser() error {
	theBrowser.Lock()
	defer theBrowser.Unlock()
	if theBrowser.Browser == nil {
		return nil
	}
	return theBrowser.Close()
}

// A pageParty is the page of the browser example, in a tab of its own.
type pageParty struct {
	page  *chromium.Page
	lines *transcript
	stop  context.CancelFunc
	done  chan struct{}

	quitOnce sync.Once
	quitErr  error
}

func startPage(t *testing.T, st *stage, id string) console {
	t.Helper()
	return openPage(t, st, url.Values{"name": {id}})
}

// openPage opens the page with settings in its address.
func openPage(t *testing.T, st *stage, settings url.Values) *pageParty {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	page, err := browser(t).Open(ctx, st.web.URL+"/?"+settings.Encode())
	if err != nil {
		t.Fatal(err)
	}
	p := &pageParty{page: page, lines: newTranscript(), done: make(chan struct{})}
	var listening context.Context
	listening, p.stop = context.WithCancel(context.Background())
	go func() {
		defer close(p.done)
		p.listen(listening)
	}()
	t.Cleanup(func() { _ = p.quit() })
	return p
}

// listen polls for the lines that the page prints.
func (p *pageParty) listen(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var lines []string
		if p.page.Eval(ctx, "takeLines()", &lines) == nil {
			for _, l := range lines {
				p.lines.add(l)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// say does not wait for the outcome of the command.
func (p *pageParty) say(line string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	quoted, err := json.Marshal(line)
	if err != nil {
		return err
	}
	return p.page.Eval(ctx, "void command("+string(quoted)+")", nil)
}

func (p *pageParty) said() *transcript { return p.lines }

func (p *pageParty) log() string { return strings.Join(p.page.Errors(), "\n") }

// quit closes the tab, as a user does.
func (p *pageParty) quit() error {
	p.quitOnce.Do(func() {
		p.stop()
		<-p.done
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p.quitErr = p.page.Close(ctx)
	})
	return p.quitErr
}

// reload restarts the page. To others it is a restarted peer.
func (p *pageParty) reload() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.page.Reload(ctx)
}

// TestReload: a page that is reloaded is a peer that restarts.
func TestReload(t *testing.T) {
	full(t)
	page := kindNamed("Chromium")
	for _, stays := range []string{"InProcess", "BaseAgent", "Chromium"} {
		t.Run(stays, func(t *testing.T) {
			t.Parallel()
			st := newStage(t)
			ann := st.enter(t, kindNamed(stays), "ann")
			bob := st.enter(t, page, "bob")
			for nth := 1; nth <= 3; nth++ {
				ann.await(nth, "+ bob")
				bob.await(nth, "+ ann")
				if lost := ann.times("- bob"); lost != nth-1 {
					t.Errorf("ann lost bob %d times before the page was loaded for the %dth time", lost, nth)
				}
				ann.pings(bob, nth)
				bob.pings(ann, nth)
				if err := bob.console.(*pageParty).reload(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
