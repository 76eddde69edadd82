//go:build !js

package rtc

import (
	"fmt"
	"testing"
)

func TestJudgeOffer(t *testing.T) {
	extended := func(session, sdp string) description {
		return description{session: session, sdp: sdp, instance: "i", stream: true, restart: true}
	}
	base := func(sdp string) description { return description{sdp: sdp} }
	noRestart := description{session: "r1", sdp: "v1", stream: true}
	offering := &negotiation{session: "l1", offerer: true}
	tests := []struct {
		name  string
		neg   *negotiation
		offer description
		as    [2]verdict // as the smaller and as the larger id
	}{
		{"no session", nil, extended("r1", "v1"), [2]verdict{accept, accept}},
		{"no session, base", nil, base("v1"), [2]verdict{accept, accept}},
		{"glare", offering, extended("r1", "v1"), [2]verdict{insist, accept}},
		{"glare, base", offering, base("v1"), [2]verdict{hold, hold}},
		{"repeat", &negotiation{remote: extended("r1", "v1")}, extended("r1", "v1"), [2]verdict{repeat, repeat}},
		{"restart", &negotiation{remote: extended("r1", "v1")}, extended("r1", "v2"), [2]verdict{apply, apply}},
		{"restart by the answerer", &negotiation{offerer: true, answered: true, remote: extended("r1", "v1")},
			extended("r1", "v2"), [2]verdict{ignore, ignore}},
		{"restart without the capability", &negotiation{remote: noRestart},
			description{session: "r1", sdp: "v2", stream: true}, [2]verdict{ignore, ignore}},
		{"rebuilt, we had answered", &negotiation{remote: extended("r1", "v1")}, extended("r2", "v2"), [2]verdict{accept, accept}},
		{"rebuilt, we had offered", &negotiation{offerer: true, answered: true, remote: extended("r1", "v1")},
			extended("r2", "v2"), [2]verdict{accept, accept}},
		{"base, repeat", &negotiation{remote: base("v1")}, base("v1"), [2]verdict{ignore, ignore}},
		{"base, again", &negotiation{remote: base("v1")}, base("v2"), [2]verdict{accept, accept}},
		{"base, after our offer", &negotiation{offerer: true, answered: true, remote: base("v1")}, base("v2"), [2]verdict{accept, accept}},
		{"extended became base", &negotiation{remote: extended("r1", "v1")}, base("v1"), [2]verdict{accept, accept}},
		{"base became extended", &negotiation{remote: base("v1")}, extended("r1", "v1"), [2]verdict{accept, accept}},
	}
	for _, tt := range tests {
		for i, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
			t.Run(fmt.Sprintf("%s, self %s", tt.name, ids[0]), func(t *testing.T) {
				if got := judgeOffer(ids[0], ids[1], tt.neg, tt.offer); got != tt.as[i] {
					t.Errorf("got %s, want %s", got, tt.as[i])
				}
			})
		}
	}
}

func TestJudgeAnswer(t *testing.T) {
	fresh := &negotiation{session: "l1", offerer: true}
	live := &negotiation{session: "l1", offerer: true, answered: true, remote: description{session: "r1", sdp: "v1"}}
	liveBase := &negotiation{session: "l1", offerer: true, answered: true, remote: description{sdp: "v1"}}
	tests := []struct {
		name    string
		neg     *negotiation
		pending bool
		answer  description
		want    verdict
	}{
		{"no session", nil, false, description{}, ignore},
		{"we are the answerer", &negotiation{session: "l1"}, false, description{answers: "l1", session: "r1"}, ignore},
		{"first", fresh, true, description{answers: "l1", session: "r1"}, apply},
		{"first, base", fresh, true, description{}, apply},
		{"to a former offer", fresh, true, description{answers: "l0", session: "r1"}, ignore},
		{"again", live, false, description{answers: "l1", session: "r1", sdp: "v1"}, ignore},
		{"again, base", liveBase, false, description{sdp: "v2"}, ignore},
		{"to a restart", live, true, description{answers: "l1", session: "r1", sdp: "v2"}, apply},
		{"an old one during a restart", live, true, description{answers: "l1", session: "r1", sdp: "v1"}, ignore},
		{"to a restart, by a new process", live, true, description{answers: "l1", session: "r2", sdp: "v2"}, unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := judgeAnswer(tt.neg, tt.pending, tt.answer); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCandidateOwner(t *testing.T) {
	tests := []struct {
		name    string
		neg     *negotiation
		session string
		want    bool
	}{
		{"no session", nil, "r1", false},
		{"not answered", &negotiation{offerer: true}, "", false},
		{"current", &negotiation{remote: description{session: "r1"}}, "r1", true},
		{"stale", &negotiation{remote: description{session: "r1"}}, "r0", false},
		{"base", &negotiation{}, "", true},
		{"base candidate on an extended session", &negotiation{remote: description{session: "r1"}}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.neg.owns(tt.session); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
