package wire

import (
	"cmp"
	"strconv"
)

// The paths of a link, as stats names them.
const (
	PathDirect  = "direct"
	PathRelayed = "relayed" // by a TURN server of either side
)

// Stats is the payload of a stats event: the live peers.
type Stats struct {
	Peers []PeerStats `json:"peers"`
}

// PeerStats are the numbers of one link. What is not known is empty.
type PeerStats struct {
	PeerID    string `json:"peer_id"`
	Path      string `json:"path,omitempty"`   // PathDirect or PathRelayed; later versions may know others
	Local     string `json:"local,omitempty"`  // the address and port with which the path begins
	Remote    string `json:"remote,omitempty"` // those with which it ends
	RoundTrip int    `json:"rtt_us,omitempty"` // microseconds, as last measured
}

// DecodeStats decodes the payload of a stats event.
func DecodeStats(payload []byte) (Stats, error) {
	var st Stats
	err := decodeObject(payload, []field{{keyPeers, &st.Peers}})
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
		bad = cmp.Or(bad, s.object(path, []field{
			{keyPeerID, &p.PeerID}, {keyPath, &p.Path}, {keyLocal, &p.Local}, {keyRemote, &p.Remote}, {keyRTT, &p.RoundTrip},
		}))
		list = append(list, p)
	}
	return list, bad
}

// AppendStatsCommand appends a stats command: the agent asks for the numbers of its links.
func AppendStatsCommand(dst []byte) []byte { return append(appendType(dst, TypeStats), "{}}\n"...) }

// AppendStatsEvent appends a stats event.
func AppendStatsEvent(dst []byte, st Stats) []byte {
	dst = append(appendType(dst, TypeStats), `{"peers":[`...)
	for i, p := range st.Peers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(append(dst, `{"peer_id":`...), p.PeerID)
		dst = appendOptional(dst, `,"path":`, p.Path)
		dst = appendOptional(dst, `,"local":`, p.Local)
		dst = appendOptional(dst, `,"remote":`, p.Remote)
		if p.RoundTrip > 0 {
			dst = strconv.AppendInt(append(dst, `,"rtt_us":`...), int64(p.RoundTrip), 10)
		}
		dst = append(dst, '}')
	}
	return append(dst, "]}}\n"...)
}
