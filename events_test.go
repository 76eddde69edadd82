package mesh

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// What the sidecar says of signaling is the mesh's status.
func TestSignalingEvents(t *testing.T) {
	for payload, want := range map[string]struct {
		state SignalingState
		err   error
		text  string
	}{
		`{"state":"connected","peer_id":"me"}`:                                      {SignalingConnected, nil, ""},
		`{"state":"connecting","peer_id":"me","error":"dial: refused"}`:             {SignalingConnecting, nil, "mesh: no signaling connection: dial: refused"},
		`{"state":"connecting","peer_id":"me","error":"no","code":"misconfigured"}`: {SignalingConnecting, ErrMisconfigured, "no"},
		`{"state":"refused","peer_id":"me","error":"401"}`:                          {SignalingRefused, ErrRefused, "401"},
	} {
		t.Run(payload, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := make(chan SignalingStatus, 1)
				m, f := newFakeAgent(t, Config{OnSignaling: func(s SignalingStatus) { told <- s }}, true)
				f.say(`{"type":"signaling","payload":` + payload + `}`)
				got := testutil.Take(t, "the status", told)
				if got.State != want.state || got.PeerID != "me" || m.Signaling() != got || m.ID() != "me" {
					t.Errorf("got %+v, and the mesh has %+v", got, m.Signaling())
				}
				if (got.Err == nil) != (want.text == "") || want.err != nil && !errors.Is(got.Err, want.err) ||
					got.Err != nil && !strings.HasSuffix(got.Err.Error(), want.text) {
					t.Errorf("the error is %v", got.Err)
				}
			})
		})
	}
}

// A caller who waited for a peer in vain is told what is wrong with signaling.
func TestWaitWithoutSignaling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		f.say(`{"type":"signaling","payload":{"state":"refused","error":"401"}}`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := m.WaitPeer(ctx, "bob")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "signaling is refused") {
			t.Errorf("got %v", err)
		}
	})
}

// An error of the sidecar is for the caller that waits for it, if one does, else
// for OnError, with the public error of its code.
func TestErrorEvents(t *testing.T) {
	for _, tt := range []struct {
		code string
		want error
	}{
		{"peer_not_connected", ErrNotConnected}, {"peer_unavailable", ErrNotConnected}, {"peer_lost", ErrPeerGone},
		{"too_large", ErrTooLarge}, {"too_deep", ErrTooLarge}, {"queue_full", ErrCongested},
		{"malformed", ErrInvalid}, {"invalid_field", ErrInvalid}, {"unknown_type", ErrInvalid},
		{"of_tomorrow", nil},
	} {
		t.Run(tt.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reports := make(chan error, 8)
				m, f := newFakeAgent(t, Config{OnError: func(err error) { reports <- err }}, true)
				f.connect("bob")
				synctest.Wait()
				fail := func(more string) {
					f.say(`{"type":"error","payload":{"code":"` + tt.code + `","message":"the reason"` + more + `}}`)
				}
				check := func(err error, op, peer, id string) {
					t.Helper()
					if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "the reason") {
						t.Errorf("got %v, want %v", err, tt.want)
					}
					var pe *PeerError
					if errors.As(err, &pe) != (op != "") || pe != nil && (pe.Op != op || pe.Peer != peer || pe.RequestID != id) {
						t.Errorf("got %#v", pe)
					}
				}
				done := ask(t.Context(), m, "bob", Message{Type: "x_request", RequestID: "1"})
				f.heard()
				fail(`,"command":"send","target_peer":"bob","request_id":"1"`)
				check((<-done).err, "request", "bob", "1")

				connected := make(chan error, 1)
				go func() { connected <- m.Connect(t.Context(), "carol") }()
				f.heard()
				fail(`,"command":"connect","target_peer":"carol"`)
				check(<-connected, "connect", "carol", "")

				if synctest.Wait(); len(reports) != 0 {
					t.Errorf("reported, too: %v", <-reports)
				}
				for _, late := range []struct{ more, op, peer, id string }{
					{`,"command":"send","target_peer":"bob","request_id":"1"`, "send", "bob", "1"},
					{`,"command":"connect","target_peer":"carol"`, "connect", "carol", ""},
					{`,"target_peer":"bob"`, "command", "bob", ""},
					{``, "", "", ""},
				} {
					fail(late.more)
					check(testutil.Take(t, "the report", reports), late.op, late.peer, late.id)
				}
			})
		})
	}
}

