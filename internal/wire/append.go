package wire

import (
	"bytes"
	"strconv"
	"time"
)

// The Append functions append one whole line, newline included, to dst and return the extended slice. They
// do not check msg, which must have come from a parser of this package or be known to be one JSON object.
// They never fail, and never write a second line, whatever msg is.

// AppendSend appends a send command.
func AppendSend(dst []byte, peer string, msg []byte) []byte {
	dst = AppendString(append(appendType(dst, TypeSend), `{"target_peer":`...), peer)
	dst = appendOneLine(append(dst, `,"message":`...), msg)
	return append(dst, "}}\n"...)
}

// AppendBroadcast appends a broadcast command to all peers but those in except.
func AppendBroadcast(dst []byte, msg []byte, except []string) []byte {
	dst = append(appendType(dst, TypeBroadcast), '{')
	if len(except) > 0 {
		dst = append(appendStrings(append(dst, `"except":`...), except), ',')
	}
	dst = appendOneLine(append(dst, `"message":`...), msg)
	return append(dst, "}}\n"...)
}

// AppendListPeers appends a list_peers command.
func AppendListPeers(dst []byte) []byte { return append(appendType(dst, TypeListPeers), "{}}\n"...) }

// AppendConnect appends a connect command.
func AppendConnect(dst []byte, peer string) []byte {
	return appendPeer(dst, TypeConnect, `{"target_peer_id":`, peer)
}

// AppendCancelCommand appends a cancel command: the agent abandoned a request to the peer.
func AppendCancelCommand(dst []byte, peer, requestID string) []byte {
	return appendCancel(dst, `{"target_peer":`, peer, requestID)
}

// AppendCancelEvent appends a cancel event: the peer abandoned its request to the agent.
func AppendCancelEvent(dst []byte, from, requestID string) []byte {
	return appendCancel(dst, `{"from_peer":`, from, requestID)
}

func appendCancel(dst []byte, peerField, peer, requestID string) []byte {
	dst = AppendString(append(appendType(dst, TypeCancel), peerField...), peer)
	dst = AppendString(append(dst, `,"request_id":`...), requestID)
	return append(dst, "}}\n"...)
}

// AppendMessage appends a message event.
func AppendMessage(dst []byte, from string, msg []byte) []byte {
	dst = AppendString(append(appendType(dst, TypeMessage), `{"from_peer":`...), from)
	dst = appendOneLine(append(dst, `,"message":`...), msg)
	return append(dst, "}}\n"...)
}

// AppendPeerConnected appends a peer_connected event; key is the peer's, "" if it has proven none, and card too, nil if it has none.
func AppendPeerConnected(dst []byte, peer, key string, card []byte) []byte {
	dst = AppendString(append(appendType(dst, TypePeerConnected), `{"peer_id":`...), peer)
	dst = appendOptional(dst, `,"key":`, key)
	dst = appendCard(dst, card)
	return append(dst, "}}\n"...)
}

// AppendPeerDisconnected appends a peer_disconnected event.
func AppendPeerDisconnected(dst []byte, peer string) []byte {
	return appendPeer(dst, TypePeerDisconnected, `{"peer_id":`, peer)
}

// AppendPeerList appends a peer_list event.
func AppendPeerList(dst []byte, l PeerList) []byte {
	dst = appendStrings(append(appendType(dst, TypePeerList), `{"peers":`...), l.Peers)
	if l.Keys != nil {
		dst = appendStrings(append(dst, `,"keys":`...), l.Keys)
	}
	return append(dst, "}}\n"...)
}

// AppendPause appends a pause, command or event, which says what is held back for the peer.
func AppendPause(dst []byte, peer string, stop Stop) []byte {
	dst = AppendString(append(appendType(dst, TypePause), `{"peer_id":`...), peer)
	switch stop {
	case StopOrdered:
		dst = append(dst, `,"ordered":true`...)
	case StopAll:
		dst = append(dst, `,"all":true`...)
	}
	return append(dst, "}}\n"...)
}

// AppendResume appends a resume, command or event.
func AppendResume(dst []byte, peer string) []byte {
	return appendPeer(dst, TypeResume, `{"peer_id":`, peer)
}

// AppendDrain appends a drain command that may take so long; 0 leaves that to the sidecar.
func AppendDrain(dst []byte, timeout time.Duration) []byte {
	dst = append(appendType(dst, TypeDrain), '{')
	if timeout > 0 {
		dst = strconv.AppendInt(append(dst, `"timeout_ms":`...), timeout.Milliseconds(), 10)
	}
	return append(dst, "}}\n"...)
}

// AppendDrained appends a drained event.
func AppendDrained(dst []byte, u Unsent) []byte {
	dst = append(appendType(dst, TypeDrained), '{')
	if len(u.Peers) > 0 {
		dst = appendStrings(append(dst, `"peers":`...), u.Peers)
		dst = append(dst, `,"unsent":[`...)
		for i, n := range u.Messages {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, int64(n), 10)
		}
		dst = append(dst, ']')
	}
	return append(dst, "}}\n"...)
}

// AppendPing appends a ping command.
func AppendPing(dst []byte) []byte { return append(appendType(dst, TypePing), "{}}\n"...) }

// AppendPong appends a pong event.
func AppendPong(dst []byte) []byte { return append(appendType(dst, TypePong), "{}}\n"...) }

// appendType appends a line up to its payload; the caller appends the payload and "}\n".
func appendType(dst []byte, t Type) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, t.String()...)
	return append(dst, `","payload":`...)
}

func appendPeer(dst []byte, t Type, peerField, peer string) []byte {
	dst = AppendString(append(appendType(dst, t), peerField...), peer)
	return append(dst, "}}\n"...)
}

// appendOneLine appends msg with CR and LF replaced by spaces. Valid JSON has them only between tokens,
// where a space means the same; a message that kept them could forge lines.
func appendOneLine(dst, msg []byte) []byte {
	start := len(dst)
	dst = append(dst, msg...)
	for _, c := range [...]byte{'\n', '\r'} {
		for rest := dst[start:]; ; {
			n := bytes.IndexByte(rest, c)
			if n < 0 {
				break
			}
			rest[n] = ' '
			rest = rest[n+1:]
		}
	}
	return dst
}
