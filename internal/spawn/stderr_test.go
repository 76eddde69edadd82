package spawn

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

func TestStderrTailKeepsTheEnd(t *testing.T) {
	long := strings.Repeat("0123456789abcdef 0123456789abcdef\n", 1000)
	for _, tc := range []struct {
		name   string
		writes []string
		want   string // "" with check
		check  func(string) bool
	}{
		{name: "nothing", want: ""},
		{name: "one line", writes: []string{"boom\n"}, want: "boom"},
		{name: "a line in pieces, without its end", writes: []string{"a\nbo", "om"}, want: "a\nboom"},
		{name: "the last of many", writes: []string{long, "last\n"}, check: func(s string) bool {
			return len(s) <= stderrKept && len(s) > stderrKept/2 && strings.HasPrefix(s, "0123") && strings.HasSuffix(s, "\nlast")
		}},
		{name: "byte by byte", writes: strings.Split(long+"last", ""), check: func(s string) bool {
			return len(s) <= stderrKept && strings.HasSuffix(s, "\nlast")
		}},
		{name: "one endless line", writes: []string{strings.Repeat("x", 100_000)}, check: func(s string) bool {
			return len(s) == stderrKept
		}},
		{name: "no text", writes: []string{"a\xff\xfeb"}, check: utf8.ValidString},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tail := &stderrTail{}
			for _, w := range tc.writes {
				if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			got := tail.String()
			if tc.check == nil && got != tc.want || tc.check != nil && !tc.check(got) {
				t.Errorf("kept %d bytes, ending with %q", len(got), got[max(0, len(got)-60):])
			}
			if cap(tail.kept) > 32*stderrKept || len(tail.line) > stderrLine {
				t.Errorf("holds %d and %d bytes", cap(tail.kept), len(tail.line))
			}
		})
	}
}

func TestStderrTailForwardsLines(t *testing.T) {
	var out bytes.Buffer
	tail := &stderrTail{log: zerolog.New(&out)}
	for _, w := range []string{
		`{"level":"warn","peer":"b","time":"2026-01-02T03:04:05Z","message":"slow"}` + "\n",
		"panic: ", "boom\r\n\n", "  \n",
		`{"not": "ours"}` + "\n", `{"half` + "\n",
		strings.Repeat("y", stderrLine+1) + "\n",
		"the end",
	} {
		_, _ = tail.Write([]byte(w))
	}
	tail.flush()
	want := []string{
		`{"level":"warn","peer":"b","message":"slow"}`,
		`{"level":"info","message":"panic: boom"}`,
		`{"level":"info","not":"ours"}`,
		`{"level":"info","message":"{\"half"}`,
		`{"level":"info","message":"` + strings.Repeat("y", stderrLine) + `"}`,
		`{"level":"info","message":"y"}`,
		`{"level":"info","message":"the end"}`,
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("forwarded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
