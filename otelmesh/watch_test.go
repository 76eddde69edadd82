package otelmesh_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/otelmesh"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		started, end := make(chan struct{}), make(chan struct{})
		bob := mesh.Config{Handlers: map[string]mesh.Handler{"wait_request": func(context.Context, *mesh.Message) (any, error) {
			close(started)
			<-end
			return nil, nil
		}, "note": func(context.Context, *mesh.Message) (any, error) { return nil, nil }}}
		alice := s.net.Join("alice", mesh.Config{})
		s.net.Join("bob", bob)
		stop, err := otelmesh.Watch(alice, s.options("alice")...)
		if err != nil {
			t.Fatal(err)
		}
		second := metric.NewManualReader() // of another provider
		other := *s
		other.reader, other.meters = second, metric.NewMeterProvider(metric.WithReader(second))
		if _, err := otelmesh.Watch(s.net.Mesh("bob"), other.options("bob")...); err != nil {
			t.Fatal(err)
		}
		asked := make(chan error, 1)
		go func() {
			_, err := alice.Request(t.Context(), "bob", mesh.Message{Type: "wait_request", Payload: strings.Repeat("x", 1000)})
			asked <- err
		}()
		<-started
		s.want(map[string]float64{
			"mesh.peer.messages{agent.id=alice peer.id=bob io.direction=transmit}": 1,
			"mesh.peer.messages{agent.id=alice peer.id=bob io.direction=receive}":  0,
			"mesh.peer.requests{agent.id=alice peer.id=bob request.side=pending}":  1,
			"mesh.peer.requests{agent.id=alice peer.id=bob request.side=handling}": 0,
			"mesh.peer.queued{agent.id=alice peer.id=bob}":                         0,
			"mesh.peer.streams{agent.id=alice peer.id=bob}":                        0,
			"mesh.peer.outages{agent.id=alice peer.id=bob}":                        0,
			"mesh.peer.hold{agent.id=alice hold.side=paused peer.id=bob}":          0,
			"mesh.peer.hold{agent.id=alice hold.side=held_back peer.id=bob}":       0,
			"mesh.peer.link{agent.id=alice mesh.path=direct peer.id=bob}":          1,
			"mesh.links{agent.id=alice}":                                           1,
			"mesh.signaling.up{agent.id=alice}":                                    1,
			"mesh.sidecar.dropped{agent.id=alice}":                                 0,
		})
		other.want(map[string]float64{"mesh.peer.requests{agent.id=bob peer.id=alice request.side=handling}": 1})
		if n := s.metrics()["mesh.peer.io{agent.id=alice peer.id=bob io.direction=transmit}"]; n < 1000 || n > 1500 {
			t.Errorf("%v bytes were sent", n)
		}
		close(end)
		if err := <-asked; err != nil {
			t.Error(err)
		}

		// Bob is gone and comes back: the counters go on.
		synctest.Wait()
		s.metrics()
		s.net.Kill("bob")
		time.Sleep(time.Minute)
		s.net.Join("bob", bob)
		if err := alice.Send(t.Context(), "bob", mesh.Message{Type: "note"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.want(map[string]float64{"mesh.peer.messages{agent.id=alice peer.id=bob io.direction=transmit}": 2, "mesh.peer.messages{agent.id=alice peer.id=bob io.direction=receive}": 1})

		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := s.metrics(); len(got) != 0 {
			t.Errorf("after stop there are %v", got)
		}
	})
}

// A mesh that has ended has no numbers, and is no error.
func TestWatchClosed(t *testing.T) {
	s := newStage(t)
	alice := s.net.Join("alice", mesh.Config{})
	told := handled(t)
	if _, err := otelmesh.Watch(alice, s.options("alice")...); err != nil {
		t.Fatal(err)
	}
	if err := alice.Close(); err != nil {
		t.Fatal(err)
	}
	<-alice.Done()
	if got := s.metrics(); len(got) != 0 || told() != 0 {
		t.Errorf("there are %v, and %d errors", got, told())
	}
}
