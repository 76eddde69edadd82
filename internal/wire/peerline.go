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
	PeerMember
	PeerStreams
	PeerCard
	PeerLocal
	PeerMoved
	PeerFollowed
)

// String returns the kind's name, for logs.
func (k PeerKind) String() string {
	names := [...]string{"unknown", "message", "hello", "cancel", "pause", "resume", "drain", "drained", "member", "streams", "card", "local", "moved", "followed"}
	if int(k) >= len(names) {
		k = PeerUnknown
	}
	return names[k]
}

// PeerLine is one parsed line of the stream between two sidecars: an object is a message, an array is
// control.
type PeerLine struct {
	Kind      PeerKind
	Message   Message // of a message; refers to the line
	RequestID []byte  // of cancel
	Hello     Greeting
	Member    *Membership // of member
	Number    int         // of drain and drained: which belong together
	Stop      Stop        // of pause: what is held back, StopOrdered or StopNewWork
	Local     *Local      // of local; nil if there is no other way
	Card      []byte      // of card: JSON object, nil if there is none any more; refers to the line
}

// A Greeting is the argument of hello.
type Greeting struct {
	Protocol   int       // 0 if absent
	MaxMessage int       // bytes of the longest message that the peer takes; 0 if absent
	MaxStreams int       // streams that the peer lets us have open; 0 if absent
	Lanes      bool      // the writer reads text messages as a stream of their own
	Identity   *Identity // nil if absent
	Card       []byte    // JSON object, nil if absent
	Local      string    // the mark of the writer's host, "" if absent
}

// A Local is where the two ends of a link may meet on their host.
type Local struct {
	Socket  string // the name of the directory with the socket
	Ticket  string // for which link it is, in base64
	Secret  string // that both ends prove to know, in base64
	Streams bool   // the channel for streams moves there, too
}

// An Identity is the one in a hello: docs/protocol.md, "Identity".
type Identity struct {
	Mesh     *string // nil if absent
	Key, Sig string
	Member   *Membership // nil if absent
}

// A Membership is the statement that a key belongs to a mesh.
type Membership struct {
	Mesh, PeerID, Key string
	NotAfter          int64
	Sig               string
}

// ParsePeerLine reads one line of stream framing. Unknown control lines and further elements of known
// ones are ignored. Errors are [*Error]; after one, p holds what was read before it. p refers to line.
func ParsePeerLine(line []byte, lim Limits, p *PeerLine) error {
	*p = PeerLine{}
	if n := lim.MaxLine(); len(line) > n {
		return tooLarge("", "line", len(line), n)
	}
	lim = lim.withDefaults()
	s := scanner{b: line, limit: lim.depth()}
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
		if p.Kind == PeerPause {
			p.Stop = StopNewWork
		}
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
	case PeerHello, PeerCancel, PeerDrain, PeerDrained, PeerMember, PeerCard, PeerLocal:
		return true
	}
	return false
}

// argument reads the second element of a control line.
func (s *scanner) argument(p *PeerLine) (bad *Error) {
	if p.Kind == PeerCard {
		p.Card, bad = s.card("card")
		return bad
	}
	if s.peek() == '{' {
		switch p.Kind {
		case PeerLocal:
			p.Local = new(Local)
			return s.object("local", []field{{keySocket, &p.Local.Socket}, {keyTicket, &p.Local.Ticket}, {keySecret, &p.Local.Secret}, {keyStreams, &p.Local.Streams}})
		case PeerHello:
			return s.hello(&p.Hello)
		case PeerMember:
			p.Member = new(Membership)
			return s.membership(p.Member)
		case PeerPause:
			ordered := false
			bad = s.object("pause", []field{{keyOrdered, &ordered}})
			if ordered {
				p.Stop = StopOrdered
			}
			return bad
		}
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
	case PeerLocal:
		if v.kind == 'n' {
			return nil
		}
		want = "want an object"
	case PeerHello, PeerMember:
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
	case "member":
		return PeerMember
	case "streams":
		return PeerStreams
	case "card":
		return PeerCard
	case "local":
		return PeerLocal
	case "moved":
		return PeerMoved
	case "followed":
		return PeerFollowed
	}
	return PeerUnknown
}

func (s *scanner) hello(h *Greeting) *Error {
	return s.object("hello", []field{{keyProtocol, &h.Protocol}, {keyMaxMessage, &h.MaxMessage}, {keyMaxStreams, &h.MaxStreams}, {keyLanes, &h.Lanes}, {keyIdentity, func() *Error {
		h.Identity = new(Identity)
		return s.identity(h.Identity)
	}}, {keyCard, &h.Card}, {keyLocal, &h.Local}})
}

func (s *scanner) identity(id *Identity) *Error {
	return s.object("identity", []field{{keyMesh, &id.Mesh}, {keyKey, &id.Key}, {keySig, &id.Sig}, {keyMember, func() *Error {
		id.Member = new(Membership)
		return s.membership(id.Member)
	}}})
}

