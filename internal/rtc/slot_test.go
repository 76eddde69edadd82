package rtc

import (
	"fmt"
	"testing"

	"github.com/chatixia-ai/mesh/internal/signal"
)

func TestJudgeOffer(t *testing.T) {
	extended := func(session, sdp string) description {
		return description{session: session, sdp: sdp, instance: "i", stream: true, restart: true}
	}
	base := func(sdp string) description { return description{sdp: sdp} }
	noRestart := description{session: "r1", sdp: "v1", stream: true}
	offering := &link{session: "l1", offerer: true}
	tests := []struct {
		name  string
		l     *link
		offer description
		as    [2]verdict // as the smaller and as the larger id
	}{
		{"no link", nil, extended("r1", "v1"), [2]verdict{accept, accept}},
		{"no link, base", nil, base("v1"), [2]verdict{accept, accept}},
		{"glare", offering, extended("r1", "v1"), [2]verdict{insist, accept}},
		{"glare, base", offering, base("v1"), [2]verdict{hold, hold}},
		{"repeat", &link{remote: extended("r1", "v1")}, extended("r1", "v1"), [2]verdict{repeat, repeat}},
		{"restart", &link{remote: extended("r1", "v1")}, extended("r1", "v2"), [2]verdict{apply, apply}},
		{"restart by the answerer", &link{offerer: true, answered: true, remote: extended("r1", "v1")},
			extended("r1", "v2"), [2]verdict{ignore, ignore}},
		{"restart without the capability", &link{remote: noRestart},
			description{session: "r1", sdp: "v2", stream: true}, [2]verdict{ignore, ignore}},
		{"rebuilt, we had answered", &link{remote: extended("r1", "v1")}, extended("r2", "v2"), [2]verdict{accept, accept}},
		{"rebuilt, we had offered", &link{offerer: true, answered: true, remote: extended("r1", "v1")},
			extended("r2", "v2"), [2]verdict{accept, accept}},
		{"base, repeat", &link{remote: base("v1")}, base("v1"), [2]verdict{ignore, ignore}},
		{"base, again", &link{remote: base("v1")}, base("v2"), [2]verdict{accept, accept}},
		{"base, after our offer", &link{offerer: true, answered: true, remote: base("v1")}, base("v2"), [2]verdict{accept, accept}},
		{"extended became base", &link{remote: extended("r1", "v1")}, base("v1"), [2]verdict{accept, accept}},
		{"base became extended", &link{remote: base("v1")}, extended("r1", "v1"), [2]verdict{accept, accept}},
	}
	for _, tt := range tests {
		for i, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
			t.Run(fmt.Sprintf("%s, self %s", tt.name, ids[0]), func(t *testing.T) {
				if got := judgeOffer(ids[0], ids[1], tt.l, tt.offer); got != tt.as[i] {
					t.Errorf("got %s, want %s", got, tt.as[i])
				}
			})
		}
	}
}

func TestJudgeAnswer(t *testing.T) {
	fresh := &link{session: "l1", offerer: true}
	live := &link{session: "l1", offerer: true, answered: true, remote: description{session: "r1", sdp: "v1"}}
	liveBase := &link{session: "l1", offerer: true, answered: true, remote: description{sdp: "v1"}}
	tests := []struct {
		name    string
		l       *link
		waiting bool
		answer  description
		want    verdict
	}{
		{"no link", nil, false, description{}, ignore},
		{"we are the answerer", &link{session: "l1"}, false, description{answers: "l1", session: "r1"}, ignore},
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
			if got := judgeAnswer(tt.l, tt.waiting, tt.answer); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCandidateOwner(t *testing.T) {
	tests := []struct {
		name    string
		l       *link
		session string
		want    bool
	}{
		{"no link", nil, "r1", false},
		{"not answered", &link{offerer: true}, "", false},
		{"current", &link{remote: description{session: "r1"}}, "r1", true},
		{"stale", &link{remote: description{session: "r1"}}, "r0", false},
		{"base", &link{}, "", true},
		{"base candidate on an extended link", &link{remote: description{session: "r1"}}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.l.owns(tt.session); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestEarlyCandidatesAreBounded(t *testing.T) {
	sl := &slot{id: "p"}
	for i := range 3 * maxEarly {
		sl.keep(signal.ICECandidate{Candidate: fmt.Sprint(i), Session: fmt.Sprintf("s%d", i%2)})
	}
	if len(sl.early) != maxEarly {
		t.Fatalf("%d candidates held", len(sl.early))
	}
	got := sl.takeEarly("s1")
	if len(got) != maxEarly/2 || got[len(got)-1].Candidate != fmt.Sprint(3*maxEarly-1) {
		t.Errorf("got %d candidates, last %v", len(got), got[len(got)-1])
	}
	if len(sl.early) != maxEarly/2 {
		t.Errorf("%d candidates left", len(sl.early))
	}
}
