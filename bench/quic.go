package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/chatixia-ai/mesh/internal/rtc"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

const quicProtocol = "bench"

// A quicPipe writes messages to a QUIC stream, whose far end counts bytes.
type quicPipe struct {
	sockets    [2]*net.UDPConn
	transports [2]*quic.Transport
	stream     *quic.Stream
	msg        []byte
	count      *counter
}

// openQUICOver connects two ends of quic-go over a path.
func openQUICOver(size int) func(context.Context, *netpath.Path) (pipe, error) {
	return func(ctx context.Context, path *netpath.Path) (_ pipe, err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("QUIC did not connect"))
		defer cancel()
		p := &quicPipe{msg: make([]byte, size), count: newCounter()}
		defer func() {
			if err != nil {
				p.close()
			}
		}()
		for i := range p.sockets {
			if p.sockets[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
				return nil, err
			}
			_, _ = p.sockets[i].SetReadBuffer(rtc.SocketBuffer), p.sockets[i].SetWriteBuffer(rtc.SocketBuffer)
			p.transports[i] = &quic.Transport{Conn: p.sockets[i]}
			path.Join(i, p.sockets[i].LocalAddr().(*net.UDPAddr).AddrPort())
		}
		cert, err := selfSigned()
		if err != nil {
			return nil, err
		}
		config := &quic.Config{MaxStreamReceiveWindow: 16 << 20, MaxConnectionReceiveWindow: 16 << 20}
		listener, err := p.transports[1].Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{quicProtocol}}, config)
		if err != nil {
			return nil, err
		}
		go p.serve(listener) // ends with the transport
		conn, err := p.transports[0].Dial(ctx, net.UDPAddrFromAddrPort(path.Addr(1)),
			&tls.Config{InsecureSkipVerify: true, NextProtos: []string{quicProtocol}}, config) // the certificate was made a moment ago
		if err != nil {
			return nil, err
		}
		p.stream, err = conn.OpenStreamSync(ctx)
		return p, err
	}
}

func (p *quicPipe) serve(l *quic.Listener) {
	conn, err := l.Accept(context.Background())
	if err != nil {
		return
	}
	s, err := conn.AcceptStream(context.Background())
	if err != nil {
		return
	}
	countMessages(s, len(p.msg), p.count)
}

func (p *quicPipe) send(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = p.stream.SetWriteDeadline(deadline)
	}
	_, err := p.stream.Write(p.msg)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (p *quicPipe) flush() error      { return nil }
func (p *quicPipe) arrived() *counter { return p.count }

func (p *quicPipe) close() {
	for i := range p.transports {
		if p.transports[i] != nil {
			_ = p.transports[i].Close()
		}
		if p.sockets[i] != nil {
			_ = p.sockets[i].Close()
		}
	}
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
