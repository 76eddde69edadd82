//go:build !js

package rtc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

const (
	// maxSDP bounds a description, in bytes: maxRemoteCandidates of them, and as much again.
	maxSDP = 64 << 10
	// sctpInit is the attribute in which pion writes and reads an SCTP INIT. It never leaves or enters this program in an
	// SDP: some stacks send each line of an offer back in their answer, and pion would take its own for the peer's.
	sctpInit = "sctp-init"
	// maxSCTPInit bounds the peer's INIT in base64, in bytes. They are about 50 long.
	maxSCTPInit = 1 << 10
)

// A remoteSDP is a peer's description, reduced to what it may say here.
type remoteSDP struct {
	text        string
	fingerprint string // of the peer's certificate: SHA-256, upper case
	candidates  int
	dtlsClient  bool // it wants to be DTLS's client
}

// readSDP checks a description and leaves out what may not count: candidates over the limit, fingerprints by any
// other hash than SHA-256, and an SCTP INIT, in place of which it puts init unless that is empty.
func readSDP(text, init string) (remoteSDP, error) {
	if len(text) > maxSDP {
		return remoteSDP{}, fmt.Errorf("SDP of %d bytes, the limit is %d", len(text), maxSDP)
	}
	parsed, err := (&webrtc.SessionDescription{SDP: text}).Unmarshal()
	if err != nil {
		return remoteSDP{}, err
	}
	if n := len(parsed.MediaDescriptions); n != 1 {
		return remoteSDP{}, fmt.Errorf("SDP with %d media sections, want one, for data channels", n)
	}
	var r remoteSDP
	for _, attributes := range []*[]sdp.Attribute{&parsed.Attributes, &parsed.MediaDescriptions[0].Attributes} {
		if *attributes, err = r.keep(*attributes); err != nil {
			return remoteSDP{}, err
		}
	}
	if r.fingerprint == "" {
		return remoteSDP{}, errors.New("SDP without a fingerprint by SHA-256")
	}
	if init != "" {
		if err := checkSCTPInit(init); err != nil {
			return remoteSDP{}, err
		}
		media := &parsed.MediaDescriptions[0].Attributes
		*media = append(*media, sdp.NewAttribute(sctpInit, init))
	}
	b, err := parsed.Marshal()
	r.text = string(b)
	return r, err
}

// keep returns the attributes that count, and notes what they say.
func (r *remoteSDP) keep(attributes []sdp.Attribute) ([]sdp.Attribute, error) {
	var bad error
	kept := slices.DeleteFunc(attributes, func(a sdp.Attribute) bool {
		if strings.TrimSpace(a.Key) == sctpInit { // pion reads it with spaces, too
			return true
		}
		switch a.Key {
		case "candidate":
			r.candidates++
			return r.candidates > maxRemoteCandidates
		case "setup":
			r.dtlsClient = a.Value == sdp.ConnectionRoleActive.String()
		case "fingerprint":
			hash, value, _ := strings.Cut(a.Value, " ")
			if !strings.EqualFold(hash, "sha-256") {
				return true
			}
			value = strings.ToUpper(strings.TrimSpace(value))
			if r.fingerprint != "" && r.fingerprint != value {
				bad = errors.New("SDP with two fingerprints")
			}
			r.fingerprint = value
		}
		return false
	})
	return kept, bad
}

// checkSCTPInit leaves what is in the chunk to SCTP, which reads no other peer's more carefully.
func checkSCTPInit(init string) error {
	if len(init) > maxSCTPInit {
		return fmt.Errorf("SCTP INIT of %d bytes, the limit is %d", len(init), maxSCTPInit)
	}
	if _, err := base64.StdEncoding.DecodeString(init); err != nil {
		return fmt.Errorf("SCTP INIT: %w", err)
	}
	return nil
}

// takeSCTPInit takes the SCTP INIT out of a description of pion's.
func takeSCTPInit(text string) (rest, init string) {
	before, after, found := strings.Cut(text, "a="+sctpInit+":")
	if !found {
		return text, ""
	}
	init, after, _ = strings.Cut(after, "\r\n")
	return before + after, init
}
