package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/rtc"
)

// pionMaxMessage is room for any data channel message that is sent here.
const pionMaxMessage = 256 << 10

// A pionEnd is what the connections of one agent have in common.
type pionEnd struct {
	api  *webrtc.API
	cert webrtc.Certificate
	mux  *ice.MultiUDPMuxDefault // nil: a socket for each connection
}

// A pionKind is what differs between ends.
type pionKind struct {
	shared     bool // one UDP socket for all connections, like mesh.AnyUDPPort
	blockWrite bool // a write waits until the message is on its way
}

func newPionEnd(kind pionKind) (*pionEnd, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, err
	}
	// The baseline is bare, not badly tuned: it has the mesh's own sockets, too.
	system, err := rtc.NewNetwork(context.Background())
	if err != nil {
		return nil, err
	}
	e := &pionEnd{cert: *cert}
	se := pionSettings()
	se.SetNet(system)
	se.EnableDataChannelBlockWrite(kind.blockWrite)
	if kind.shared {
		e.mux, err = ice.NewMultiUDPMuxFromPort(0, ice.UDPMuxFromPortWithNet(system), ice.UDPMuxFromPortWithLoopback(),
			ice.UDPMuxFromPortWithLogger(silent().NewLogger("")),
			ice.UDPMuxFromPortWithReadBufferSize(rtc.SocketBuffer), ice.UDPMuxFromPortWithWriteBufferSize(rtc.SocketBuffer))
		if err != nil {
			return nil, err
		}
		se.SetICEUDPMux(e.mux)
	}
	e.api = webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(&webrtc.MediaEngine{}),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	return e, nil
}

func pionSettings() webrtc.SettingEngine {
	var se webrtc.SettingEngine
	se.LoggerFactory = silent()
	rtc.Tune(&se)
	se.SetIncludeLoopbackCandidate(true)
	return se
}

// silent keeps pion's log off stderr, where it goes by default.
func silent() logging.LoggerFactory {
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	return logs
}

func (e *pionEnd) connection() (*webrtc.PeerConnection, error) {
	return e.api.NewPeerConnection(webrtc.Configuration{Certificates: []webrtc.Certificate{e.cert}})
}

func (e *pionEnd) close() {
	if e.mux != nil {
		_ = e.mux.Close()
	}
}