// A sidecar that belongs to another agent refuses this one.
func TestUnauthorized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := make(chan error, 8)
		_, f := newFakeAgent(t, Config{OnError: func(err error) { reports <- err }}, true)
		f.say(`{"type":"error","payload":{"code":"unauthorized","message":"who are you?"}}`)
		f.hangUp()
		if err := testutil.Take(t, "the loss", reports); !errors.Is(err, errUnauthorized) || !strings.Contains(err.Error(), "who are you?") {
			t.Errorf("reported %v", err)
		}
	})
}

// A line that is wrong is reported, and the next one is read.
func TestBadEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := make(chan error, 8)
		m, f := newFakeAgent(t, Config{OnError: func(err error) { reports <- err }}, true)
		for _, line := range []string{
			`no JSON`,
			`{"type":"ready","payload":{"features":7}}`,
			`{"type":"peer_list","payload":{"peers":"bob"}}`,
			`{"type":"signaling","payload":{"state":7}}`,
			`{"type":"error","payload":{"code":7}}`,
			`{"type":"message","payload":{"from_peer":"stranger","message":{"type":"x"}}}`,
		} {
			f.say(line)
			err := testutil.Take(t, "the report of "+line, reports)
			if stranger := strings.Contains(line, "stranger"); errors.Is(err, ErrNotConnected) != stranger {
				t.Errorf("%s: reported %v", line, err)
			}
		}
		f.connect("bob")
		if err := m.WaitPeer(t.Context(), "bob"); err != nil {
			t.Error(err)
		}
	})
}

// A sidecar that cannot be started any more ends the mesh.
func TestCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports testutil.Record[error]
		m, f := newFakeAgent(t, Config{Mode: SelfExec, OnError: reports.Add}, true)
		f.fail(errors.New("out of paper"))
		f.hangUp()
		testutil.Take(t, "the end of the mesh", m.Done())
		if err := m.Err(); !errors.Is(err, ErrCrashLoop) || !strings.Contains(err.Error(), "out of paper") {
			t.Errorf("the mesh ended with %v", err)
		}
		if all := reports.All(); len(all) != maxShortLives || !errors.Is(all[0], ErrSidecarLost) {
			t.Errorf("reported %v", all)
		}
		if err := m.Send(t.Context(), "bob", Message{Type: "n"}); !errors.Is(err, ErrCrashLoop) {
			t.Errorf("Send: %v", err)
		}
	})
}

// Callbacks run one at a time. One that panics is logged; one that does not return
// has the mesh drop notices, not grow.
func TestCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testutil.LogBuffer
		var told testutil.Record[error]
		release := make(chan struct{})
		m, f := newFakeAgent(t, Config{Logger: zerolog.New(&log), OnError: func(err error) {
			told.Add(err)
			switch told.Len() {
			case 1:
				panic("out of paper")
			case 2:
				<-release
			}
		}}, true)
		f.say("no JSON")
		synctest.Wait()
		if told.Len() != 1 || log.Count("out of paper") != 1 {
			t.Errorf("%d told; the log:\n%s", told.Len(), &log)
		}
		for range maxNotices + 1 { // one of them is being told
			f.say("no JSON")
		}
		<-time.After(time.Minute) // not all is logged at once
		f.say("no JSON")
		f.say("no JSON")
		synctest.Wait()
		close(release)
		f.connect("bob")
		if err := m.WaitPeer(t.Context(), "bob"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := told.Len(); n != maxNotices+2 || log.Count("notice dropped") != 2 {
			t.Errorf("%d of %d are told, %d losses are logged", n, maxNotices+4, log.Count("notice dropped"))
		}
	})
}

func TestDecode(t *testing.T) {
	var n int
	if err := (&Message{Payload: 7}).Decode(&n); err != nil || n != 7 {
		t.Errorf("got %d, %v", n, err)
	}
	p := &n
	if err := new(Message).Decode(&p); err != nil || p != nil {
		t.Errorf("no payload: got %v, %v; want nil", p, err)
	}
	err := (&Message{Type: "x", From: "bob", Payload: "seven"}).Decode(&n)
	if err == nil || !strings.HasPrefix(err.Error(), `mesh: payload of x from "bob": `) {
		t.Errorf("got %v", err)
	}
	if err := (&Message{Payload: func() {}}).Decode(&n); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
