//go:build !js

package rtc

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chatixia-ai/mesh/internal/identity"
	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// FuzzReadStream is a hostile peer that has opened the data channel: it sends any bytes, in slices of any lengths, in one stream or
// in two.
// Before a hello that verifies nothing of it is delivered, and a key counts as proven only by the signature of its
// holder about this link. After that each line is one event or one rejection, in order.
func FuzzReadStream(f *testing.F) {
	link, shown, identities := streamIdentities(f)
	greeting := wire.Greeting{Protocol: 1, MaxMessage: 5000}
	plain := wire.AppendPeerHello(nil, greeting)
	greeting.Identity = shownIdentity(shown)
	signed := wire.AppendPeerHello(nil, greeting)
	lines := []byte("{\"type\":\"x\",\"request_id\":\"1\"}\r\n\n[\"cancel\",\"1\"]\n[\"pause\"]\nnonsense\n[\"drain\",1]\n[\"later\"]\n[\"resume\"]\n")
	for required := range identities {
		f.Add(required, slices.Concat(plain, lines), []byte{0})
		f.Add(required, slices.Concat(signed, lines), []byte{7, 1, 0})
		f.Add(required, slices.Concat([]byte("\uFEFF\r\n"), signed, signed, plain), []byte{3})
		f.Add(required, lines, []byte{200})
		f.Add(required, bytes.Replace(signed, []byte(`"key":"`), []byte(`"key":"A`), 1), []byte{0})
		f.Add(required, []byte("[\"hello\",{\"Max_Message\":1}]\n"), []byte{0})
		f.Add(required, slices.Concat(plain, lines), []byte{9, 0x80 | 20, 1, 0x80 | 3})
		f.Add(required, slices.Concat([]byte("\uFEFF"), plain, []byte("\uFEFF"), lines), []byte{0x80 | 127})
	}
	f.Fuzz(func(t *testing.T, required bool, stream, cuts []byte) {
		if len(stream) > 1<<16 {
			return // longer lines than hello may have are TestHelloTooLong's
		}
		cfg := Config{Identity: identities[required], Limits: wire.Limits{MaxMessage: 4096, MaxDepth: 12}}.withDefaults()
		var ev streamEvents
		p := newPeer(link, withDrain, &slicedChannel{text: stream, cuts: cuts}, maxMessageSize, noRoundTrip, &cfg, &ev)
		p.up = func() {}
		r := p.newReader(new(relief.Watch), func() {})
		err := r.readLine()
		for err == nil {
			err = r.readLine()
		}

		want, reason := streamWant(linesOf(stream, cuts), cfg.Limits, required, shown)
		if !errors.Is(err, reason) {
			t.Fatalf("ended with %v, want %v", err, reason)
		}
		if !slices.Equal(ev.log, want) {
			t.Fatalf("events %q, want %q", ev.log, want)
		}
		if key := p.Key(); key != "" && key != shown.Key {
			t.Fatalf("proven: %s", key)
		}
	})
}

// streamIdentities returns a link as its reader sees it, what the holder of a key shows for it, and identities of the
// reader's: one that requires an identity, and one that does not. All of it is the same in each process of the fuzzer.
func streamIdentities(f *testing.F) (identity.Link, *identity.Shown, map[bool]*identity.Identity) {
	dir := f.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	keyFile := filepath.Join(dir, "key")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		f.Fatal(err)
	}
	open := func(s identity.Settings) *identity.Identity {
		s.MeshName = "fuzz"
		id, err := identity.Open(s)
		if err != nil {
			f.Fatal(err)
		}
		return id
	}
	link := identity.Link{
		Offerer: true, Own: "near", Other: "far", OwnSession: "s1", OtherSession: "s2",
		OwnCert: sha256.Sum256([]byte("near")), OtherCert: sha256.Sum256([]byte("far")),
	}
	shown := open(identity.Settings{KeyFile: keyFile}).Show(identity.Link{
		Own: link.Other, Other: link.Own, OwnSession: link.OtherSession, OtherSession: link.OwnSession,
		OwnCert: link.OtherCert, OtherCert: link.OwnCert,
	})
	return link, shown, map[bool]*identity.Identity{
		false: open(identity.Settings{}),
		true:  open(identity.Settings{Policy: identity.Known, Required: true, KnownPeersFile: filepath.Join(dir, "known")}),
	}
}

