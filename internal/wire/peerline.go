package wire

import "strconv"

// PeerKind is the kind of a line between two sidecars.
type PeerKind uint8

// The kinds of line between two sidecars.
const (
	PeerUnknown PeerKind = iota // a control line of a later version: ignore it
	PeerMessage
	PeerHello
	PeerCancel
	PeerPause
	PeerResume
	PeerDrain
	PeerDrained
)

// String returns the kind's name, for logs.
func (k PeerKind) String() string {
	names := [...]string{"unknown", "message", "hello", "cancel", "pause", "resume", "drain", "drained"}
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
	Number     int     // of drain and drained: which belong together
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

// control reads the array at the cursor. As in message, an error about its contents only is returned; one
// about its syntax is kept in s.
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
		if err := s.argument(p); err != nil {
			bad = err
		}
		for s.element(']') {
			s.skip()
		}
	}
	if !argument && p.Kind.hasArgument() {
		bad = problem(CodeInvalidField, p.Kind.String(), "argument missing", s.i)
	}
	return bad
}

// hasArgument reports whether a control line of this kind must have a second element.
func (k PeerKind) hasArgument() bool {
	switch k {
	case PeerHello, PeerCancel, PeerDrain, PeerDrained:
		return true
	}
	return false
}

// argument reads the second element of a control line.
func (s *scanner) argument(p *PeerLine) (bad *Error) {
	if p.Kind == PeerHello && s.peek() == '{' {
		return s.hello(p)
	}
	if !p.Kind.hasArgument() {
		s.skip()
		return nil
	}
	v := s.value()
	if s.err != nil {
		return nil
	}
	want := ""
	switch p.Kind {
	case PeerHello:
		want = "want an object"
	case PeerCancel:
		if v.kind == '"' && !v.empty() {
			p.RequestID = s.text(v)
			return nil
		}
		want = "want a request_id that is not empty"
	case PeerDrain, PeerDrained:
		if n, err := strconv.Atoi(string(s.raw(v))); err == nil && n >= 0 {
			p.Number = n
			return nil
		}
		want = wantInteger
	}
	return problem(CodeInvalidField, p.Kind.String(), want, v.start)
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
	case "drain":
		return PeerDrain
	case "drained":
		return PeerDrained
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

// AppendPeerHello appends the hello, which is the first line in each direction.
func AppendPeerHello(dst []byte, maxMessage int) []byte {
	dst = append(dst, `["hello",{"protocol":`...)
	dst = strconv.AppendInt(dst, ProtocolVersion, 10)
	dst = append(dst, `,"max_message":`...)
	dst = strconv.AppendInt(dst, int64(maxMessage), 10)
	return append(dst, "}]\n"...)
}

// AppendPeerCancel appends the control line by which a requester gives its request up.
func AppendPeerCancel(dst []byte, requestID string) []byte {
	return append(AppendString(append(dst, `["cancel",`...), requestID), "]\n"...)
}

// AppendPeerPause appends the control line that asks the peer to send no new messages.
func AppendPeerPause(dst []byte) []byte { return append(dst, "[\"pause\"]\n"...) }

// AppendPeerResume appends the control line that ends a pause.
func AppendPeerResume(dst []byte) []byte { return append(dst, "[\"resume\"]\n"...) }

// AppendPeerDrain appends the control line that asks for a drained of the same number.
func AppendPeerDrain(dst []byte, number int) []byte { return appendNumbered(dst, `["drain",`, number) }

// AppendPeerDrained appends the control line that says that everything before the drain was delivered.
func AppendPeerDrained(dst []byte, number int) []byte {
	return appendNumbered(dst, `["drained",`, number)
}

func appendNumbered(dst []byte, head string, number int) []byte {
	return append(strconv.AppendInt(append(dst, head...), int64(number), 10), "]\n"...)
}
