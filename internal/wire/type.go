package wire

// Type is the kind of a link line.
type Type uint8

// The types of line. Some are both commands and events.
const (
	TypeUnknown Type = iota // unknown in this direction
	TypeSend
	TypeBroadcast
	TypeListPeers
	TypeConnect
	TypeMessage
	TypePeerConnected
	TypePeerDisconnected
	TypePeerList
	TypeHello
	TypeReady
	TypeSignaling
	TypeError
	TypePause
	TypeResume
	TypeCancel
	TypeDrain
	TypeDrained
	TypePing
	TypePong
	TypeListen
	TypeUnlisten
	TypeListening
	TypeRefuse
	TypeStream
	TypeStreamEnd
	TypeStreamStop
	TypeStats
	TypePath
	TypeCard
	typeCount
)

// String returns the type as in a line, or "unknown" for TypeUnknown.
func (t Type) String() string {
	if t >= typeCount {
		t = TypeUnknown
	}
	return [typeCount]string{"unknown", "send", "broadcast", "list_peers", "connect", "message",
		"peer_connected", "peer_disconnected", "peer_list", "hello", "ready", "signaling", "error",
		"pause", "resume", "cancel", "drain", "drained", "ping", "pong",
		"listen", "unlisten", "listening", "refuse", "stream", "stream_end", "stream_stop", "stats", "path", "card"}[t]
}

func commandType(name []byte) Type {
	switch string(name) {
	case "send":
		return TypeSend
	case "broadcast":
		return TypeBroadcast
	case "list_peers":
		return TypeListPeers
	case "connect":
		return TypeConnect
	case "hello":
		return TypeHello
	case "pause":
		return TypePause
	case "resume":
		return TypeResume
	case "cancel":
		return TypeCancel
	case "drain":
		return TypeDrain
	case "ping":
		return TypePing
	case "listen":
		return TypeListen
	case "unlisten":
		return TypeUnlisten
	case "refuse":
		return TypeRefuse
	case "stream_end":
		return TypeStreamEnd
	case "stats":
		return TypeStats
	case "card":
		return TypeCard
	}
	return TypeUnknown
}

func eventType(name []byte) Type {
	switch string(name) {
	case "message":
		return TypeMessage
	case "peer_connected":
		return TypePeerConnected
	case "peer_disconnected":
		return TypePeerDisconnected
	case "peer_list":
		return TypePeerList
	case "ready":
		return TypeReady
	case "signaling":
		return TypeSignaling
	case "error":
		return TypeError
	case "pause":
		return TypePause
	case "resume":
		return TypeResume
	case "cancel":
		return TypeCancel
	case "drained":
		return TypeDrained
	case "pong":
		return TypePong
	case "listening":
		return TypeListening
	case "stream":
		return TypeStream
	case "stream_end":
		return TypeStreamEnd
	case "stream_stop":
		return TypeStreamStop
	case "path":
		return TypePath
	case "card":
		return TypeCard
	case "stats":
		return TypeStats
	}
	return TypeUnknown
}

// peerKey returns the member that names the peer in a line of the type, or keyOther if none does.
func peerKey(t Type, event bool) key {
	switch t {
	case TypeSend:
		return keyTargetPeer
	case TypeConnect:
		return keyTargetPeerID
	case TypeMessage:
		return keyFromPeer
	case TypePeerConnected, TypePeerDisconnected, TypePause, TypeResume, TypePath:
		return keyPeerID
	case TypeCard:
		if event {
			return keyPeerID
		}
	case TypeCancel:
		if event {
			return keyFromPeer
		}
		return keyTargetPeer
	}
	return keyOther
}
