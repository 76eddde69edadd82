package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

// newSignaling starts a signaling server for an example. In development mode the
// API key of an agent is its peer id.
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

// Alice sends a request to bob, whose handler returns the response.
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

// errors.Is reports why a request failed.
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

// OnPeer reports peers that come and go, in order with what they send.
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

// A handler can be added while the mesh runs. The handler of "" takes every type
// that has no handler of its own.
func ExampleMesh_Handle() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	bob, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "bob"})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	add := func(_ context.Context, msg *mesh.Message) (any, error) {
		var numbers []int
		if err := msg.Decode(&numbers); err != nil {
			return nil, err
		}
		sum := 0
		for _, n := range numbers {
			sum += n
		}
		return sum, nil
	}
	if err := bob.Handle("add_request", add); err != nil {
		log.Fatal(err)
	}
	other := func(_ context.Context, msg *mesh.Message) (any, error) {
		return nil, fmt.Errorf("bob can only add, not %s", strings.TrimSuffix(msg.Type, "_request"))
	}
	if err := bob.Handle("", other); err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(bob.Handle("add_request", other), mesh.ErrDuplicateHandler))

	alice, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "alice"})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	for _, typ := range []string{"add_request", "divide_request"} {
		reply, err := alice.Request(ctx, "bob", mesh.Message{Type: typ, Payload: []int{1, 2, 3}})
		var remote *mesh.RemoteError
		switch {
		case errors.As(err, &remote):
			fmt.Println(remote.Text)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Printf("%s: %s\n", reply.Type, reply.Payload)
		}
	}
	// Output:
	// true
	// add_response: 6
	// bob can only add, not divide
}

// A slow handler makes Send block, under its context, once the bounded queues on
// the way to it are full. What Send has accepted is handled all the same.
func ExampleMesh_Send_backpressure() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	handled := make(chan struct{})
	bob, err := mesh.New(ctx, mesh.Config{
		SignalingURL: url, APIKey: "bob",
		Handlers: map[string]mesh.Handler{
			"work": func(ctx context.Context, _ *mesh.Message) (any, error) {
				select {
				case handled <- struct{}{}: // blocks until this example receives
				case <-ctx.Done():
				}
				return nil, nil
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

	accepted := 0
	work := mesh.Message{Type: "work", Payload: strings.Repeat("x", 256<<10)}
	for err == nil {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		if err = alice.Send(short, "bob", work); err == nil {
			accepted++
		}
		cancel()
	}
	fmt.Println("Send blocked until its context ended:", errors.Is(err, context.DeadlineExceeded))
	for range accepted {
		<-handled
	}
	fmt.Println("everything accepted was handled")
	// Output:
	// Send blocked until its context ended: true
	// everything accepted was handled
}

// An HTTP server and a client, neither of which knows of the mesh.
func ExampleMesh_DialContext() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	bob, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "bob"})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()
	l, err := bob.Listen("http")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s", r.RemoteAddr)
	})}
	defer server.Close()
	go server.Serve(l)

	alice, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "alice"})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()
	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	web := http.Client{Transport: &http.Transport{DialContext: alice.DialContext}}
	defer web.CloseIdleConnections()
	page, err := web.Get("http://bob/")
	if err != nil {
		log.Fatal(err)
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	fmt.Println(string(text), err)

	// Output:
	// hello, alice:http <nil>
}
