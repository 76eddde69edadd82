package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/webrtc/v4"
)

// The settings of the mesh's own connections (internal/rtc/api.go). Whoever
// changes one there changes it here: the baseline is bare, not badly tuned.
const (
	pionMaxMessage    = 256 << 10
	pionReceiveWindow = 4 << 20
	pionMaxRTO        = time.Second
	pionMaxChecks     = 50
	pionSocketBuffer  = 4 << 20
)

// A pionEnd is what the connections of one agent have in common.
type pionEnd struct {
	api  *webrtc.API
	cert webrtc.Certificate
	mux  *ice.MultiUDPMuxDefault // nil: a socket for each connection
}

// A pionKind is what differs between ends.
type pionKind struct {
	shared     bool // one UDP socket for all connections, like mesh.Config.UDPMux
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
	std, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	system := bufferedNet{std}
	e := &pionEnd{cert: *cert}
	se := pionSettings()
	se.SetNet(system)
	se.EnableDataChannelBlockWrite(kind.blockWrite)
	if kind.shared {
		e.mux, err = ice.NewMultiUDPMuxFromPort(0, ice.UDPMuxFromPortWithNet(system), ice.UDPMuxFromPortWithLoopback(),
			ice.UDPMuxFromPortWithLogger(silent().NewLogger("")),
			ice.UDPMuxFromPortWithReadBufferSize(pionSocketBuffer), ice.UDPMuxFromPortWithWriteBufferSize(pionSocketBuffer))
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
	se.DetachDataChannels()
	se.SetSCTPMaxMessageSize(pionMaxMessage)
	se.SetSCTPMaxReceiveBufferSize(pionReceiveWindow)
	se.SetSCTPRTOMax(pionMaxRTO)
	se.SetICEMaxBindingRequests(pionMaxChecks)
	se.SetIncludeLoopbackCandidate(true)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	se.DisableActiveTCP(true)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
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

// bufferedNet is the system's network with large buffers for each socket.
type bufferedNet struct{ *stdnet.Net }

func (n bufferedNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	c, err := n.Net.ListenUDP(network, addr)
	if err == nil {
		_ = c.SetReadBuffer(pionSocketBuffer)
		_ = c.SetWriteBuffer(pionSocketBuffer)
	}
	return c, err
}
