package strict_test

import (
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/strict"
)

// The usual request: short, and with all that is required.
func BenchmarkUnmarshal(b *testing.B) {
	text := []byte(`{"to":7,"text":"` + strings.Repeat("x", 200) + `"}`)
	b.Run("required", func(b *testing.B) {
		for b.Loop() {
			var v struct {
				To   int    `json:"to" mesh:"required"`
				Text string `json:"text"`
			}
			if err := strict.Unmarshal(text, &v, "payload"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("nothing required", func(b *testing.B) {
		for b.Loop() {
			var v struct {
				To   int    `json:"to"`
				Text string `json:"text"`
			}
			if err := strict.Unmarshal(text, &v, "payload"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("required zero", func(b *testing.B) {
		text := []byte(`{"to":0,"text":"` + strings.Repeat("x", 200) + `"}`)
		for b.Loop() {
			var v struct {
				To   int    `json:"to" mesh:"required"`
				Text string `json:"text"`
			}
			if err := strict.Unmarshal(text, &v, "payload"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
