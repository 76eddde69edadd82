package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"
)

const payloadHelp = `PAYLOAD is JSON, or a text, which becomes a JSON string; what begins like an object, an array
or a string has to be one. With - it is read from standard input; without it there is
none.`

// readPayload returns the payload in a command line, nil if there is none.
func readPayload(c *cobra.Command, args []string) (json.RawMessage, error) {
	if len(args) == 0 {
		return nil, nil
	}
	text := args[0]
	if text == "-" {
		all, err := io.ReadAll(c.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		text = strings.TrimSuffix(strings.TrimSuffix(string(all), "\n"), "\r")
	}
	return parsePayload(text)
}

func parsePayload(text string) (json.RawMessage, error) {
	err := json.Unmarshal([]byte(text), new(json.RawMessage))
	if err == nil {
		return json.RawMessage(text), nil
	}
	if begin := strings.TrimSpace(text); begin != "" && strings.ContainsRune(`{["`, rune(begin[0])) {
		return nil, usage(fmt.Errorf("the payload is not JSON: %w", err))
	}
	return json.Marshal(text)
}

// oneLine returns JSON in one line, in which nothing steers a terminal: what could is escaped, as JSON allows.
func oneLine(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil { // cannot happen: it was checked when it was received
		return ""
	}
	var line strings.Builder
	for _, r := range compact.String() {
		switch high, low := utf16.EncodeRune(r); {
		case unicode.IsPrint(r):
			line.WriteRune(r)
		case high != unicode.ReplacementChar:
			fmt.Fprintf(&line, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&line, `\u%04x`, r)
		}
	}
	return line.String()
}

// checkType returns an error if no message can have the type.
func checkType(typ string) error {
	if typ == "" {
		return usage(errors.New("the type is empty; want one such as note or count_request"))
	}
	return nil
}
