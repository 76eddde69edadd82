package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/chatixia-ai/mesh"
)

// answering returns an agent with a few handlers.
func answering(t *testing.T, id string) *mesh.Mesh {
	return joined(t, id, mesh.Config{Handlers: map[string]mesh.Handler{
		"echo_request": func(_ context.Context, msg *mesh.Message) (any, error) { return msg.Payload, nil },
		"fail_request": func(context.Context, *mesh.Message) (any, error) { return nil, errors.New("no such\x1b file") },
		"slow_request": func(ctx context.Context, _ *mesh.Message) (any, error) { <-ctx.Done(); return nil, nil },
	}})
}

func TestSendAndListen(t *testing.T) {
	onMesh(t)
	all, some := start(t, "listen", "--id", "bob"), start(t, "listen", "note", "--id", "carol", "--json")
	all.out.wait(t, "listening as bob\n")
	some.out.wait(t, `{"peer":"carol"}`)
	// Each is waited for: those of different peers have no order.
	cli("send", "bob", "note", "back at noon", "--id", "alice1").hasStatus(t, 0, "sent note to bob")
	all.out.wait(t, "alice1 note \"back at noon\"\n")
	cli("send", "bob", "note", "{\"a\" : [1, \"\u202e\\u001b\"]}", "--id", "alice2", "--json").hasStatus(t, 0, `{"peer":"bob","type":"note"}`)
	all.out.wait(t, "alice2 note {\"a\":[1,\"\\u202e\\u001b\"]}\n")
	cli("send", "bob", "empty\x1b", "--id", "alice3").hasStatus(t, 0)
	all.out.wait(t, "alice3 \"empty\\x1b\" \n")

	cli("send", "carol", "other").hasStatus(t, 0)
	sent := start(t, "send", "carol", "note", "-", "--id", "alice")
	if _, err := sent.in.Write([]byte("[1,2]\n")); err != nil {
		t.Fatal(err)
	}
	_ = sent.in.Close()
	sent.ends(t, 0)
	some.out.wait(t, `{"from":"alice","message":{"type":"note","payload":[1,2]}}`)
	if strings.Contains(some.out.String(), "other") {
		t.Errorf("a message of another type was printed:\n%s", &some.out)
	}
	cli("request", "bob", "do_request", "1").hasStatus(t, 1, "prints requests")
	all.out.wait(t, "do_request 1\n")
	all.cancel(signalError{syscall.SIGTERM})
	all.ends(t, 0)
}

func TestRequest(t *testing.T) {
	onMesh(t)
	answering(t, "bob")
	cli("request", "bob", "echo_request", `{"a": 1}`).hasStatus(t, 0, `{"a":1}`)
	cli("request", "bob", "echo_request", "hi there").hasStatus(t, 0, `"hi there"`)
	var reply struct {
		Type    string
		Payload string
	}
	if cli("request", "bob", "echo_request", `"x"`, "--json").into(t, &reply); reply.Type != "echo_response" || reply.Payload != "x" {
		t.Errorf("%+v", reply)
	}
	cli("request", "bob", "fail_request").hasStatus(t, 1, "the peer responded with an error: no such? file")
	cli("request", "bob", "none_request").hasStatus(t, 1, "no handler")
	cli("request", "bob", "slow_request", "--timeout", "200ms").hasStatus(t, 1, "no response within 200ms")
	cli("request", "nobody", "echo_request", "--wait", "1200ms").hasStatus(t, 1, "waiting for nobody", "not within 1.2s", "mesh peers")
	p := start(t, "request", "bob", "slow_request")
	p.err.wait(t, "") // it may be anywhere on the way
	p.interrupt()
	p.ends(t, 130)
}

func TestMessageUsage(t *testing.T) {
	onMesh(t)
	for _, args := range [][]string{
		{"send", "bob"}, {"send", "bob", ""}, {"send", "bob", "x", "{"}, {"send", "bob", "x", `"`}, {"send", "bob", "x", "1", "2"},
		{"request", "bob"}, {"request", "bob", "x", "--timeout", "0"}, {"listen", ""}, {"ping"}, {"ping", ""}, {"ping", "bob", "-c", "-1"}, {"peers", "x"},
		{"peers", "--wait", "-1s"},
	} {
		cli(args...).want(t, 2, "try --help")
	}
}

func TestPayload(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1", "hi": `"hi"`, "": `""`, " null ": " null ", "1.5.2": `"1.5.2"`, "a\nb": `"a\nb"`, "[1]": "[1]",
	} {
		if got, err := parsePayload(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if got := oneLine(json.RawMessage("{\n \"\u009b\U000e0001é\": 1}")); got != `{"\u009b\udb40\udc01é":1}` {
		t.Errorf("%q", got)
	}
}

func TestPeers(t *testing.T) {
	onMesh(t)
	joined(t, "bob", mesh.Config{Card: &mesh.Card{Name: "Bob\x1b", Version: "1.2", Skills: []mesh.Skill{{Name: "sing"}}}})
	joined(t, "al ice", mesh.Config{})
	cli("peers", "--wait", "1s").hasStatus(t, 0, "\"al ice\"", `bob        "Bob\x1b" 1.2 sing`)
	var list []shownPeer
	if cli("peers", "--wait", "1s", "--json", "--id", "carol").into(t, &list); len(list) != 2 || list[0].PeerID != "al ice" || list[1].PeerID != "bob" ||
		list[0].Card != nil || list[1].Card == nil || list[1].Card.Version != "1.2" {
		t.Errorf("%+v", list)
	}
}

func TestPing(t *testing.T) {
	onMesh(t)
	t.Setenv("MESH_NO_LOCAL", "1")
	answering(t, "bob")
	cli("ping", "bob", "-c", "2", "--interval", "10ms").hasStatus(t, 0, "bob: ", " ms", "2 of 2 pings had a response", "\ndirect, from ")
	var p shownPings
	if cli("ping", "bob", "-c", "3", "--interval", "0", "--json").into(t, &p); p.Sent != 3 || p.Responses != 3 || len(p.RTT) != 3 || p.RTT[0] <= 0 || p.Path != mesh.PathDirect || p.Local == "" || p.Remote == "" {
		t.Errorf("%+v", p)
	}
	joined(t, "mute", mesh.Config{Handlers: map[string]mesh.Handler{
		"ping": func(ctx context.Context, _ *mesh.Message) (any, error) { <-ctx.Done(); return nil, nil },
	}})
	r := cli("ping", "mute", "-c", "1", "--timeout", "100ms")
	r.hasStatus(t, 1, "0 of 1 pings", "no response from mute")
	q := start(t, "ping", "bob", "-c", "0", "--interval", "1ms")
	q.out.wait(t, "bob: ")
	q.interrupt()
	q.ends(t, 0, "pings had a response; least")
}
