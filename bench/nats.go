package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const natsSubject = "bench"

// A natsPair is two clients of a server in this process, over TCP.
type natsPair struct {
	server    *server.Server
	near, far *nats.Conn
}

func openNATS(subscribe func(*nats.Msg)) (_ *natsPair, err error) {
	p := &natsPair{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.server, err = startNATSServer(); err != nil {
		return nil, err
	}
	for _, c := range []**nats.Conn{&p.near, &p.far} {
		if *c, err = nats.Connect(p.server.ClientURL()); err != nil {
			return nil, fmt.Errorf("nats: %w", err)
		}
	}
	sub, err := p.far.Subscribe(natsSubject, subscribe)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	// Without a limit of its own NATS drops what a subscriber cannot take at once.
	if err = sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	return p, p.far.FlushTimeout(connectTimeout)
}

func startNATSServer() (*server.Server, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(connectTimeout) {
		return nil, errors.New("nats: the server does not start")
	}
	return s, nil
}

func (p *natsPair) close() {
	for _, c := range []*nats.Conn{p.near, p.far} {
		if c != nil {
			c.Close()
		}
	}
	if p.server != nil {
		p.server.Shutdown()
		p.server.WaitForShutdown()
	}
}

// natsPipe publishes messages.
type natsPipe struct {
	*natsPair
	msg   []byte
	count *counter
}

func openNATSPipe(context.Context) (pipe, error) {
	p := &natsPipe{msg: make([]byte, smallSize), count: newCounter()}
	pair, err := openNATS(func(*nats.Msg) { p.count.add(1) })
	if err != nil {
		return nil, err
	}
	p.natsPair = pair
	return p, nil
}

func (p *natsPipe) send(context.Context) error { return p.near.Publish(natsSubject, p.msg) }
func (p *natsPipe) flush() error               { return p.near.FlushTimeout(roundTimeout) }
func (p *natsPipe) arrived() *counter          { return p.count }

// natsEcho sends requests to which the far client responds.
type natsEcho struct {
	*natsPair
	msg []byte
}

func openNATSEcho(context.Context) (echoer, error) {
	pair, err := openNATS(func(m *nats.Msg) { _ = m.Respond(m.Data) }) // a lost response ends the request
	if err != nil {
		return nil, err
	}
	return &natsEcho{pair, make([]byte, smallSize)}, nil
}

func (e *natsEcho) echo(context.Context) error {
	_, err := e.near.Request(natsSubject, e.msg, 10*time.Second)
	return err
}
