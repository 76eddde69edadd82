package wire

import "strconv"

// PeerKind is the kind of a line between two sidecars.
type PeerKind uint8

// The kinds.
const (
	PeerUnknown PeerKind = iota // a control line of a later version: ignore it
	PeerMessage
	PeerHello
	PeerCancel
	PeerPause
	PeerResume
)

// String returns the kind's name, for logs.
func (k PeerKind) String() string {
	names := [...]string{"unknown", "message", "hello", "cancel", "pause", "resume"}
	if int(k) >= len(names) {
		k = PeerUnknown
	}
	return names[k]
}

// PeerLine is one parsed line of the stream between two sidecars: an object is a message, an array is
// control.
type PeerLine struct {
	Kind       PeerKind
	Message    Message // of a message; refers to the line
	RequestID  []byte  // of cancel
	Protocol   int     // of hello; 0 if absent
	MaxMessage int     // of hello: bytes of the longest message the peer takes; 0 if absent
}

// ParsePeerLine reads one line of stream framing. Unknown control lines and further elements of known
// ones are ignored. Errors are [*Error]; after one, p holds what was read before it. p refers to line.
func ParsePeerLine(line []byte, lim Limits, p *PeerLine) error {
	*p = PeerLine{}
	if n := lim.MaxLine(); len(line) > n {
		return tooLarge("", "line", len(line), n)
	}
	lim = lim.withDefaults()
	s := scanner{b: line, limit: lim.MaxDepth + EnvelopeDepth}
	var bad *Error
	switch s.peek() {
	case '{':
		p.Kind = PeerMessage
		bad = s.message(&p.Message, lim)
	case '[':
		bad = s.control(p)
	default:
		s.unexpected("an object or an array")
	}
	s.end()
	return firstError(s.err, bad)
}

// control reads the array at the cursor. As in message, what is only wrong about its contents is
// returned.
func (s *scanner) control(p *PeerLine) (bad *Error) {
	s.open()
	if !s.element(']') {
		return problem(CodeInvalidField, "control", "empty array", s.i)
	}
	name := s.value()
	if name.kind == '"' {
		p.Kind = controlKind(s.text(name))
	} else if s.err == nil {
		bad = problem(CodeInvalidField, "control", "want a string first", name.start)
	}
	argument := false
	if s.err == nil && s.element(']') {
		argument = true
		switch c := s.peek(); {
		case p.Kind == PeerHello && c == '{':
			bad = s.hello(p)
		case p.Kind == PeerHello:
			bad = problem(CodeInvalidField, "hello", "want an object", s.i)
			s.skip()
		case p.Kind == PeerCancel:
			if v := s.value(); v.kind == '"' && !v.empty() {
				p.RequestID = s.text(v)
			} else if s.err == nil {
				bad = problem(CodeInvalidField, "cancel", "want a request_id that is not empty", v.start)
			}
		default:
			s.skip()
		}
		for s.element(']') {
			s.skip()
		}
	}
	if !argument && (p.Kind == PeerHello || p.Kind == PeerCancel) {
		bad = problem(CodeInvalidField, p.Kind.String(), "argument missing", s.i)
	}
	return bad
}

func controlKind(name []byte) PeerKind {
	switch string(name) {
	case "hello":
		return PeerHello
	case "cancel":
		return PeerCancel
	case "pause":
		return PeerPause
	case "resume":
		return PeerResume
	}
	return PeerUnknown
}

func (s *scanner) hello(p *PeerLine) (bad *Error) {
	s.where = "hello"
	bad = s.decodeMembers([]field{{keyProtocol, &p.Protocol}, {keyMaxMessage, &p.MaxMessage}})
	s.where = ""
	return bad
}

// AppendPeerMessage appends a message as a line of stream framing.
func AppendPeerMessage(dst, msg []byte) []byte {
	return append(appendOneLine(dst, msg), '\n')
}

// AppendPeerHello appends the first line of each direction.
func AppendPeerHello(dst []byte, maxMessage int) []byte {
	dst = append(dst, `["hello",{"protocol":`...)
	dst = strconv.AppendInt(dst, ProtocolVersion, 10)
	dst = append(dst, `,"max_message":`...)
	dst = strconv.AppendInt(dst, int64(maxMessage), 10)
	return append(dst, "}]\n"...)
}

// AppendPeerCancel appends the control line that says that the asker gave up.
func AppendPeerCancel(dst []byte, requestID string) []byte {
	return append(AppendString(append(dst, `["cancel",`...), requestID), "]\n"...)
}

// AppendPeerPause appends the control line that asks to stop sending new messages.
func AppendPeerPause(dst []byte) []byte { return append(dst, "[\"pause\"]\n"...) }

// AppendPeerResume appends the control line that ends a pause.
func AppendPeerResume(dst []byte) []byte { return append(dst, "[\"resume\"]\n"...) }
