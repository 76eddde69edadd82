package rtc_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/rtc"
)

type statw struct{}

func (statw) Write(b []byte) (int, error) {
	if s := string(b); strings.Contains(s, "stats n") || strings.Contains(s, "dropping")  {
		fmt.Println(time.Now().Format("05.000"), s)
	}
	return len(b), nil
}

func TestZZ(t *testing.T) {
	h := newHub(t)
	ed := func(c *rtc.Config) { c.Log = zerolog.New(statw{}).Level(zerolog.TraceLevel) }
	a := start(t, h, "a", ed).join()
	b := start(t, h, "b").join()
	linked(t, a, b)
	t0 := time.Now()
	for i := range 8 {
		send(t, a.peer("b"), message(i, 1<<20))
	}
	eventually(t, "all", func() bool { return len(b.received("a")) == 8 })
	fmt.Println("took", time.Since(t0))
}
