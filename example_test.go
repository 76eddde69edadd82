package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

// newSignaling serves a signaling server for the examples, which in development
// mode takes the API key as peer id.
func newSignaling() (url string, stop func()) {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		log.Fatal(err)
	}
	web := httptest.NewServer(server)
	return "ws" + strings.TrimPrefix(web.URL, "http") + "/ws", func() {
		server.Close()
		web.Close()
	}
}

// One agent asks another for a piece of work.
func Example() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	bob, err := mesh.New(ctx, mesh.Config{
		SignalingURL: url, APIKey: "bob",
		Handlers: map[string]mesh.Handler{
			"shout_request": func(_ context.Context, msg *mesh.Message) (any, error) {
				var text string
				if err := msg.Decode(&text); err != nil {
					return nil, err
				}
				return strings.ToUpper(text), nil
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()

	alice, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "alice"})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()

	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	reply, err := alice.Request(ctx, "bob", mesh.Message{Type: "shout_request", Payload: "hello"})
	if err != nil {
		log.Fatal(err)
	}
	var text string
	if err := reply.Decode(&text); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.Type, "from", reply.From+":", text)
	// Output: shout_response from bob: HELLO
}

// What goes wrong has a name.
func ExampleMesh_Request_errors() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	alice, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "alice"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = alice.Request(ctx, "nobody", mesh.Message{Type: "task_request", RequestID: "a1b2c3"})
	fmt.Println(err)
	fmt.Println(errors.Is(err, mesh.ErrNotConnected))

	alice.Close()
	_, err = alice.Request(ctx, "bob", mesh.Message{Type: "task_request"})
	fmt.Println(errors.Is(err, mesh.ErrClosed))
	// Output:
	// mesh: request to "nobody" (id "a1b2c3"): no live link to the peer
	// true
	// true
}

// Peers come and go; OnPeer tells, in order with what they send.
func ExampleConfig_onPeer() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	events := make(chan string)
	alice, err := mesh.New(ctx, mesh.Config{
		SignalingURL: url, APIKey: "alice",
		OnPeer: func(e mesh.PeerEvent) {
			if e.Connected {
				events <- e.Peer.ID + " is here"
			} else {
				events <- e.Peer.ID + " left"
			}
		},
		Handlers: map[string]mesh.Handler{
			"note": func(_ context.Context, msg *mesh.Message) (any, error) {
				var text string
				err := msg.Decode(&text)
				events <- msg.From + " says " + text
				return nil, err
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	bob, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "bob"})
	if err != nil {
		log.Fatal(err)
	}
	if err := bob.WaitPeer(ctx, "alice"); err != nil {
		log.Fatal(err)
	}
	if err := bob.Broadcast(ctx, mesh.Message{Type: "note", Payload: "good day"}); err != nil {
		log.Fatal(err)
	}
	go bob.Close() // sends what was accepted before it leaves

	for range 3 {
		fmt.Println(<-events)
	}
	<-bob.Done()
	// Output:
	// bob is here
	// bob says good day
	// bob left
}