func (s *scanner) membership(m *Membership) *Error {
	return s.object("member", []field{{keyMesh, &m.Mesh}, {keyPeerID, &m.PeerID}, {keyKey, &m.Key}, {keyNotAfter, &m.NotAfter}, {keySig, &m.Sig}})
}

// AppendPeerMessage appends a message as a line of stream framing.
func AppendPeerMessage(dst, msg []byte) []byte {
	return append(appendOneLine(dst, msg), '\n')
}

// AppendPeerHello appends the hello, which is the first line in each direction.
func AppendPeerHello(dst []byte, h Greeting) []byte {
	dst = append(dst, `["hello",{"protocol":`...)
	dst = strconv.AppendInt(dst, int64(h.Protocol), 10)
	dst = append(dst, `,"max_message":`...)
	dst = strconv.AppendInt(dst, int64(h.MaxMessage), 10)
	if h.MaxStreams > 0 {
		dst = strconv.AppendInt(append(dst, `,"max_streams":`...), int64(h.MaxStreams), 10)
	}
	if h.Lanes {
		dst = append(dst, `,"lanes":true`...)
	}
	if id := h.Identity; id != nil {
		dst = append(dst, `,"identity":{`...)
		if id.Mesh != nil {
			dst = append(AppendString(append(dst, `"mesh":`...), *id.Mesh), ',')
		}
		dst = AppendString(append(dst, `"key":`...), id.Key)
		dst = AppendString(append(dst, `,"sig":`...), id.Sig)
		if id.Member != nil {
			dst = appendMembership(append(dst, `,"member":`...), id.Member)
		}
		dst = append(dst, '}')
	}
	dst = appendOptional(dst, `,"local":`, h.Local)
	dst = appendCard(dst, h.Card)
	return append(dst, "}]\n"...)
}

// AppendPeerMember appends the control line with a newer membership of its writer.
func AppendPeerMember(dst []byte, m *Membership) []byte {
	return append(appendMembership(append(dst, `["member",`...), m), "]\n"...)
}

// AppendPeerCard appends the control line with the card that its writer has from now on; nil for none.
func AppendPeerCard(dst, card []byte) []byte {
	return append(appendOneLine(append(dst, `["card",`...), orNull(card)), "]\n"...)
}

// AppendPeerLocal appends the control line that says where the peer may find a way on this host; nil says that there is none.
func AppendPeerLocal(dst []byte, l *Local) []byte {
	if l == nil {
		return append(dst, "[\"local\",null]\n"...)
	}
	dst = AppendString(append(dst, `["local",{"socket":`...), l.Socket)
	dst = AppendString(append(dst, `,"ticket":`...), l.Ticket)
	dst = AppendString(append(dst, `,"secret":`...), l.Secret)
	if l.Streams {
		dst = append(dst, `,"streams":true`...)
	}
	return append(dst, "}]\n"...)
}

// AppendPeerMoved appends the control line that is the last on the data channel: what follows goes over the socket.
func AppendPeerMoved(dst []byte) []byte { return append(dst, "[\"moved\"]\n"...) }

// AppendPeerFollowed appends the control line, over the socket, that says that everything on the data channel was read.
func AppendPeerFollowed(dst []byte) []byte { return append(dst, "[\"followed\"]\n"...) }

func appendMembership(dst []byte, m *Membership) []byte {
	dst = AppendString(append(dst, `{"mesh":`...), m.Mesh)
	dst = AppendString(append(dst, `,"peer_id":`...), m.PeerID)
	dst = AppendString(append(dst, `,"key":`...), m.Key)
	dst = strconv.AppendInt(append(dst, `,"not_after":`...), m.NotAfter, 10)
	dst = AppendString(append(dst, `,"sig":`...), m.Sig)
	return append(dst, '}')
}

// AppendPeerCancel appends the control line by which a requester gives its request up.
func AppendPeerCancel(dst []byte, requestID string) []byte {
	return append(AppendString(append(dst, `["cancel",`...), requestID), "]\n"...)
}

// AppendPeerPause appends the control line that asks the peer to send no new messages, or none of LaneOrdered.
func AppendPeerPause(dst []byte, ordered bool) []byte {
	if ordered {
		return append(dst, "[\"pause\",{\"ordered\":true}]\n"...)
	}
	return append(dst, "[\"pause\"]\n"...)
}

// AppendPeerResume appends the control line that ends a pause.
func AppendPeerResume(dst []byte) []byte { return append(dst, "[\"resume\"]\n"...) }

// AppendPeerStreams appends the control line that asks the peer to make the channel for streams.
func AppendPeerStreams(dst []byte) []byte { return append(dst, "[\"streams\"]\n"...) }

// AppendPeerDrain appends the control line that asks for a drained of the same number.
func AppendPeerDrain(dst []byte, number int) []byte { return appendNumbered(dst, `["drain",`, number) }

// AppendPeerDrained appends the control line that says that everything before the drain was delivered.
func AppendPeerDrained(dst []byte, number int) []byte {
	return appendNumbered(dst, `["drained",`, number)
}

func appendNumbered(dst []byte, head string, number int) []byte {
	return append(strconv.AppendInt(append(dst, head...), int64(number), 10), "]\n"...)
}
