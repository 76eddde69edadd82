//go:build !js

package rtc

import (
	"fmt"
	"strings"
	"testing"
)

// sdpWith returns an offer as pion writes them, with further lines in its media section.
func sdpWith(lines ...string) string {
	return strings.Join(append([]string{
		"v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0",
		"m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=setup:actpass", "a=mid:0", "a=sendrecv",
		"a=sctp-port:5000", "a=max-message-size:262144", "a=ice-ufrag:aaaa", "a=ice-pwd:bbbbbbbbbbbbbbbbbbbbbbbb",
	}, append(lines, "")...), "\r\n")
}

func fingerprint(hash string, b byte, n int) string {
	return "a=fingerprint:" + hash + " " + strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%02X:", b), n), ":")
}

func candidates(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("a=candidate:%d 1 udp 2130706431 127.0.0.1 %d typ host", i, 10000+i))
	}
	return lines
}

func TestReadSDP(t *testing.T) {
	own := fingerprint("sha-256", 0xab, 32)
	tests := []struct {
		name string
		sdp  string
		bad  string // part of the error; "" if there is none
	}{
		{"usual", sdpWith(own), ""},
		{"many candidates", sdpWith(append(candidates(300), own)...), ""},
		{"in the session part", strings.Replace(sdpWith(), "a=group", own+"\r\na=group", 1), ""},
		{"twice the same", sdpWith(own, strings.ToLower(own)), ""},
		{"other hashes, too", sdpWith(fingerprint("sha-1", 1, 20), own, fingerprint("sha-512", 2, 64)), ""},
		{"none", sdpWith(), "without a fingerprint"},
		{"another hash", sdpWith(fingerprint("sha-1", 1, 20)), "without a fingerprint"},
		{"two", sdpWith(own, fingerprint("sha-256", 1, 32)), "two fingerprints"},
		{"two, one for the session", strings.Replace(sdpWith(own), "a=group", fingerprint("SHA-256", 1, 32)+"\r\na=group", 1), "two fingerprints"},
		{"two media", sdpWith(own) + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "2 media sections"},
		{"no media", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + own + "\r\n", "0 media sections"},
		{"long", sdpWith(own, "a=x:"+strings.Repeat("x", maxSDP)), "the limit is"},
		{"no SDP", "hello", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := readSDP(tt.sdp, "")
			if tt.name == "no SDP" {
				if err == nil {
					t.Errorf("read as %q", r.text)
				}
				return
			}
			if tt.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tt.bad) {
					t.Errorf("error %v, want ...%s...", err, tt.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(r.text, "a=candidate:"); n > maxRemoteCandidates {
				t.Errorf("%d candidates are left", n)
			}
			if n := strings.Count(strings.ToLower(r.text), "a=fingerprint:"); n != strings.Count(strings.ToLower(r.text), "a=fingerprint:sha-256 ") {
				t.Errorf("fingerprints by other hashes are left: %s", r.text)
			}
			if r.fingerprint != strings.TrimPrefix(own, "a=fingerprint:sha-256 ") {
				t.Errorf("fingerprint %s", r.fingerprint)
			}
		})
	}
}

// The mailbox holds a bounded amount of each peer's messages and of all, and takes more when it was worked off.
func TestMail(t *testing.T) {
	var m mail
	box := newMailbox()
	fill := func(peer string) (n int) {
		for m.post(box, peer, 10_000, func() {}) {
			n++
		}
		return n
	}
	one := fill("a")
	if size := one * 10_000; size > maxMailFrom || size < maxMailFrom/2 {
		t.Errorf("%d bytes of one peer", size)
	}
	all := one
	for i := range 100 {
		all += fill(fmt.Sprint(i))
	}
	if size := all * 10_000; size > maxMail || size < maxMail/2 {
		t.Errorf("%d bytes of all", size)
	}
	for _, f := range box.take() {
		f()
	}
	if m.all != 0 || len(m.from) != 0 {
		t.Errorf("%d bytes and %d peers are still charged", m.all, len(m.from))
	}
	if n := fill("a"); n != one {
		t.Errorf("%d messages after the mailbox was worked off, %d before", n, one)
	}
}
