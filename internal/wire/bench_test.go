package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// sendLine returns a send line, without newline, of about size bytes.
func sendLine(size int) []byte {
	const shape = `{"type":"send","payload":{"target_peer":"peer-abc","message":{"type":"task_request",` +
		`"request_id":"a1b2c3d4e5f6","source_agent":"agent-001","target_agent":"agent-002",` +
		`"payload":{"n":[1,2.5,-3e9],"ok":true,"text":"%s"}}}}`
	return fmt.Appendf(nil, shape, strings.Repeat("x", max(0, size-len(shape)+2)))
}

// BenchmarkForward measures what a sidecar does with one line: parse the header, forward the message.
func BenchmarkForward(b *testing.B) {
	for _, size := range []int{256, 4 << 10, 64 << 10} {
		line := sendLine(size)
		b.Run(fmt.Sprintf("wire/%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			var l wire.Line
			var out []byte
			for b.Loop() {
				if err := wire.ParseCommand(line, wire.Limits{}, &l); err != nil {
					b.Fatal(err)
				}
				out = wire.AppendPeerMessage(out[:0], l.Message.Raw)
			}
		})
		// The same with encoding/json, and without most of the checks.
		b.Run(fmt.Sprintf("encoding-json/%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				var l struct {
					Type    string
					Payload struct {
						TargetPeer string `json:"target_peer"`
						Message    json.RawMessage
					}
				}
				var m struct {
					Type      string
					RequestID string `json:"request_id"`
				}
				if err := json.Unmarshal(line, &l); err != nil {
					b.Fatal(err)
				}
				if err := json.Unmarshal(l.Payload.Message, &m); err != nil {
					b.Fatal(err)
				}
				out = append(append(out[:0], l.Payload.Message...), '\n')
			}
		})
	}
}

// BenchmarkDeliver measures the receiving end: a line of the stream becomes an event, which the agent parses.
func BenchmarkDeliver(b *testing.B) {
	var l wire.Line
	if err := wire.ParseCommand(sendLine(256), wire.Limits{}, &l); err != nil {
		b.Fatal(err)
	}
	line := bytes.TrimSuffix(wire.AppendPeerMessage(nil, l.Message.Raw), []byte("\n"))
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var p wire.PeerLine
	var out []byte
	for b.Loop() {
		if err := wire.ParsePeerLine(line, wire.Limits{}, &p); err != nil {
			b.Fatal(err)
		}
		out = wire.AppendMessage(out[:0], "peer-abc", p.Message.Raw)
		if err := wire.ParseEvent(out, wire.Limits{}, &l); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan measures the check of messages with different contents.
func BenchmarkScan(b *testing.B) {
	contents := map[string]string{
		"ascii":   `"` + strings.Repeat("all work and no play ", 200) + `"`,
		"cjk":     `"` + strings.Repeat("網狀網路", 350) + `"`,
		"latin":   `"` + strings.Repeat("très élégant, ça va ", 200) + `"`,
		"prose":   `"` + strings.Repeat(`The café opens at half past seven, as always, said the quick brown fox to the lazy dog.\n`, 45) + `"`,
		"escapes": `"` + strings.Repeat(`line\n\t\"quoted\"`, 250) + `"`,
		"numbers": `[` + strings.Repeat(`3.14159,-7,1e9,`, 270) + `0]`,
		"objects": `[` + strings.Repeat(`{"id":7,"name":"seven","ok":true},`, 120) + `{}]`,
		"nested":  strings.Repeat("[", 500) + strings.Repeat("]", 500),
	}
	for name, payload := range contents {
		text := []byte(`{"type":"x","payload":` + payload + `}`)
		b.Run(name+"/wire", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			var m wire.Message
			for b.Loop() {
				if err := wire.ParseMessage(text, wire.Limits{}, &m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/checked", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			var m wire.Message
			for b.Loop() {
				if err := wire.ParseMessage(text, wire.Limits{}.Checked(), &m); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/json.Valid", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if !json.Valid(text) {
					b.Fatal("not valid")
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{256, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			line := append(sendLine(size), '\n')
			stream := bytes.Repeat(line, max(1, 1<<20/len(line)))
			src := &loop{text: stream}
			r := wire.NewReader(src, wire.Limits{}.MaxLine())
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.ReadLine(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// loop reads the same text over and over.
type loop struct {
	text []byte
	at   int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.text[l.at:])
	l.at = (l.at + n) % len(l.text)
	return n, nil
}
