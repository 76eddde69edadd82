package meshdebug_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/meshdebug"
	"github.com/chatixia-ai/mesh/signaling"
)

// pair returns two agents that are linked, bob being one that tells of his links.
func pair() (alice, bob *mesh.Mesh, end func()) {
	server, err := signaling.New(signaling.Config{Dev: true})
	if err != nil {
		panic(err)
	}
	web := httptest.NewServer(server)
	ctx := context.Background()
	join := func(id string) *mesh.Mesh {
		m, err := mesh.New(ctx, mesh.Config{SignalingURL: "ws" + strings.TrimPrefix(web.URL, "http") + "/ws", APIKey: id, WaitSignaling: true})
		if err != nil {
			panic(err)
		}
		return m
	}
	alice, bob = join("alice"), join("bob")
	if err := meshdebug.Answer(bob, nil); err != nil {
		panic(err)
	}
	for m, peer := range map[*mesh.Mesh]string{alice: "bob", bob: "alice"} {
		if err := m.WaitPeer(ctx, peer); err != nil {
			panic(err)
		}
	}
	return alice, bob, func() {
		_ = alice.Close()
		_ = bob.Close()
		_ = server.Close()
		web.Close()
	}
}

func ExampleHandler() {
	alice, _, end := pair()
	defer end()

	mux := http.NewServeMux()
	mux.Handle("/debug/mesh/", meshdebug.Handler(alice))
	web := httptest.NewServer(mux)
	defer web.Close()

	page, err := http.Get(web.URL + "/debug/mesh/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer page.Body.Close()
	fmt.Println(page.StatusCode, page.Header.Get("Content-Type"))
	// Output:
	// 200 text/html; charset=utf-8
}

func ExampleWatch() {
	alice, _, end := pair()
	defer end()

	for s := range meshdebug.Watch(context.Background(), alice) {
		for _, l := range s.Links {
			fmt.Printf("%s and %s, told by %v\n", l.A, l.B, l.By)
		}
		break
	}
	// Output:
	// alice and bob, told by [alice bob]
}
