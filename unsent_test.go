//go:build linux || darwin

package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// Close tells how many of the messages that were accepted a frozen peer may not have, wherever the sidecar runs, and
// repeats it; what a peer that reads has got is not among them.
func TestCloseTellsUnsent(t *testing.T) {
	st := newStage(t, buildSidecar(t))
	for _, mode := range modesHere() {
		t.Run(mode.String(), func(t *testing.T) {
			bob, carol := st.start(t, SelfExec, "bob"), st.start(t, InProcess, "carol")
			alice := st.startAs(t, mode, "alice", Identity{}, func(cfg *Config) { cfg.DrainTimeout = 500 * time.Millisecond })
			var got testutil.Record[*Message]
			bob.on(t, "note", collect(&got))
			carol.on(t, "note", collect(new(testutil.Record[*Message])))
			for _, peer := range []string{"bob", "carol"} {
				if err := alice.WaitPeer(bounded(t), peer); err != nil {
					t.Fatal(err)
				}
			}
			if err := alice.Send(bounded(t), "bob", Message{Type: "note"}); err != nil {
				t.Fatal(err)
			}
			got.Wait(t, "the first message", func(all []*Message) bool { return len(all) == 1 })
			held := make(chan struct{})
			defer close(held)
			bob.serve(t, "hold", ListenConfig{}, func(*Conn) { <-held })
			c := dialled(t, alice, "bob", "hold")
			pid := bob.SidecarPID()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may be gone
			var status syscall.WaitStatus                                // threads of it may run on for a moment
			if _, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
				t.Fatalf("not stopped: %v, %v", status, err)
			}
			// What is written to a stream that is not read holds up no message to others.
			if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(make([]byte, 8<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("Write: %v", err)
			}
			_ = c.Close()
			const count = 1000
			for range count {
				for _, peer := range []string{"bob", "carol"} {
					if err := alice.Send(bounded(t), peer, Message{Type: "note"}); err != nil {
						t.Fatal(err)
					}
				}
			}
			err := alice.Close()
			var unsent *UnsentError
			if !errors.Is(err, ErrUnsent) || !errors.As(err, &unsent) || len(unsent.Peers) != 1 || unsent.Peers[0].Peer != "bob" || unsent.Err != nil {
				t.Fatalf("Close: %v", err)
			}
			if n := unsent.Peers[0].Messages; n < count || n > count+1 { // the first one may not be acknowledged yet
				t.Errorf("up to %d messages, want %d: %v", n, count, err)
			}
			if text := fmt.Sprintf("up to %d messages to \"bob\" may not have arrived", unsent.Peers[0].Messages); !strings.Contains(err.Error(), text) {
				t.Errorf("%v does not say %q", err, text)
			}
			if again := alice.Close(); again != err { //nolint:errorlint // the very same
				t.Errorf("the second Close: %v", again)
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
			alice.ended.Do(func() { // with an error
				if alice.own != nil {
					alice.own.end(t)
				}
			})
			testutil.Eventually(t, "alice is gone", func() bool { return len(bob.Peers()) == 1 && len(carol.Peers()) == 1 })
			bob.end(t)
			carol.end(t)
		})
	}
}

// What the sidecar says, and that it says nothing, becomes the error of Close; but only if there was a message.
func TestCloseError(t *testing.T) {
	drained := func(payload string) func(*fakeSidecar) {
		return func(f *fakeSidecar) { f.say(`{"type":"drained","payload":` + payload + `}`) }
	}
	for name, tt := range map[string]struct {
		drain func(*fakeSidecar) // nil: it says that it is drained
		quiet bool               // nothing was sent
		want  string             // "" for none
		is    error
	}{
		"all sent":          {},
		"not all sent":      {drain: drained(`{"peers":["carol","bob"],"unsent":[1,7]}`), want: `up to 7 messages to "bob", up to 1 messages to "carol" may not`},
		"nothing said":      {drain: func(*fakeSidecar) {}, want: "did not respond within 3s"},
		"nothing to say":    {drain: func(*fakeSidecar) {}, quiet: true},
		"sidecar ends":      {drain: func(f *fakeSidecar) { f.hangUp() }, want: "EOF", is: ErrSidecarLost},
		"nonsense, nothing": {drain: drained(`{"peers":["bob"]}`), want: "did not respond within 3s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, f := newFakeAgent(t, Config{}, true)
				f.connect("bob")
				synctest.Wait()
				f.onDrain(tt.drain)
				if !tt.quiet {
					if err := m.Send(context.Background(), "bob", Message{Type: "x"}); err != nil {
						t.Fatal(err)
					}
				}
				err := m.Close()
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("got %v", err)
				case tt.want == "":
				case !errors.Is(err, ErrUnsent) || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is):
					t.Errorf("got %v, want ...%s... (%v)", err, tt.want, tt.is)
				}
			})
		})
	}
}