// linesOf returns the lines of both streams in the order in which they end. What is left of the stream of binary messages is
// a line, too; what is left of that of text messages may have come only in part.
func linesOf(stream, cuts []byte) (lines [][]byte) {
	var rest [2][]byte
	begun := [2]bool{}
	add := func(i int, line []byte) {
		if !begun[i] {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		begun[i] = true
		lines = append(lines, line)
	}
	for n := 0; len(stream) > 0; n++ {
		size, text := cut(cuts, n, len(stream))
		i := 0
		if text {
			i = 1
		}
		rest[i] = slices.Concat(rest[i], stream[:size])
		stream = stream[size:]
		for {
			line, after, ended := bytes.Cut(rest[i], []byte("\n"))
			if !ended {
				break
			}
			add(i, line)
			rest[i] = after
		}
	}
	add(0, rest[0])
	return lines
}

// cut returns the length of a message, of so many bytes that are left, and its kind.
func cut(cuts []byte, n, left int) (size int, text bool) {
	const textBit = 0x80
	size = maxMessageSize
	if len(cuts) > 0 {
		c := cuts[n%len(cuts)]
		text = c&textBit != 0
		if c &^= textBit; c > 0 {
			size = int(c)
		}
	}
	return min(size, left), text
}

// streamWant returns the events that lines cause, and how the stream ends.
func streamWant(lines [][]byte, lim wire.Limits, required bool, shown *identity.Shown) (events []string, end error) {
	for _, text := range lines {
		text = bytes.TrimSuffix(text, []byte("\r"))
		if len(bytes.Trim(text, " \t\r")) == 0 {
			continue
		}
		var l wire.PeerLine
		err := wire.ParsePeerLine(text, lim, &l)
		if events == nil {
			switch given := l.Hello.Identity; {
			case err != nil || l.Kind != wire.PeerHello:
				return nil, ErrViolation
			case given == nil && required, given != nil && !sameIdentity(given, shown):
				return nil, ErrIdentity
			}
			events = []string{"connected"}
			continue
		}
		switch {
		case err != nil:
			events = append(events, "rejected")
		case l.Kind == wire.PeerMessage:
			events = append(events, string(l.Message.Raw))
		case l.Kind == wire.PeerCancel:
			events = append(events, fmt.Sprintf("cancel %q", l.RequestID))
		case l.Kind == wire.PeerPause, l.Kind == wire.PeerResume:
			events = append(events, l.Kind.String())
		}
	}
	return events, ErrPeerClosed
}

// sameIdentity reports whether given is what the holder of the key has shown. Without the name of a mesh it means the reader's.
func sameIdentity(given *wire.Identity, shown *identity.Shown) bool {
	return given.Key == shown.Key && given.Sig == shown.Sig && (given.Mesh == nil || *given.Mesh == *shown.Mesh)
}

// streamEvents writes down what it is told.
type streamEvents struct {
	events
	log []string
}

func (e *streamEvents) PeerConnected(*Peer) { e.log = append(e.log, "connected") }

func (e *streamEvents) PeerStream(*Peer, *Stream) {}

func (e *streamEvents) PeerRejected(*Peer, error) { e.log = append(e.log, "rejected") }

func (e *streamEvents) PeerLine(_ *Peer, l *wire.PeerLine) {
	switch l.Kind {
	case wire.PeerMessage:
		e.log = append(e.log, string(l.Message.Raw))
	case wire.PeerCancel:
		e.log = append(e.log, fmt.Sprintf("cancel %q", l.RequestID))
	default:
		e.log = append(e.log, l.Kind.String())
	}
}

// slicedChannel is a data channel that delivers text in messages of the lengths and kinds in cuts, which are repeated; 0 means
// the longest that is allowed.
type slicedChannel struct {
	memoryChannel
	text, cuts []byte
	n          int
}

func (c *slicedChannel) ReadDataChannel(b []byte) (int, bool, error) {
	if len(c.text) == 0 {
		return 0, false, io.EOF
	}
	size, text := cut(c.cuts, c.n, len(c.text))
	if size > len(b) {
		return 0, false, io.ErrShortBuffer // the message stays
	}
	c.n++
	copy(b, c.text[:size])
	c.text = c.text[size:]
	return size, text, nil
}
