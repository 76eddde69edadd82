package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// A connPair is the two ends of a local connection.
type connPair struct {
	near, far net.Conn
}

// openUnix connects a Unix socket with itself.
func openUnix() (connPair, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return connPair{}, err
	}
	defer os.RemoveAll(dir)
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return connPair{}, err
	}
	defer listener.Close()
	near, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		return connPair{}, err
	}
	far, err := listener.Accept()
	if err != nil {
		_ = near.Close()
		return connPair{}, fmt.Errorf("accept: %w", err)
	}
	return connPair{near, far}, nil
}

func openNetPipe() (connPair, error) {
	near, far := net.Pipe()
	return connPair{near, far}, nil
}

func (p connPair) close() {
	_, _ = p.near.Close(), p.far.Close()
}

// connEcho sends a message over a connection that the far end sends back.
type connEcho struct {
	connPair
	msg, buf []byte
}

func openConnEcho(open func() (connPair, error)) func(context.Context) (echoer, error) {
	return func(context.Context) (echoer, error) {
		pair, err := open()
		if err != nil {
			return nil, err
		}
		go connReturn(pair.far)
		// One deadline for the whole life: setting it for each trip would be measured.
		_ = pair.near.SetDeadline(time.Now().Add(time.Hour))
		return &connEcho{pair, make([]byte, smallSize), make([]byte, smallSize)}, nil
	}
}

// connReturn ends with the connection.
func connReturn(c net.Conn) {
	b := make([]byte, smallSize)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func (e *connEcho) echo(context.Context) error {
	if _, err := e.near.Write(e.msg); err != nil {
		return err
	}
	_, err := io.ReadFull(e.near, e.buf)
	return err
}
