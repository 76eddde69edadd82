package cores

import (
	"runtime"
	"testing"
)

func TestShare(t *testing.T) {
	all := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(all)
	for _, c := range []struct {
		env       string
		had, want int
	}{
		{"", 8, 4},
		{"", 3, 1},
		{"", 1, 1},
		{"6", 6, 6},
	} {
		t.Setenv("GOMAXPROCS", c.env)
		runtime.GOMAXPROCS(c.had)
		Share()
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("GOMAXPROCS=%q: %d of %d cores, want %d", c.env, got, c.had, c.want)
		}
	}
}
