package signaling_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/chatixia-ai/mesh/signaling"
)

// A Server is mounted in a mux of the application, here under a prefix. Agents then
// have the SignalingURL wss://HOST/mesh/ws.
func ExampleServer() {
	server, err := signaling.New(signaling.Config{
		Secret: "of at least 32 random bytes, which are kept elsewhere",
		Keys: map[string]signaling.Key{
			"the-key-of-alice":  {PeerID: "alice", Role: "agent"},
			"the-key-of-robert": {PeerID: "robert", Role: "agent"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close() // after the http.Server
	mux := http.NewServeMux()
	mux.Handle("/mesh/", http.StripPrefix("/mesh", server))
	web := httptest.NewServer(mux) // in production an http.Server with TLS
	defer web.Close()

	response, err := http.Get(web.URL + "/mesh/healthz")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", text)
	// Output: {"status":"ok"}
}
