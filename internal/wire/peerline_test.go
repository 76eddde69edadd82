package wire_test

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestParsePeerLine(t *testing.T) {
	tests := []struct {
		line string
		want wire.PeerLine
	}{
		{` { "type" : "x" } `, wire.PeerLine{Kind: wire.PeerMessage}},
		{`["hello",{}]`, wire.PeerLine{Kind: wire.PeerHello}},
		{` [ "h\u0065llo" , { "max_message" : 5 , "protocol" : 2 , "x" : [] } , 7 ] `,
			wire.PeerLine{Kind: wire.PeerHello, Hello: wire.Greeting{Protocol: 2, MaxMessage: 5}}},
		{`["hello",{"identity":{"mesh":"","key":"k","sig":"s","later":1},"protocol":1}]`,
			wire.PeerLine{Kind: wire.PeerHello, Hello: wire.Greeting{Protocol: 1, Identity: &wire.Identity{Mesh: new(string), Key: "k", Sig: "s"}}}},
		{`["hello",{"identity":{"member":{"mesh":"m","peer_id":"p","key":"k","not_after":5000000000,"sig":"s"}}}]`,
			wire.PeerLine{Kind: wire.PeerHello, Hello: wire.Greeting{Identity: &wire.Identity{
				Member: &wire.Membership{Mesh: "m", PeerID: "p", Key: "k", NotAfter: 5000000000, Sig: "s"}}}}},
		{`["hello",{"identity":null}]`, wire.PeerLine{Kind: wire.PeerHello}},
		{`["member",{"mesh":"m","not_after":5}]`, wire.PeerLine{Kind: wire.PeerMember, Member: &wire.Membership{Mesh: "m", NotAfter: 5}}},
		{`["cancel","r",{"why":"time"}]`, wire.PeerLine{Kind: wire.PeerCancel, RequestID: []byte("r")}},
		{`["cancel","\u0072"]`, wire.PeerLine{Kind: wire.PeerCancel, RequestID: []byte("r")}},
		{`["pause"]`, wire.PeerLine{Kind: wire.PeerPause, Stop: wire.StopNewWork}},
		{`["pause",{"ordered":true,"later":1}]`, wire.PeerLine{Kind: wire.PeerPause, Stop: wire.StopOrdered}},
		{`["pause",{"ordered":false}]`, wire.PeerLine{Kind: wire.PeerPause, Stop: wire.StopNewWork}},
		{`["pause","ordered"]`, wire.PeerLine{Kind: wire.PeerPause, Stop: wire.StopNewWork}},
		{`["resume",null,1,"x"]`, wire.PeerLine{Kind: wire.PeerResume}},
		{`["drain",0]`, wire.PeerLine{Kind: wire.PeerDrain}},
		{`["drain", 9007199254740991 ,{"later":1}]`, wire.PeerLine{Kind: wire.PeerDrain, Number: 1<<53 - 1}},
		{`["drained",7]`, wire.PeerLine{Kind: wire.PeerDrained, Number: 7}},
		{`["message",{"type":"x"}]`, wire.PeerLine{}},
		{`["",[[]]]`, wire.PeerLine{}},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			var p wire.PeerLine
			if err := wire.ParsePeerLine([]byte(test.line), wire.Limits{}, &p); err != nil {
				t.Fatal(err)
			}
			p.Message = wire.Message{}
			if !reflect.DeepEqual(p, test.want) {
				t.Errorf("got %v %+v, want %v %+v", p.Kind, p, test.want.Kind, test.want)
			}
		})
	}
}

