//go:build linux || darwin

package interop

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh"
)

// opensStreams: what goes through a stream comes back whole, and who has none is known to have none.
func (p *party) opensStreams(to *party) {
	p.t.Helper()
	if !p.streams {
		return
	}
	if !to.streams {
		p.do("open %s echo hello", to.id)
		if to.sidecar && !to.agent { // the sidecar has streams, but nobody there to listen
			p.refused(to, "echo", "no_service", mesh.ErrNoService)
		} else {
			p.refused(to, "echo", "no_streams", mesh.ErrNoStreams)
		}
		return
	}
	to.do("offer echo")
	to.await(1, "listens for echo")
	p.do("open %s echo hello,  stream", to.id)
	p.await(1, to.id+"/echo answers: hello,  stream")
	p.echoes(to, p.id+to.id, 1<<20)
	p.do("open %s none hello", to.id)
	p.refused(to, "none", "no_service", mesh.ErrNoService)
}

// refused blocks until a stream was refused, for a reason that an agent of ours tells by a code or by a Go error.
func (p *party) refused(to *party, service, code string, err error) {
	p.t.Helper()
	prefix := fmt.Sprintf("error: stream to %s/%s: ", to.id, service)
	p.find(1, prefix+code, func(l string) bool {
		return strings.HasPrefix(l, prefix) && (strings.Contains(l, code+": ") || strings.Contains(l, err.Error()))
	})
}

// text returns n bytes of text that differ from those of another seed, and do not repeat.
func text(seed string, n int) string {
	var b strings.Builder
	for sum := sha256.Sum256([]byte(seed)); b.Len() < n; sum = sha256.Sum256(sum[:]) {
		b.WriteString(hex.EncodeToString(sum[:]))
	}
	return b.String()[:n]
}

// echoes has the other party send back a text of so many bytes through a stream, and compares checksums. The service echo
// is on offer.
func (p *party) echoes(to *party, seed string, n int) {
	p.t.Helper()
	want := text(seed, n)
	p.do("open %s echo %s", to.id, want)
	prefix := to.id + "/echo answers: "
	p.find(1, fmt.Sprintf("%s%.20s... of %d bytes", prefix, want, n), func(l string) bool {
		got, ok := strings.CutPrefix(l, prefix)
		return ok && sha256.Sum256([]byte(got)) == sha256.Sum256([]byte(want))
	})
}

// TestStreams: agents in different languages, all on one mesh, open streams to each other, many at once. More goes through
// one than all buffers on the way hold, so both ends write while they read.
func TestStreams(t *testing.T) {
	st := newStage(t)
	var all []*party
	for i, name := range []string{"InProcess", "SelfExec", "Python", "Node"} {
		p := st.enter(t, kindNamed(name), fmt.Sprintf("p%d", i))
		p.do("offer echo")
		p.await(1, "listens for echo")
		all = append(all, p)
	}
	const many, size = 4, 150_000
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			from.await(1, "+ "+to.id)
			for i := range many {
				from.do("open %s echo %s", to.id, text(fmt.Sprint(from.id, to.id, i), size))
			}
		}
	}
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			for i := range many {
				from.await(1, to.id+"/echo answers: "+text(fmt.Sprint(from.id, to.id, i), size))
			}
		}
	}
	for _, from := range all[1:] {
		from.echoes(all[0], from.id, 8<<20)
		all[0].echoes(from, "to"+from.id, 8<<20)
	}
	for _, p := range all {
		for _, l := range p.said().all() {
			if strings.HasPrefix(l, "error: ") {
				t.Errorf("%s (%s): %s", p.id, p.name, l)
			}
		}
	}
}

// TestStreamsEnd: a stream that is refused, one whose peer leaves, and one whose peer is killed end with the reason.
func TestStreamsEnd(t *testing.T) {
	for _, name := range []string{"SelfExec", "Python", "Node"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStage(t)
			ann := st.enter(t, kindNamed("InProcess"), "ann")
			bob := st.enter(t, kindNamed(name), "bob")
			ann.await(1, "+ bob")
			bob.await(1, "+ ann")
			m := ann.console.(*goParty).Mesh

			listen(t, mesh.ListenConfig{Allow: func(mesh.Peer) bool { return false }}, m, "closed")
			bob.do("open ann closed hello")
			bob.refused(ann, "closed", "refused", mesh.ErrStreamRefused)

			if name != "SelfExec" { // it would take the test along
				bob.do("offer echo")
				bob.await(1, "listens for echo")
				c := talk(t, m, "bob", "echo")
				bob.die()
				if n, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF { //nolint:errorlint // a Read's own
					t.Errorf("read from a peer that was killed: %d bytes, %v", n, err)
				}
				ann.await(1, "- bob")
				bob = st.enter(t, kindNamed(name), "bob")
				ann.await(2, "+ bob")
				bob.await(1, "+ ann")
			}

			silent := listen(t, mesh.ListenConfig{}, m, "silent")
			bob.do("open ann silent hello")
			c, err := silent.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); string(b) != "hello\n" || err != nil { // half of it is closed
				t.Errorf("read %q, %v", b, err)
			}
			if _, err := io.WriteString(c, "not all"); err != nil {
				t.Error(err)
			}
			ann.leave()
			bob.refused(ann, "silent", "peer_lost", mesh.ErrPeerGone)
		})
	}
}

func listen(t *testing.T, cfg mesh.ListenConfig, m *mesh.Mesh, service string) net.Listener {
	t.Helper()
	l, err := cfg.Listen(m, service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// talk opens a stream to a service that echoes, and sees that it does.
func talk(t *testing.T, m *mesh.Mesh, peer, service string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := m.Dial(ctx, peer, service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(c).ReadString('\n'); got != "hello\n" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	return c
}
