package wire_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func TestDecode(t *testing.T) {
	hello := func(b []byte) (any, error) { v, err := wire.DecodeHello(b); return v, err }
	signaling := func(b []byte) (any, error) { v, err := wire.DecodeSignaling(b); return v, err }
	event := func(b []byte) (any, error) { v, err := wire.DecodeErrorEvent(b); return v, err }
	peers := func(b []byte) (any, error) { v, err := wire.DecodePeerList(b); return v, err }
	key := func(b []byte) (any, error) { v, _, err := wire.DecodePeerConnected(b); return v, err }
	card := func(b []byte) (any, error) { v, err := wire.DecodeCard(b); return string(v), err }
	withCard := func(b []byte) (any, error) { _, v, err := wire.DecodePeerConnected(b); return string(v), err }
	tooLong, tooDeep := strings.Repeat("x", wire.MaxCard), strings.Repeat(`{"a":`, wire.MaxCardDepth)+"{}"+strings.Repeat("}", wire.MaxCardDepth)
	drain := func(b []byte) (any, error) { v, err := wire.DecodeDrain(b); return v, err }
	unsent := func(b []byte) (any, error) { v, err := wire.DecodeUnsent(b); return v, err }
	stats := func(b []byte) (any, error) { v, err := wire.DecodeStats(b); return v, err }
	list := func(b []byte) (any, error) { v, err := wire.DecodeStrings(b); return v, err }
	tests := []struct {
		decode func([]byte) (any, error)
		text   string // none if empty
		want   any    // nil: an error
		says   string
	}{
		{hello, ``, wire.Hello{}, ""},
		{hello, `{}`, wire.Hello{}, ""},
		{hello, `{"protocol":2,"features":["flow","\u0065rror"],"max_message":10,"token":"t","later":{"token":1}}`,
			wire.Hello{Protocol: 2, Features: []string{"flow", "error"}, MaxMessage: 10, Token: "t"}, ""},
		{hello, `{"protocol":null,"features":null,"max_message":null,"token":null}`, wire.Hello{}, ""},
		{hello, `{"Token":"x","TOKEN":"y"}`, nil, "payload.token: written in another case at byte 9"},
		{hello, `{"Peer_ID":"x","peers":"y"}`, wire.Hello{}, ""},
		{hello, `{"token":"x","token":"y"}`, nil, "payload.token: present twice at byte 21"},
		{hello, `{"token":7}`, nil, "payload.token: want a string at byte 9"},
		{hello, `{"protocol":"1"}`, nil, "payload.protocol: want an integer"},
		{hello, `{"protocol":1.5}`, nil, "payload.protocol: want an integer"},
		{hello, `{"max_message":-1}`, nil, "payload.max_message: want an integer of 0 or more"},
		{hello, `{"max_message":99999999999999999999}`, nil, "payload.max_message: want an integer"},
		{hello, `{"features":"flow"}`, nil, "payload.features: want an array of strings at byte 12"},
		{hello, `{"features":["flow",null]}`, nil, "payload.features: want an array of strings at byte 20"},
		{hello, `{"features":{}`, nil, "unexpected end"},
		{hello, `[]`, nil, "want an object"},
		{hello, `{}}`, nil, "want the end"},
		{signaling, `{"state":"refused","peer_id":"p","error":"e"}`,
			wire.Signaling{State: "refused", PeerID: "p", Error: "e"}, ""},
		{signaling, `{"state":7}`, nil, "payload.state: want a string"},
		{event, `{"code":"later","message":"m","command":"send","target_peer":"p","request_id":"r"}`,
			wire.ErrorEvent{Code: "later", Message: "m", Command: "send", TargetPeer: "p", RequestID: "r"}, ""},
		{event, `{"code":[]}`, nil, "payload.code: want a string"},
		{peers, `{"peers":["a","b"]}`, wire.PeerList{Peers: []string{"a", "b"}}, ""},
		{peers, `{"peers":["a","b"],"keys":["","k"]}`, wire.PeerList{Peers: []string{"a", "b"}, Keys: []string{"", "k"}}, ""},
		{peers, `{"peers":["a","b"],"keys":["k"]}`, nil, "payload.keys: want one for each peer"},
		{peers, `{"peers":[]}`, wire.PeerList{Peers: []string{}}, ""},
		{peers, `{}`, wire.PeerList{}, ""},
		{key, `{"peer_id":"p"}`, "", ""},
		{key, `{"peer_id":"p","key":"k"}`, "k", ""},
		{key, `{"key":7}`, nil, "payload.key: want a string"},
		{card, `{"card":{"a":[1, {}]},"later":1}`, `{"a":[1, {}]}`, ""},
		{card, `{"card":null}`, "", ""},
		{card, ``, "", ""},
		{card, `{"card":[]}`, nil, "payload.card: want an object at byte 8"},
		{card, `{"card":{},"card":{}}`, nil, "payload.card: present twice"},
		{card, `{"Card":{}}`, nil, "payload.card: written in another case"},
		{card, `{"card":{"a":"` + tooLong + `"}}`, nil, "payload.card: card of 16392 bytes, the limit is 16384"},
		{card, `{"card":` + tooDeep + `}`, nil, "nested deeper than 16 levels"},
		{withCard, `{"peer_id":"p","card":{}}`, `{}`, ""},
		{withCard, `{"peer_id":"p","card":"x"}`, nil, "payload.card: want an object"},
		{peers, `{"peers":[7]}`, nil, "payload.peers: want an array of strings"},
		{peers, `{"peers":["a"],"peers":["b"]}`, nil, "payload.peers: present twice"},
		{drain, ``, time.Duration(0), ""},
		{drain, `{"timeout_ms":2000}`, 2 * time.Second, ""},
		{drain, `{"timeout_ms":9223372036854775807}`, 24 * time.Hour, ""},
		{drain, `{"timeout_ms":-1}`, nil, "payload.timeout_ms: want an integer of 0 or more"},
		{drain, `{"Timeout_ms":1}`, nil, "payload.timeout_ms: written in another case"},
		{unsent, ``, wire.Unsent{}, ""},
		{unsent, `{"peers":["a","b"],"unsent":[3,0]}`, wire.Unsent{Peers: []string{"a", "b"}, Messages: []int{3, 0}}, ""},
		{unsent, `{"peers":null,"unsent":null}`, wire.Unsent{}, ""},
		{unsent, `{"peers":["a","b"],"unsent":[3]}`, nil, "payload.unsent: want one for each peer"},
		{unsent, `{"peers":["a"],"unsent":["3"]}`, nil, "payload.unsent: want an array of integers of 0 or more at byte 25"},
		{unsent, `{"peers":["a"],"unsent":3}`, nil, "payload.unsent: want an array of integers"},
		{unsent, `{"peers":["a"],"unsent":[-3]}`, nil, "payload.unsent: want an array of integers"},
		{stats, ``, wire.Stats{}, ""},
		{stats, `{"peers":null}`, wire.Stats{}, ""},
		{stats, `{"peers":[{"peer_id":"a","path":"later","rtt_us":7,"later":{"path":1}},{}]}`,
			wire.Stats{Peers: []wire.PeerStats{{PeerID: "a", Path: "later", RoundTrip: 7}, {}}}, ""},
		{stats, `{"peers":{}}`, nil, "payload.peers: want an array of objects at byte 9"},
		{stats, `{"peers":[{},"a",7]}`, nil, "payload.peers: want an array of objects at byte 13"},
		{stats, `{"peers":[{"rtt_us":-1}]}`, nil, "payload.peers.rtt_us: want an integer of 0 or more"},
		{stats, `{"peers":[{"path":"a","Path":"b"}]}`, nil, "payload.peers.path: written in another case"},
		{stats, `{"peers":[{"path":"a","path":"b"}]}`, nil, "payload.peers.path: present twice"},
		{stats, `{"peers":[{}}`, nil, "want ',' or ']'"},
		{list, ``, []string(nil), ""},
		{list, ` ["a\n"] `, []string{"a\n"}, ""},
		{list, `["a",]`, nil, "want a value"},
		{list, `{}`, nil, "want an array of strings"},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			var text []byte
			if test.text != "" {
				text = []byte(test.text)
			}
			got, err := test.decode(text)
			if test.want == nil {
				if code(t, err) == "" || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%+v, %v; want ...%s...", got, err, test.says)
				}
			} else if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%#v, %v; want %#v", got, err, test.want)
			}
		})
	}
}

