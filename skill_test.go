package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// offering is a peer that offers a skill.
func offering(peer, skill string) string {
	return fmt.Sprintf(`{"type":"peer_connected","payload":{"peer_id":%q,"card":{"skills":[{"name":%q}]}}}`, peer, skill)
}

// asked returns whom the agent has just asked, and by which request.
func (f *fakeSidecar) asked() (peer, typ, id string) {
	f.t.Helper()
	payload, _ := f.heard()["payload"].(map[string]any)
	msg, _ := payload["message"].(map[string]any)
	peer, _ = payload["target_peer"].(string)
	typ, _ = msg["type"].(string)
	id, _ = msg["request_id"].(string)
	return peer, typ, id
}

// bySkill calls any peer with the skill x, beside the test.
func bySkill(m *Mesh, typ string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := Call[any](context.Background(), m, BySkill("x"), typ, nil)
		done <- err
	}()
	return done
}

// Of the peers that offer a skill the one with the fewest requests pending is asked, and those that take no new work last.
func TestLeastBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		for _, peer := range []string{"a", "b", "c"} {
			f.say(offering(peer, "x"))
		}
		f.say(offering("other", "y"))
		f.say(`{"type":"peer_connected","payload":{"peer_id":"none"}}`)
		f.say(`{"type":"pause","payload":{"peer_id":"c"}}`)
		synctest.Wait()
		count, ids := map[string]int{}, map[string]string{}
		var calls []<-chan error
		for range 10 {
			calls = append(calls, bySkill(m, ""))
			peer, typ, id := f.asked()
			if typ != "x_request" {
				t.Errorf("the request is %s", typ)
			}
			count[peer]++
			ids[id] = peer
		}
		if count["a"] != 5 || count["b"] != 5 {
			t.Errorf("asked %v", count)
		}
		for id, peer := range ids {
			f.reply(peer, id)
		}
		for _, c := range calls {
			if err := <-c; err != nil {
				t.Error(err)
			}
		}
	})
}

// A peer that is busy, or goes before it was sent anything, is passed over; another failure is that of the call.
func TestNextBySkill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		fail := func(peer, id, code string) {
			f.say(from(peer, `{"type":"x_response","request_id":"`+id+`","payload":{"error":"no","code":"`+code+`"}}`))
		}
		f.say(`{"type":"peer_connected","payload":{"peer_id":"liar","card":{"skills":[{"name":"x","type":"x_response"}]}}}`) // it could not respond
		synctest.Wait()
		if err := <-bySkill(m, ""); !errors.Is(err, ErrNoSkill) {
			t.Errorf("nobody offers it: %v", err)
		}
		ended, cancel := context.WithCancelCause(t.Context())
		cancel(io.EOF)
		if _, err := Call[any](ended, m, BySkill("x"), "", nil); !errors.Is(err, io.EOF) {
			t.Errorf("under a context that has ended: %v", err)
		}
		f.say(offering("a", "x"))
		f.say(offering("b", "x"))
		synctest.Wait()

		call := bySkill(m, "y_request")
		first, typ, id := f.asked()
		if typ != "y_request" {
			t.Errorf("the request is %s", typ)
		}
		fail(first, id, "busy")
		second, _, id := f.asked()
		if second == first {
			t.Errorf("%s was asked again", first)
		}
		f.say(from(second, `{"type":"y_response","request_id":"`+id+`"}`))
		if err := <-call; err != nil {
			t.Error(err)
		}

		call = bySkill(m, "")
		for range 2 {
			peer, _, id := f.asked()
			fail(peer, id, "busy")
		}
		if err := <-call; !errors.Is(err, ErrBusy) {
			t.Errorf("all are busy: %v", err)
		}

		call = bySkill(m, "")
		peer, _, id := f.asked()
		fail(peer, id, "app")
		if err := <-call; !errors.As(err, new(*RemoteError)) || errors.Is(err, ErrBusy) {
			t.Errorf("it failed: %v", err)
		}

		call = bySkill(m, "")
		peer, _, _ = f.asked()
		f.say(`{"type":"peer_disconnected","payload":{"peer_id":"` + peer + `"}}`) // it may have begun
		if err := <-call; !errors.Is(err, ErrPeerGone) {
			t.Errorf("it went: %v", err)
		}

		f.say(`{"type":"pause","payload":{"peer_id":"` + map[string]string{"a": "b", "b": "a"}[peer] + `"}}`)
		synctest.Wait()
		call = bySkill(m, "") // of the one that is left, which takes no request now
		synctest.Wait()
		f.say(offering("c", "x"))
		f.say(`{"type":"peer_disconnected","payload":{"peer_id":"` + map[string]string{"a": "b", "b": "a"}[peer] + `"}}`)
		if peer, _, id := f.asked(); peer != "c" {
			t.Errorf("%s was asked", peer)
		} else {
			f.reply(peer, id)
		}
		if err := <-call; err != nil {
			t.Error(err)
		}
	})
}

// That no peer is there has another reason while the sidecar is started again, and after Close.
func TestSkillWithoutSidecar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		f.fail(errors.New("no sidecar"))
		f.hangUp()
		synctest.Wait()
		if err := <-bySkill(m, ""); !errors.Is(err, ErrSidecarLost) {
			t.Errorf("without a sidecar: %v", err)
		}
		_ = m.Close()
		if err := <-bySkill(m, ""); !errors.Is(err, ErrClosed) || errors.Is(err, ErrNoSkill) {
			t.Errorf("after Close: %v", err)
		}
		for _, err := range CallStream[any](t.Context(), m, BySkill("x"), "", nil) {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

// The same for streamed responses, as long as no chunk has come.
func TestStreamBySkill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newFakeAgent(t, Config{}, true)
		f.say(offering("a", "x"))
		f.say(offering("b", "x"))
		synctest.Wait()
		var got testutil.Record[string]
		run := func() <-chan struct{} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				for c, err := range CallStream[string](context.Background(), m, BySkill("x"), "", nil) {
					got.Add(fmt.Sprintf("%s %t", c, errors.Is(err, ErrBusy)))
				}
			}()
			return done
		}
		busy := func(peer, id string) {
			f.say(from(peer, `{"type":"x_response","request_id":"`+id+`","payload":{"error":"no","code":"busy"}}`))
		}
		done := run()
		peer, _, id := f.asked()
		busy(peer, id)
		peer, _, id = f.asked()
		f.chunk(peer, id, `"one"`)
		busy(peer, id)
		<-done
		done = run()
		for range 2 {
			peer, _, id = f.asked()
			busy(peer, id)
		}
		<-done
		if l := got.All(); fmt.Sprint(l) != "[one false  true  true]" {
			t.Errorf("%q", l)
		}
	})
}
