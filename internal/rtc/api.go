//go:build !js

package rtc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"

	"github.com/chatixia-ai/mesh/internal/signal"
)

const (
	// maxMessageSize is the longest data channel message that we read, in bytes, as our SDP says.
	maxMessageSize = 256 << 10
	// receiveWindow is the SCTP receive buffer: what a peer may send before it is read. A closed window
	// reopens slowly, so it should outlast a short stall of the reader.
	receiveWindow = 4 << 20
	// sctpMaxRTO bounds the time until a sender probes a closed window, or resends after an outage. pion's
	// default is a minute.
	sctpMaxRTO = time.Second
	// sctpGrowth is by how many bytes the congestion window grows with each round trip after a loss. With pion's one packet
	// it would take seconds to get back to what a line carries; the budget keeps it from growing past that.
	sctpGrowth = 48 << 10
	// maxChecks is how many times ICE checks a pair of addresses, five times a second, before it gives the
	// pair up. The checks must outlast the delays of signaling, the time to the next restart, and an attempt during
	// an outage that ends before it: 30 s.
	maxChecks = 150
	// SocketBuffer is how many bytes of buffer, each way, a UDP socket asks of the system, which may grant
	// less. Bursts from several peers overflow the usual default (208 KiB), and each lost packet costs a
	// second.
	SocketBuffer = 4 << 20
)

// api makes PeerConnections.
type api struct {
	webrtc  *webrtc.API // makes no connections, but checks servers
	se      webrtc.SettingEngine
	net     *host
	loggers pionLoggers
	certs   certificates
	making  sync.WaitGroup // the goroutine that makes the first one
	relay   bool
	servers []webrtc.ICEServer // owned by the node's loop
	turn    *turnDialer
	mux     *mux                   // nil if each connection has ports of its own
	ended   *webrtc.PeerConnection // of closed; owned by the node's loop
	hurry   context.CancelFunc     // ends name lookups
}

func newAPI(cfg Config) (*api, error) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &api{certs: certificates{now: cfg.now}, relay: cfg.RelayOnly, hurry: cancel}
	// A key takes as long to make as a token takes to exchange, and is not needed earlier.
	a.making.Go(func() { _, _ = a.certs.get() }) // connection tries again, and reports the error
	a.loggers = pionLoggers{log: sampled(cfg.Log), all: cfg.LogWebRTC}
	var se webrtc.SettingEngine
	se.LoggerFactory = &a.loggers
	Tune(&se)
	se.SetSCTPCwndCAStep(sctpGrowth)
	se.SetIncludeLoopbackCandidate(!cfg.NoLoopback)
	if cfg.MDNS {
		se.SetICEMulticastDNSMode(ice.MulticastDNSModeQueryOnly)
	}
	if cfg.RelayOnly { // pion waits for 2 s for something better than a relay
		se.SetRelayAcceptanceMinWait(0)
	}
	if err := cfg.fillNet(ctx); err != nil {
		a.close()
		return nil, err
	}
	a.net = newHost(&cfg)
	if addrs, _, err := a.net.addrs(); err == nil && len(addrs) == 0 && !a.net.filter.IsZero() {
		cfg.Log.Warn().Strs("interfaces", cfg.Settings.Interfaces).Any("addresses", cfg.Addresses).
			Msg("no address of this host is of the interfaces and networks that are set; waiting for one")
	}
	se.SetNet(a.net)
	a.turn = &turnDialer{ctx: ctx, host: a.net, proxy: cfg.proxy, roots: cfg.RootCAs}
	if _, ok := a.net.Net.(system); ok {
		se.SetICEProxyDialer(a.turn)
	}
	if cfg.ipFilter != nil {
		se.SetIPFilter(cfg.ipFilter)
	}
	if cfg.UDPPort != 0 {
		m, err := newMux(cfg, a.net, &a.loggers)
		if err != nil {
			a.close()
			return nil, err
		}
		a.mux = m
	}
	a.se = se
	a.webrtc = newWebRTC(se)
	for _, s := range cfg.ICEServers {
		server, err := a.server(s)
		if err != nil {
			a.close()
			return nil, err
		}
		a.servers = append(a.servers, server)
	}
	a.turn.use(a.servers)
	return a, nil
}

