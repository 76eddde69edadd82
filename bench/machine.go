package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A machine is what the run was measured on and with.
type machine struct {
	CPU     string            `json:"cpu"`
	Cores   int               `json:"cores"`
	System  string            `json:"system"`
	Go      string            `json:"go"`
	Date    string            `json:"date"`
	Modules map[string]string `json:"modules"`
}

// namedModules are those whose versions matter to the numbers.
var namedModules = []string{
	"github.com/pion/webrtc/v4", "github.com/pion/ice/v4", "github.com/pion/dtls/v3", "github.com/pion/sctp",
	"github.com/pion/datachannel", "github.com/coder/websocket", "github.com/libp2p/go-libp2p",
	"github.com/quic-go/quic-go", "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go",
}

func thisMachine() machine {
	m := machine{
		CPU: cpuModel(), Cores: runtime.GOMAXPROCS(0), System: runtime.GOOS + "/" + runtime.GOARCH,
		Go: runtime.Version(), Date: time.Now().UTC().Format(time.DateOnly), Modules: map[string]string{},
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		versions := map[string]string{}
		for _, dep := range build.Deps {
			versions[dep.Path] = dep.Version
		}
		for _, path := range namedModules {
			m.Modules[path] = versions[path]
		}
	}
	return m
}

// cpuModel is known on Linux only.
func cpuModel() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(raw)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown"
}

// String is a line for the head of a table.
func (m machine) String() string {
	short := func(path string) string { return m.Modules[path] }
	return fmt.Sprintf("%s, %d cores, %s, %s, %s; pion/webrtc %s, libp2p %s, nats-server %s",
		m.CPU, m.Cores, m.System, m.Go, m.Date,
		short("github.com/pion/webrtc/v4"), short("github.com/libp2p/go-libp2p"), short("github.com/nats-io/nats-server/v2"))
}
