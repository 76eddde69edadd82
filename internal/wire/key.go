package wire

import "unicode/utf8"

// key is a member name that the parsers know. Every other name is keyOther, and its value is ignored.
type key uint8

const (
	keyOther key = iota
	// Up to keyExcept: members of the payload of frequent lines, which lineParser keeps in an array.
	keyTargetPeer
	keyTargetPeerID
	keyFromPeer
	keyPeerID
	keyMessage
	keyRequestID
	keyAll
	keyOrdered
	keyExcept
	keyType
	keyPayload
	keySourceAgent
	keyTargetAgent
	keyProtocol
	keyMaxMessage
	keyFeatures
	keyToken
	keyState
	keyError
	keyCode
	keyCommand
	keyPeers
	keyIdentity
	keyKey
	keyKeys
	keySig
	keyMember
	keyMesh
	keyNotAfter
	keyPolicy
	keyLanes
	keyTimeout
	keyUnsent
	keyMaxStreams
	keyService
	keyStream
	keySecret
	keyPath
	keyLocal
	keyRemote
	keyRTT
	keyMeta
	keyMessagesSent
	keyMessagesReceived
	keyBytesSent
	keyBytesReceived
	keyQueued
	keyStreams
	keyOutages
	keyHeldBack
	keyPaused
	keyDropped
	keyCard
	keySocket
	keyTicket
	keyCount
)

// longestKey is the length of the longest name.
const longestKey = len("messages_received")

func (k key) String() string {
	return [keyCount]string{"", "target_peer", "target_peer_id", "from_peer", "peer_id",
		"message", "request_id", "all", "ordered", "except", "type", "payload", "source_agent", "target_agent",
		"protocol", "max_message", "features", "token", "state", "error", "code", "command", "peers",
		"identity", "key", "keys", "sig", "member", "mesh", "not_after", "policy", "lanes", "timeout_ms", "unsent",
		"max_streams", "service", "stream", "secret", "path", "local", "remote", "rtt_us", "meta",
		"messages_sent", "messages_received", "bytes_sent", "bytes_received", "bytes_queued", "streams", "outages", "held_back", "paused", "dropped", "card", "socket", "ticket"}[k]
}

// keySet is a set of keys. Which names have a meaning, and must not be duplicated, differs from object to
// object: a message, for example, may have two members `peer_id`, of which the protocol knows nothing.
type keySet uint64

func (s keySet) has(k key) bool { return s>>k&1 != 0 }

// lookup returns the key that a string's contents spell, and if there is none, the one that they spell in
// another case. A name written with escapes ("\u0074ype") is the name that it spells: otherwise a duplicate
// could pass.
func lookup(raw []byte, escaped bool) (exact, alike key) {
	if escaped {
		var buf [64]byte
		raw = appendUnescaped(buf[:0], raw)
	}
	if exact = lookupText(raw); exact == keyOther && !lowerCase(raw) {
		alike = lookupFolded(raw)
	}
	return exact, alike
}

// lowerCase reports whether name has no other case: most names that are no keys are like that.
func lowerCase(name []byte) bool {
	for _, c := range name {
		if c-'A' <= 'Z'-'A' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// lookupFolded returns the key that name spells in any case, as encoding/json, bytes.EqualFold and other
// readers that ignore case see it.
func lookupFolded(name []byte) key {
	var buf [longestKey]byte
	n := 0
	for _, r := range string(name) {
		switch {
		case 'A' <= r && r <= 'Z':
			r += 'a' - 'A'
		case r == '\u212a': // the Kelvin sign
			r = 'k'
		case r == '\u017f': // the long s
			r = 's'
		}
		// No other character beyond ASCII is a case of an ASCII letter, and all keys are ASCII.
		if r >= utf8.RuneSelf || n == len(buf) {
			return keyOther
		}
		buf[n] = byte(r)
		n++
	}
	return lookupText(buf[:n])
}

func lookupText(name []byte) key {
	switch string(name) {
	case "type":
		return keyType
	case "payload":
		return keyPayload
	case "request_id":
		return keyRequestID
	case "source_agent":
		return keySourceAgent
	case "target_agent":
		return keyTargetAgent
	case "target_peer":
		return keyTargetPeer
	case "target_peer_id":
		return keyTargetPeerID
	case "from_peer":
		return keyFromPeer
	case "peer_id":
		return keyPeerID
	case "message":
		return keyMessage
	case "all":
		return keyAll
	case "ordered":
		return keyOrdered
	case "except":
		return keyExcept
	case "protocol":
		return keyProtocol
	case "max_message":
		return keyMaxMessage
	case "features":
		return keyFeatures
	case "token":
		return keyToken
	case "state":
		return keyState
	case "error":
		return keyError
	case "code":
		return keyCode
	case "command":
		return keyCommand
	case "peers":
		return keyPeers
	case "identity":
		return keyIdentity
	case "key":
		return keyKey
	case "keys":
		return keyKeys
	case "sig":
		return keySig
	case "member":
		return keyMember
	case "mesh":
		return keyMesh
	case "policy":
		return keyPolicy
	case "lanes":
		return keyLanes
	case "not_after":
		return keyNotAfter
	case "timeout_ms":
		return keyTimeout
	case "unsent":
		return keyUnsent
	case "max_streams":
		return keyMaxStreams
	case "service":
		return keyService
	case "stream":
		return keyStream
	case "secret":
		return keySecret
	case "path":
		return keyPath
	case "local":
		return keyLocal
	case "remote":
		return keyRemote
	case "rtt_us":
		return keyRTT
	case "meta":
		return keyMeta
	case "messages_sent":
		return keyMessagesSent
	case "messages_received":
		return keyMessagesReceived
	case "bytes_sent":
		return keyBytesSent
	case "bytes_received":
		return keyBytesReceived
	case "bytes_queued":
		return keyQueued
	case "streams":
		return keyStreams
	case "outages":
		return keyOutages
	case "held_back":
		return keyHeldBack
	case "paused":
		return keyPaused
	case "dropped":
		return keyDropped
	case "card":
		return keyCard
	case "socket":
		return keySocket
	case "ticket":
		return keyTicket
	}
	return keyOther
}
