package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// smallSize is the length of a small message, its JSON text in all.
const smallSize = 256

// sentence is what payloads are filled with: prose with a line break and a
// character beyond ASCII, since plain ASCII would flatter a scanner.
const sentence = "The caf\u00e9 opens at half past seven, as always, said the quick brown fox to the lazy dog.\\n"

// filler returns a JSON string of n bytes, quotation marks included. What whole
// sentences do not fill, dots do.
func filler(n int) json.RawMessage {
	room := max(0, n-2)
	b := append(make([]byte, 0, room+2), '"')
	b = append(b, bytes.Repeat([]byte(sentence), room/len(sentence))...)
	b = append(b, bytes.Repeat([]byte("."), room%len(sentence))...)
	return append(b, '"')
}

// fill returns a payload with which a message with these fields has size bytes
// in all.
func fill(size int, f wire.MessageFields) (json.RawMessage, error) {
	f.Payload = []byte(`""`)
	head := len(wire.AppendMessageFields(nil, f)) - len(f.Payload)
	p := filler(size - head)
	f.Payload = p
	msg := wire.AppendMessageFields(nil, f)
	if len(msg) != size || !json.Valid(msg) {
		return nil, fmt.Errorf("made a message of %d bytes instead of %d: %.80s", len(msg), size, msg)
	}
	return p, nil
}

// fullMessage returns a whole message of size bytes.
func fullMessage(size int, f wire.MessageFields) ([]byte, error) {
	p, err := fill(size, f)
	if err != nil {
		return nil, err
	}
	f.Payload = p
	return wire.AppendMessageFields(nil, f), nil
}
