//go:build !js

package rtc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// maxSDP bounds a description, in bytes: maxRemoteCandidates of them, and as much again.
const maxSDP = 64 << 10

// A remoteSDP is a peer's description, reduced to what it may say here.
type remoteSDP struct {
	text        string
	fingerprint string // of the peer's certificate: SHA-256, upper case
	candidates  int
}

// readSDP checks a description and leaves out what may not count: candidates over the limit, and fingerprints by any
// other hash than SHA-256.
func readSDP(text string) (remoteSDP, error) {
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
	b, err := parsed.Marshal()
	r.text = string(b)
	return r, err
}

// keep returns the attributes that count, and notes what they say.
func (r *remoteSDP) keep(attributes []sdp.Attribute) ([]sdp.Attribute, error) {
	var bad error
	kept := slices.DeleteFunc(attributes, func(a sdp.Attribute) bool {
		switch a.Key {
		case "candidate":
			r.candidates++
			return r.candidates > maxRemoteCandidates
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
