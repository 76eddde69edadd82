package wire

import (
	"cmp"
	"strconv"
)

// The paths of a link, as stats names them.
const (
	PathDirect  = "direct"
	PathRelayed = "relayed" // by a TURN server of either side
	PathLocal   = "local"   // over a socket of the host
)

// Stats is the payload of a stats event: the live peers, and the sidecar itself.
type Stats struct {
	Peers   []PeerStats `json:"peers"`
	Dropped int         `json:"dropped,omitempty"` // messages and lines that the sidecar has dropped, and commands that have failed
}

// PeerStats are the numbers of one link, since it is up. What is not known is empty.
type PeerStats struct {
	PeerID    string `json:"peer_id"`
	Path      string `json:"path,omitempty"`   // PathDirect, PathRelayed or PathLocal; later versions may know others
	Local     string `json:"local,omitempty"`  // the address and port with which the path begins
	Remote    string `json:"remote,omitempty"` // those with which it ends
	RoundTrip int    `json:"rtt_us,omitempty"` // microseconds, as last measured

	MessagesSent     int `json:"messages_sent,omitempty"`
	MessagesReceived int `json:"messages_received,omitempty"`
	BytesSent        int `json:"bytes_sent,omitempty"` // of messages and streams
	BytesReceived    int `json:"bytes_received,omitempty"`
	Queued           int `json:"bytes_queued,omitempty"` // of messages, on their way to the peer
	Streams          int `json:"streams,omitempty"`      // open
	Outages          int `json:"outages,omitempty"`      // that the link has survived

	HeldBack string `json:"held_back,omitempty"` // what the agent is to hold back: the text of a Stop
	Paused   string `json:"paused,omitempty"`    // what the peer is to hold back
}

// String returns the stop as stats names it, "" for StopNothing.
func (s Stop) String() string {
	return [...]string{"", "ordered", "new_work", "all"}[s]
}

// DecodeStats decodes the payload of a stats event.
func DecodeStats(payload []byte) (Stats, error) {
	var st Stats
	err := decodeObject(payload, []field{{keyPeers, &st.Peers}, {keyDropped, &st.Dropped}})
	return st, err
}

// peerStats decodes the array of them at the cursor.
func (s *scanner) peerStats(path string) (list []PeerStats, bad *Error) {
	const want = "want an array of objects"
	if s.peek() != '[' {
		bad = problem(CodeInvalidField, path, want, s.i)
		s.skip()
		return nil, bad
	}
	list = []PeerStats{}
	s.open()
	for s.element(']') {
		if s.peek() != '{' {
			bad = cmp.Or(bad, problem(CodeInvalidField, path, want, s.i))
			s.skip()
			continue
		}
		var p PeerStats
		bad = cmp.Or(bad, s.object(path, p.fields()))
		list = append(list, p)
	}
	return list, bad
}

func (p *PeerStats) fields() []field {
	return []field{
		{keyPeerID, &p.PeerID}, {keyPath, &p.Path}, {keyLocal, &p.Local}, {keyRemote, &p.Remote}, {keyRTT, &p.RoundTrip},
		{keyMessagesSent, &p.MessagesSent}, {keyMessagesReceived, &p.MessagesReceived},
		{keyBytesSent, &p.BytesSent}, {keyBytesReceived, &p.BytesReceived},
		{keyQueued, &p.Queued}, {keyStreams, &p.Streams}, {keyOutages, &p.Outages}, {keyHeldBack, &p.HeldBack}, {keyPaused, &p.Paused},
	}
}

// DecodePath decodes the payload of a path event: where a link goes from now on.
func DecodePath(payload []byte) (PeerStats, error) {
	var p PeerStats
	err := decodeObject(payload, p.fields()[:pathFields])
	return p, err
}

// pathFields is how many of the fields are about the path, and first.
const pathFields = 4

// AppendPath appends a path event.
func AppendPath(dst []byte, p PeerStats) []byte {
	return append(appendFields(appendType(dst, TypePath), p.fields()[:pathFields]), "}\n"...)
}

// AppendStatsCommand appends a stats command: the agent asks for the numbers of its links.
func AppendStatsCommand(dst []byte) []byte { return append(appendType(dst, TypeStats), "{}}\n"...) }

// AppendStatsEvent appends a stats event.
func AppendStatsEvent(dst []byte, st Stats) []byte {
	dst = append(appendType(dst, TypeStats), `{"peers":[`...)
	for i := range st.Peers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFields(dst, st.Peers[i].fields())
	}
	dst = append(dst, ']')
	if st.Dropped > 0 {
		dst = strconv.AppendInt(append(dst, `,"dropped":`...), int64(st.Dropped), 10)
	}
	return append(dst, "}}\n"...)
}

// appendFields appends an object with the fields that are not empty, and the first.
func appendFields(dst []byte, fields []field) []byte {
	next := byte('{')
	for i, f := range fields {
		text, _ := f.to.(*string)
		number, _ := f.to.(*int)
		if i > 0 && (text != nil && *text == "" || number != nil && *number == 0) {
			continue
		}
		dst = append(append(append(dst, next, '"'), f.key.String()...), `":`...)
		if text != nil {
			dst = AppendString(dst, *text)
		} else {
			dst = strconv.AppendInt(dst, int64(*number), 10)
		}
		next = ','
	}
	return append(dst, '}')
}
