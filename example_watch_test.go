package mesh_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/chatixia-ai/mesh"
)

// The numbers of the links are there for the asking.
func ExampleMesh_Stats() {
	alice, _, stop := pair(map[string]mesh.Handler{"count_request": mesh.Typed(countWords)})
	defer stop()
	ctx := context.Background()
	for range 3 {
		if _, err := mesh.Call[Words](ctx, alice, "bob", "count_request", Text{"to be"}); err != nil {
			log.Fatal(err)
		}
	}
	st, err := alice.Stats(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range st.Peers {
		fmt.Println(p.ID, "sent", p.MessagesSent, "received", p.MessagesReceived, "outages", p.Outages)
	}
	// Output:
	// bob sent 3 received 3 outages 0
}

// An observer counts what happens, without asking.
func ExampleObserver() {
	links := make(chan string, 2)
	_, _, stop := pairOf(mesh.Config{Observer: mesh.Observer{
		LinkUp: func(p mesh.Peer) { links <- "linked to " + p.ID },
	}})
	defer stop()
	fmt.Println(<-links)
	fmt.Println(<-links)
	// Unordered output:
	// linked to alice
	// linked to bob
}

// Data about a message, such as a trace context, travels beside its payload.
func ExampleMessage_meta() {
	alice, _, stop := pair(map[string]mesh.Handler{
		"who_request": func(_ context.Context, msg *mesh.Message) (any, error) { return msg.Meta["tenant"], nil },
	})
	defer stop()
	reply, err := alice.Request(context.Background(), "bob", mesh.Message{Type: "who_request", Meta: map[string]string{"tenant": "blue"}})
	if err != nil {
		log.Fatal(err)
	}
	var tenant string
	fmt.Println(reply.Decode(&tenant), tenant)
	// Output:
	// <nil> blue
}

// Where log/slog is in use, the log of the mesh goes there.
func ExampleSlog() {
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	h := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: withoutTime})
	log := mesh.Slog(h) // for Config.Logger
	log.Warn().Str("peer", "bob").Msg("an example")
	// Output:
	// level=WARN msg="an example" peer=bob
}
