package mesh

import (
	"errors"
	"testing"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// A mesh that wants a free id throws nobody off: New says so, or, without WaitSignaling, its end does.
func TestIfFree(t *testing.T) {
	for _, mode := range modesHere()[:min(2, len(modesHere()))] {
		t.Run(mode.String(), func(t *testing.T) {
			s := newStage(t, "")
			agent, bob := s.start(t, InProcess, "alice"), s.start(t, InProcess, "bob")
			cfg := Config{Mode: mode, SignalingURL: s.url, APIKey: "alice", IfFree: true, WaitSignaling: true}
			if m, err := New(bounded(t), cfg); !errors.Is(err, ErrIDInUse) {
				t.Fatalf("New: %v, %v", m, err)
			}
			cfg.WaitSignaling = false
			m, err := New(bounded(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			testutil.Take(t, "the end of the mesh", m.Done())
			if err := m.Err(); !errors.Is(err, ErrIDInUse) || errors.Is(err, ErrReplaced) {
				t.Errorf("Err: %v", err)
			}
			if err := m.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if err := agent.WaitPeer(bounded(t), "bob"); err != nil {
				t.Error(err)
			}
			works(t, agent, bob)

			cfg.APIKey, cfg.WaitSignaling = "tool", true
			tool, err := New(bounded(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			s.start(t, InProcess, "tool")
			testutil.Take(t, "the end of the tool", tool.Done())
			if err := tool.Err(); !errors.Is(err, ErrReplaced) {
				t.Errorf("Err: %v", err)
			}
		})
	}
	for _, mode := range []Mode{Binary, Attach} {
		var bad *ConfigError
		if _, err := New(bounded(t), Config{Mode: mode, IfFree: true}); !errors.As(err, &bad) || bad.Field != "IfFree" {
			t.Errorf("%v: %v", mode, err)
		}
	}
}