func TestAppendPayloads(t *testing.T) {
	tests := []struct {
		line []byte
		want string
	}{
		{wire.AppendHello(nil, wire.Hello{}), `{"type":"hello","payload":{"protocol":0,"features":[],"max_message":0}}`},
		{wire.AppendReady(nil, wire.Hello{Protocol: 1, Features: []string{"flow"}, MaxMessage: 5}),
			`{"type":"ready","payload":{"protocol":1,"features":["flow"],"max_message":5}}`},
		{wire.AppendReady(nil, wire.Hello{Policy: "member"}), `{"type":"ready","payload":{"protocol":0,"features":[],"max_message":0,"policy":"member"}}`},
		{wire.AppendSignaling(nil, wire.Signaling{State: "connecting"}), `{"type":"signaling","payload":{"state":"connecting"}}`},
		{wire.AppendError(nil, wire.ErrorEvent{Code: wire.CodeInternal}), `{"type":"error","payload":{"code":"internal","message":""}}`},
		{wire.AppendPeerList(nil, wire.PeerList{}), `{"type":"peer_list","payload":{"peers":[]}}`},
		{wire.AppendBroadcast(nil, []byte(`{}`), []string{}), `{"type":"broadcast","payload":{"message":{}}}`},
		{wire.AppendResume([]byte("before\n"), "a\r\nb"), "before\n" + `{"type":"resume","payload":{"peer_id":"a\r\nb"}}`},
		{wire.AppendPeerCancel(nil, "a\nb"), `["cancel","a\nb"]`},
	}
	for _, test := range tests {
		if string(test.line) != test.want+"\n" {
			t.Errorf("got %q, want %q", test.line, test.want)
		}
	}
}
