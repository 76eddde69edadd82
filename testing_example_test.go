package mesh_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/signaling"
)

// startGreeter stands for the agent that is tested. It takes what differs between
// tests and production as an argument.
func startGreeter(ctx context.Context, cfg mesh.Config) (*mesh.Mesh, error) {
	cfg.Handlers = map[string]mesh.Handler{
		"greet_request": func(_ context.Context, msg *mesh.Message) (any, error) {
			return "hello, " + msg.From, nil
		},
	}
	return mesh.New(ctx, cfg)
}

// How to test an agent: the test starts a signaling server in development mode on
// loopback, the agent, and a second one that talks to it. All run in the test's
// process. In a test, log.Fatal is t.Fatal, and defer is t.Cleanup.
func Example_testing() {
	server, err := signaling.New(signaling.Config{Dev: true}) // the API key is the peer id
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	web := httptest.NewServer(server)
	defer web.Close()
	url := strings.Replace(web.URL, "http", "ws", 1) + "/ws"

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	greeter, err := startGreeter(ctx, mesh.Config{SignalingURL: url, APIKey: "greeter"})
	if err != nil {
		log.Fatal(err)
	}
	defer greeter.Close()
	tester, err := mesh.New(ctx, mesh.Config{SignalingURL: url, APIKey: "tester"})
	if err != nil {
		log.Fatal(err)
	}
	defer tester.Close()

	if err := tester.WaitPeer(ctx, "greeter"); err != nil {
		log.Fatal(err)
	}
	reply, err := tester.Request(ctx, "greeter", mesh.Message{Type: "greet_request"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", reply.Payload)
	// Output: "hello, tester"
}
