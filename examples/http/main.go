// Http serves a directory to the mesh, or gets a page from a peer, with nothing but net/http at both ends.
//
//	go run ./examples/http -name bob serve DIR
//	go run ./examples/http -name alice get http://bob/FILE
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh"
)

func main() {
	if mesh.SidecarMain() {
		return
	}
	name := flag.String("name", "", "this agent's id")
	fork := flag.Bool("fork", false, "run the sidecar as a process of its own")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: http -name NAME serve DIR | http -name NAME get URL\n"+
			"for example: http -name bob serve . and http -name alice get http://bob/README.md")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *name == "" || flag.NArg() != 2 || flag.Arg(0) != "serve" && flag.Arg(0) != "get" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *fork, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, fork bool, verb, what string) error {
	cfg := mesh.Config{APIKey: name, WaitSignaling: true}
	if fork {
		cfg.Mode = mesh.SelfExec
	}
	m, err := mesh.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer m.Close()
	if verb == "serve" {
		return serve(ctx, m, http.FileServerFS(os.DirFS(what)))
	}
	return get(ctx, m, what, os.Stdout)
}

// serve serves the service http until ctx ends: HTTP/1.1, and HTTP/2, which needs no TLS since the link is encrypted.
func serve(ctx context.Context, m *mesh.Mesh, handler http.Handler) error {
	l, err := m.Listen("http")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	fmt.Println("serving")
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// client returns an HTTP client whose hosts are peers.
func client(m *mesh.Mesh) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: m.DialContext}}
}

// get writes the page of a peer to w.
func get(ctx context.Context, m *mesh.Mesh, page string, w io.Writer) error {
	u, err := url.Parse(page)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := m.WaitPeer(ctx, u.Hostname()); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client(m).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", page, response.Status)
	}
	_, err = io.Copy(w, response.Body)
	return err
}
