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
	"sync/atomic"
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

type Text struct {
	Text string `json:"text" mesh:"required"`
}

type Words struct {
	Words int `json:"words"`
}

func countWords(_ context.Context, _ mesh.Peer, req Text) (Words, error) {
	return Words{len(strings.Fields(req.Text))}, nil
}

// Alice calls bob, whose handler has types of its own.
func Example() {
	url, stop := newSignaling()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	bob, err := mesh.New(ctx, mesh.Config{
		SignalingURL: url, APIKey: "bob",
		Handlers: map[string]mesh.Handler{"count_request": mesh.Typed(countWords)},
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
	res, err := mesh.Call[Words](ctx, alice, "bob", "count_request", Text{"to be or not to be"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Words, "words")

	_, err = mesh.Call[Words](ctx, alice, "bob", "count_request", map[string]int{"text": 7})
	fmt.Println(errors.Is(err, mesh.ErrInvalidArgument), err.(*mesh.PeerError).Err)
	// Output:
	// 6 words
	// true mesh: the peer responded with an error: payload.text: want a string, got 7
}

// The response to a request may come bit by bit.
func ExampleCallStream() {
	alice, _, stop := pair(map[string]mesh.Handler{
		"spell_request": mesh.TypedStream(func(_ context.Context, _ mesh.Peer, req Text, emit func(string) error) (Words, error) {
			words := strings.Fields(req.Text)
			for _, word := range words {
				if err := emit(word); err != nil {
					return Words{}, err // the peer has left its loop, or is gone
				}
			}
			return Words{len(words)}, nil
		}),
	})
	defer stop()
	var summary Words
	for word, err := range mesh.CallStream[string](context.Background(), alice, "bob", "spell_request", Text{"to be or not"}, mesh.Final(&summary)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(word)
	}
	fmt.Println(summary.Words, "words")
	// Output:
	// to
	// be
	// or
	// not
	// 4 words
}

// An agent says on its card what it can be asked for. Who needs that asks whichever peer offers it.
func ExampleBySkill() {
	alice, _, stop := pairOf(mesh.Config{
		Card: &mesh.Card{
			Name: "Bob", Version: "1.2", Skills: []mesh.Skill{{Name: "count", Description: "counts words", Type: "count_request"}},
		},
		Handlers: map[string]mesh.Handler{"count_request": mesh.Typed(countWords)},
	})
	defer stop()
	ctx := context.Background()
	res, err := mesh.Call[Words](ctx, alice, mesh.BySkill("count"), "", Text{"to be or not to be"})
	fmt.Println(res.Words, "words,", err)
	for _, p := range alice.Peers() {
		fmt.Println(p.ID, "is", p.Card.Name, p.Card.Version, "and", p.Card.Skills[0].Description)
	}
	_, err = mesh.Call[any](ctx, alice, mesh.BySkill("sing"), "", nil)
	fmt.Println(err)
	// Output:
	// 6 words, <nil>
	// bob is Bob 1.2 and counts words
	// mesh: no live peer offers the skill "sing"; the cards of those that are there are in Peers
}

// A handler chooses what its peer learns of a failure.
func ExampleNewError() {
	alice, _, stop := pair(map[string]mesh.Handler{
		"print_request": mesh.Typed(func(_ context.Context, _ mesh.Peer, _ Text) (any, error) {
			return nil, mesh.NewError("out_of_paper", "no paper in tray 2", map[string]int{"tray": 2})
		}),
	})
	defer stop()
	_, err := mesh.Call[any](context.Background(), alice, "bob", "print_request", Text{"hi"})
	var failure *mesh.RemoteError
	if errors.As(err, &failure) {
		fmt.Println(failure.Code, failure.Text, string(failure.Details))
	}
	// Output:
	// out_of_paper no paper in tray 2 {"tray":2}
}

// pair returns alice, and bob with handlers, linked to each other.
func pair(handlers map[string]mesh.Handler, interceptors ...mesh.Interceptor) (alice, bob *mesh.Mesh, stop func()) {
	return pairOf(mesh.Config{Handlers: handlers, Interceptors: interceptors})
}

// pairOf returns alice, and bob of a configuration, linked to each other. Their interceptors are the same.
func pairOf(cfg mesh.Config) (alice, bob *mesh.Mesh, stop func()) {
	url, stopSignaling := newSignaling()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg.SignalingURL, cfg.APIKey = url, "bob"
	bob, err := mesh.New(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	alice, err = mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "alice", Interceptors: cfg.Interceptors, Observer: cfg.Observer})
	if err != nil {
		log.Fatal(err)
	}
	if err := alice.WaitPeer(ctx, "bob"); err != nil {
		log.Fatal(err)
	}
	return alice, bob, func() {
		alice.Close()
		bob.Close()
		stopSignaling()
	}
}

// An interceptor logs every request, at the end that makes it and at the one that handles it.
func ExampleInterceptor_logging() {
	logging := mesh.Interceptor{
		Call: func(next mesh.CallFunc) mesh.CallFunc {
			return func(ctx context.Context, peer string, msg mesh.Message) (*mesh.Message, error) {
				reply, err := next(ctx, peer, msg)
				fmt.Println("called", msg.Type, "at", peer, "and got an error:", err != nil)
				return reply, err
			}
		},
		Handle: func(next mesh.Handler) mesh.Handler {
			return func(ctx context.Context, msg *mesh.Message) (any, error) {
				fmt.Println("handling", msg.Type, "of", msg.From)
				return next(ctx, msg)
			}
		},
	}
	alice, _, stop := pair(map[string]mesh.Handler{"count_request": mesh.Typed(countWords)}, logging)
	defer stop()
	if _, err := mesh.Call[Words](context.Background(), alice, "bob", "count_request", Text{"to be"}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// handling count_request of alice
	// called count_request at bob and got an error: false
}

// An interceptor decides who may ask for what. Who a peer is its link says: see [mesh.Config].Identity.
func ExampleInterceptor_authorisation() {
	allowed := map[string]string{"count_request": "carol"}
	authorisation := mesh.Interceptor{
		Handle: func(next mesh.Handler) mesh.Handler {
			return func(ctx context.Context, msg *mesh.Message) (any, error) {
				if allowed[msg.Type] != msg.From {
					return nil, mesh.NewError("forbidden", msg.From+" may not ask for "+msg.Type, nil)
				}
				return next(ctx, msg)
			}
		},
	}
	alice, _, stop := pair(map[string]mesh.Handler{"count_request": mesh.Typed(countWords)}, authorisation)
	defer stop()
	_, err := mesh.Call[Words](context.Background(), alice, "bob", "count_request", Text{"to be"})
	fmt.Println(err.(*mesh.PeerError).Err)
	// Output:
	// mesh: the peer responded with an error: alice may not ask for count_request
}

// An interceptor asks again when a peer was busy: then the request was not carried out.
func ExampleInterceptor_retry() {
	retry := mesh.Interceptor{
		Call: func(next mesh.CallFunc) mesh.CallFunc {
			return func(ctx context.Context, peer string, msg mesh.Message) (reply *mesh.Message, err error) {
				for wait := 10 * time.Millisecond; ; wait *= 2 {
					if reply, err = next(ctx, peer, msg); !errors.Is(err, mesh.ErrBusy) {
						return reply, err
					}
					select {
					case <-time.After(wait):
					case <-ctx.Done():
						return nil, err
					}
				}
			}
		},
	}
	var tries atomic.Int32
	alice, _, stop := pair(map[string]mesh.Handler{
		"count_request": mesh.Typed(func(ctx context.Context, from mesh.Peer, req Text) (Words, error) {
			if tries.Add(1) < 3 {
				return Words{}, mesh.NewError(mesh.CodeBusy, "later", nil)
			}
			return countWords(ctx, from, req)
		}),
	}, retry)
	defer stop()
	res, err := mesh.Call[Words](context.Background(), alice, "bob", "count_request", Text{"to be"})
	fmt.Println(res.Words, err, "after", tries.Load(), "tries")
	// Output:
	// 2 <nil> after 3 tries
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
