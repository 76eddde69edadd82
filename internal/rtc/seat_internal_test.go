package rtc

import (
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// A guest reads no long line, in either stream, since that may have to wait for memory; what it has read of one is not lost.
func TestGuestReadsNoLongLine(t *testing.T) {
	for name, text := range map[string]bool{"binary": false, "text": true} {
		t.Run(name, func(t *testing.T) {
			far, near := memoryChannels()
			var long [2]longLine
			for i := range long {
				long[i].other = &long[1-i]
			}
			r := newLineReader(near, 1<<20, &long)
			want := `{"x":"` + strings.Repeat("x", 200_000) + `"}`
			for b := []byte(want + "\n"); len(b) > 0; {
				n := min(len(b), wire.SliceSize)
				_, _ = far.WriteDataChannel(b[:n], text) // never fails
				b = b[n:]
			}
			r.from.guest = true
			if line, err := r.ReadLine(); err != wire.ErrLater {
				t.Fatalf("%.20s, %v", line, err)
			}
			if n := len(near.in); n == 0 {
				t.Error("the guest has read it all")
			}
			r.from.guest = false
			if line, err := r.ReadLine(); err != nil || string(line) != want {
				t.Errorf("%.20s, %v", line, err)
			}
		})
	}
}