// closed returns a PeerConnection that is closed, to stand for those whose memory is to be freed; nil if none can be made. The loop calls it.
func (a *api) closed() *webrtc.PeerConnection {
	if a.ended == nil {
		pc, err := a.webrtc.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			return nil
		}
		_ = pc.GracefulClose() // nothing of it was begun
		a.ended = pc
	}
	return a.ended
}

// fillNet sets net to the system's network, unless a test has set it.
func (c *Config) fillNet(ctx context.Context) error {
	if c.net != nil {
		return nil
	}
	n, err := NewNetwork(ctx)
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	if c.lookup != nil {
		n.lookup = c.lookup
	}
	c.net = n
	return nil
}

// newWebRTC leaves out the media codecs and interceptors that pion would register, which cost memory and
// goroutines for each connection.
func newWebRTC(se webrtc.SettingEngine) *webrtc.API {
	return webrtc.NewAPI(webrtc.WithSettingEngine(se), webrtc.WithMediaEngine(&webrtc.MediaEngine{}),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
}

// Tune applies the settings that every connection has, but for congestion control. It is exported for benchmarks, so that
// they compare with a pion of the same settings.
func Tune(se *webrtc.SettingEngine) {
	se.DetachDataChannels()
	se.SetSCTPMaxMessageSize(maxMessageSize)
	se.SetSCTPMaxReceiveBufferSize(receiveWindow)
	se.SetSCTPRTOMax(sctpMaxRTO)
	se.SetICEMaxBindingRequests(maxChecks)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	se.DisableActiveTCP(true)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	// SCTP's handshake takes two round trips, and none if both ends know each other's INIT beforehand (SNAP,
	// draft-hancke-tsvwg-snap). Descriptions carry it beside the SDP, between peers that know how.
	se.EnableSctpSnap(true)
	// A DTLS server verifies its client's address in a round trip of its own, which RFC 9147, 5.1, lets it
	// skip where ICE has verified it. Browsers skip it.
	se.SetDTLSInsecureSkipHelloVerify(true)
}

// server converts an ICE server and checks its URLs: one that pion refuses would fail every connection.
func (a *api) server(s signal.ICEServer) (webrtc.ICEServer, error) {
	server := webrtc.ICEServer{URLs: s.URLs, Username: s.Username}
	if s.Credential != "" {
		server.Credential = s.Credential
	}
	_, err := a.webrtc.NewICEGatherer(webrtc.ICEGatherOptions{ICEServers: []webrtc.ICEServer{server}})
	if err != nil {
		return server, fmt.Errorf("ICE server %q: %w", signal.PublicICEURLs(s.URLs), err)
	}
	return server, nil
}

// connection makes a PeerConnection with a certificate, which notes its failures, whose checks come from bounded
// sources, whose packets may be sent twice, whose path may be used early, and is checked so often.
func (a *api) connection(cert certificate, f *failures, from *sources, twice *doubler, early *haste, often checks) (*webrtc.PeerConnection, error) {
	c := a.configuration()
	c.Certificates = []webrtc.Certificate{cert.Certificate}
	loggers := a.loggers
	loggers.failures = f
	se := a.se
	se.LoggerFactory = &loggers
	se.SetICETimeouts(often.disconnected, often.failed, often.keepalive)
	se.SetICEBindingRequestHandler(early.takes)
	se.SetNet(gatherNet{a.net, f, from, twice})
	if a.mux != nil {
		se.SetICEUDPMux(doublingMux{a.mux, twice})
	}
	return newWebRTC(se).NewPeerConnection(c)
}

// configuration returns what may change during a connection's life.
func (a *api) configuration() webrtc.Configuration {
	c := webrtc.Configuration{ICEServers: a.servers}
	if a.relay {
		c.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	return c
}

// follow keeps up with the addresses of the host.
func (a *api) follow() {
	if s, ok := a.net.Net.(system); ok {
		s.forget()
	}
	if a.mux != nil {
		a.mux.follow()
	}
}

func (a *api) close() {
	a.hurry()
	a.making.Wait()
	if a.mux != nil {
		_ = a.mux.Close()
	}
}
