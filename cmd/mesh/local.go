package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// A local address is one on this machine, or one that it can reach.
type local struct{ network, address string }

func (l local) String() string {
	if l.network == "unix" {
		return "unix:" + l.address
	}
	return l.address
}

// parseLocal reads PORT, HOST:PORT or unix:PATH. A port alone is one of this machine, for its own programs only.
func parseLocal(text string) (local, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if err := sock.CheckPath(path); err != nil {
			return local{}, usage(err)
		}
		return local{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = "127.0.0.1", text
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return local{}, usage(fmt.Errorf("%q is no address; want a port, host:port or unix:PATH, such as 127.0.0.1:3000", text))
	}
	return local{"tcp", net.JoinHostPort(host, port)}, nil
}

// listen listens there. A Unix socket can be reached by this user only.
func (l local) listen(ctx context.Context) (net.Listener, error) {
	if l.network == "unix" {
		return sock.Listen(l.address)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is taken by another program; choose another port, or 0 for any", l.address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w; choose a port from 1024 on", err)
	}
	return listener, err
}

// dialTimeout bounds the way to a local service.
const dialTimeout = 10 * time.Second

// dial connects to the service that listens there.
func (l local) dial(ctx context.Context) (end, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, l.network, l.address)
	if err != nil {
		return nil, err
	}
	return conn.(end), nil
}

// shortPause is how long to wait when the system has no room for another connection.
const shortPause = 200 * time.Millisecond

// acceptAll calls handle, in a goroutine of its own, for every connection, until the listener or ctx ends. It returns
// when all of them have returned.
func acceptAll(ctx context.Context, l net.Listener, handle func(net.Conn)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			all.Go(func() { handle(conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			time.Sleep(shortPause)
		default:
			return err
		}
	}
}