func TestParsePeerLineErrors(t *testing.T) {
	const malformed, field = wire.CodeMalformed, wire.CodeInvalidField
	tests := []struct {
		line string
		code wire.Code
		says string
	}{
		{``, malformed, "want an object or an array at byte 0"},
		{`"pause"`, malformed, "want an object or an array"},
		{`[`, malformed, "unexpected end"},
		{`[]`, field, "empty array"},
		{`[,]`, malformed, "want a value at byte 1"},
		{`["pause",{"ordered":1}]`, field, "ordered: want true or false"},
		{`["pause"`, malformed, "want ',' or ']' at byte 8"},
		{`["pause",]`, malformed, "want a value at byte 9"},
		{`["pause"]]`, malformed, "want the end at byte 9"},
		{`["pause"]["pause"]`, malformed, "want the end"},
		{`["pause"}`, malformed, "at byte 8"},
		{`[7]`, field, "control: want a string first at byte 1"},
		{`[["pause"]]`, field, "control: want a string first"},
		{`[null,`, malformed, "unexpected end"},
		{`["hello"]`, field, "hello: argument missing"},
		{`["hello",7]`, field, "hello: want an object at byte 9"},
		{`["hello",{"protocol":"1"}]`, field, "hello.protocol: want an integer"},
		{`["hello",{"protocol":1,"protocol":1}]`, field, "hello.protocol: present twice"},
		{`["hello",{"max_message":1e9}]`, field, "hello.max_message: want an integer of 0 or more at byte 24"},
		{`["hello",{"max_message":}]`, malformed, "hello: unexpected \"}\""},
		{`["cancel"]`, field, "cancel: argument missing"},
		{`["cancel",""]`, field, "cancel: want a request_id that is not empty at byte 10"},
		{`["cancel",7]`, field, "cancel: want a request_id"},
		{`["drain"]`, field, "drain: argument missing"},
		{`["drain",-1]`, field, "drain: want an integer of 0 or more at byte 9"},
		{`["drain",1.0]`, field, "drain: want an integer of 0 or more"},
		{`["drain",1e3]`, field, "drain: want an integer of 0 or more"},
		{`["drain","1"]`, field, "drain: want an integer of 0 or more"},
		{`["drain",99999999999999999999]`, field, "drain: want an integer of 0 or more"},
		{`["drained"]`, field, "drained: argument missing"},
		{`["drained",null]`, field, "drained: want an integer of 0 or more"},
		{`["drained",[1]]`, field, "drained: want an integer of 0 or more"},
		{`["drained",01]`, malformed, "at byte 12"},
		{`["later",` + strings.Repeat("[", 516) + strings.Repeat("]", 516) + `]`, wire.CodeTooDeep, "516 levels"},
		{`["pause",` + strings.Repeat(`{"":`, 1_000_000), wire.CodeTooDeep, "516 levels"},
		{`{"type":"x","payload":` + strings.Repeat("[", 512), wire.CodeTooDeep, "512 levels"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.40s", test.line), func(t *testing.T) {
			var p wire.PeerLine
			err := wire.ParsePeerLine([]byte(test.line), wire.Limits{}, &p)
			if got := code(t, err); got != test.code || !strings.Contains(fmt.Sprint(err), test.says) {
				t.Errorf("%v, want %s: ...%s...", err, test.code, test.says)
			}
		})
	}
	lim := wire.Limits{MaxMessage: 10}
	long := `["pause","` + strings.Repeat("x", lim.MaxLine()) + `"]`
	if err := wire.ParsePeerLine([]byte(long), lim, new(wire.PeerLine)); code(t, err) != wire.CodeTooLarge {
		t.Errorf("control line over the limit: %v", err)
	}
}

func TestPeerKindString(t *testing.T) {
	for kind, want := range map[wire.PeerKind]string{wire.PeerUnknown: "unknown", wire.PeerMessage: "message", 200: "unknown"} {
		if kind.String() != want {
			t.Errorf("%d: %v, want %s", kind, kind, want)
		}
	}
}

func TestBadLine(t *testing.T) {
	bad := wire.ParsePeerLine([]byte("7"), wire.Limits{}, new(wire.PeerLine))
	if got := wire.BadLine(fmt.Errorf("line 3: %w", bad)); got == nil || got != bad {
		t.Errorf("a bad line: %v", got)
	}
	for _, err := range []error{nil, io.EOF} {
		if got := wire.BadLine(err); got != nil {
			t.Errorf("%v: %v", err, got)
		}
	}
}
