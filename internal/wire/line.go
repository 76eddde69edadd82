package wire

import "strconv"

// Line is one parsed link line. Its fields are subslices of the line, except that strings with escapes
// are decoded into new memory.
type Line struct {
	Type Type
	Name []byte // the text of `type`
	// Peer is target_peer, target_peer_id, from_peer or peer_id, whichever the type has, and not empty then.
	Peer      []byte
	Message   Message // of send, broadcast and message
	RequestID []byte  // of cancel
	Stop      Stop    // of pause: what is held back
	Except    []byte  // of broadcast: JSON array of the peer ids to leave out, nil if absent
	Payload   []byte  // of hello, ready, signaling, error, peer_list, peer_connected, drain, drained, stats, path, card and those about streams: JSON object, nil if absent or null
}

// ParseCommand parses a line from an agent to its sidecar. Unknown members are ignored, known ones must
// not be duplicated or written in another case. A type that is no command is an error with [CodeUnknownType].
//
// The error is an [*Error]. l then holds what was read before it (Name, Peer, Message.RequestID), to
// identify the command that failed. l refers to line.
func ParseCommand(line []byte, lim Limits, l *Line) error {
	return parseLine(line, lim, l, false)
}

// ParseEvent parses a line from a sidecar to its agent, like [ParseCommand], except that an unknown type
// is no error: an event of a later version has [TypeUnknown] and is to be ignored.
func ParseEvent(line []byte, lim Limits, l *Line) error {
	return parseLine(line, lim, l, true)
}

func parseLine(line []byte, lim Limits, l *Line, event bool) error {
	*l = Line{}
	if n := lim.MaxLine(); len(line) > n {
		return tooLarge("", "line", len(line), n)
	}
	lim = lim.withDefaults()
	p := lineParser{scanner: scanner{b: line, limit: lim.depth(), checked: lim.checked}, lim: lim}
	p.envelope(&l.Message)
	p.name(l, event)
	if p.err != nil {
		return p.err
	}
	return firstError(p.check(l, event))
}

// lineParser collects the members of the line's two outer objects. They may come in any order, and only
// the type decides which of them have a meaning, so they are checked at the end.
type lineParser struct {
	scanner
	lim        Limits
	typ        value
	payload    value
	members    [keyExcept + 1]value // the payload's
	bad        *Error               // a known member is duplicated, or written in another case
	badMessage *Error               // `message` is an object, but no valid message
	badExcept  *Error               // `except` is an array, but not of strings
}

const (
	envelopeKeys = keySet(1<<keyType | 1<<keyPayload)
	payloadKeys  = keySet(1<<(keyExcept+1) - 1<<(keyOther+1)) // of lineParser.members
)

func (p *lineParser) envelope(m *Message) {
	if p.peek() != '{' {
		p.unexpected("a JSON object")
		return
	}
	p.open()
	for p.next() {
		switch p.key {
		case keyType:
			p.once(p.typ)
			p.typ = p.value()
		case keyPayload:
			p.once(p.payload)
			if p.peek() == '{' {
				p.payload = p.readPayload(m)
			} else {
				p.payload = p.value()
			}
		default:
			p.other(envelopeKeys)
		}
	}
	p.end()
}

// once records an error if the member at the cursor had a value earlier.
func (p *lineParser) once(earlier value) {
	if earlier.kind != 0 && p.bad == nil {
		p.bad = problem(CodeInvalidField, p.path(p.key), "present twice", p.i)
	}
}

// other skips a member without a meaning.
func (p *lineParser) other(known keySet) {
	if err := p.skipOther(known); p.bad == nil {
		p.bad = err
	}
}

func (p *lineParser) readPayload(m *Message) value {
	start := p.i
	p.where = "payload"
	p.open()
	for p.next() {
		k := p.key
		if !payloadKeys.has(k) {
			p.other(payloadKeys)
			continue
		}
		p.once(p.members[k])
		switch c := p.peek(); {
		case k == keyMessage && c == '{':
			p.members[k] = p.readMessage(m)
		case k == keyExcept && c == '[':
			p.members[k] = p.readExcept()
		default:
			p.members[k] = p.value()
		}
	}
	p.where = ""
	return value{start: start, end: p.i, kind: '{'}
}

func (p *lineParser) readMessage(m *Message) value {
	start := p.i
	p.where = "payload.message"
	p.badMessage = p.message(m, p.lim)
	p.where = "payload"
	return value{start: start, end: p.i, kind: '{'}
}

func (p *lineParser) readExcept() value {
	start := p.i
	p.open()
	for p.element(']') {
		if p.peek() != '"' && p.badExcept == nil {
			p.badExcept = problem(CodeInvalidField, "payload.except", "want an array of strings", p.i)
		}
		p.skip()
	}
	return value{start: start, end: p.i, kind: '['}
}

// name fills in the fields that identify the line, as far as it was read.
func (p *lineParser) name(l *Line, event bool) {
	if p.typ.kind == '"' {
		l.Name = p.text(p.typ)
		if event {
			l.Type = eventType(l.Name)
		} else {
			l.Type = commandType(l.Name)
		}
	}
	k := peerKey(l.Type, event)
	if l.Type == TypeUnknown { // perhaps because an error came before the type
		for k = keyTargetPeer; k < keyPeerID && p.members[k].kind != '"'; k++ {
		}
	}
	if v := p.members[k]; v.kind == '"' {
		l.Peer = p.text(v)
	}
	if v := p.members[keyRequestID]; v.kind == '"' && l.Type == TypeCancel {
		l.RequestID = p.text(v)
	}
}

// check checks a line that is valid JSON and fills in the rest of l.
func (p *lineParser) check(l *Line, event bool) *Error {
	switch {
	case p.bad != nil:
		return p.bad
	case p.typ.kind == 0:
		return problem(CodeInvalidField, "type", "missing", 0)
	case p.typ.kind != '"':
		return problem(CodeInvalidField, "type", "want a string", p.typ.start)
	case l.Type == TypeUnknown && event:
		l.Message = Message{}
		return nil
	case l.Type == TypeUnknown:
		return problem(CodeUnknownType, "type", "no such command: "+quote(l.Name), p.typ.start)
	case p.payload.kind != 0 && p.payload.kind != '{' && p.payload.kind != 'n':
		return problem(CodeInvalidField, "payload", "want an object", p.payload.start)
	}
	if k := peerKey(l.Type, event); k != keyOther {
		if err := p.wantText(k); err != nil {
			return err
		}
	}
	switch l.Type {
	case TypeSend, TypeMessage:
		return p.wantMessage()
	case TypeBroadcast:
		return p.checkBroadcast(l)
	}
	l.Message = Message{} // a member `message` has no meaning in the other types
	switch l.Type {
	case TypeCancel:
		return p.wantText(keyRequestID)
	case TypePause:
		return p.checkPause(l)
	case TypeHello, TypeReady, TypeSignaling, TypeError, TypePeerList, TypePeerConnected, TypeDrain, TypeDrained,
		TypeListen, TypeUnlisten, TypeListening, TypeRefuse, TypeStream, TypeStreamEnd, TypeStreamStop, TypeStats, TypePath, TypeCard:
		if p.payload.kind == '{' {
			l.Payload = p.raw(p.payload)
		}
	}
	return nil
}

// fault returns an error about a member of the payload.
func (p *lineParser) fault(k key, text string) *Error {
	at := p.members[k].start
	if at == 0 {
		at = p.payload.start
	}
	return problem(CodeInvalidField, "payload."+k.String(), text, at)
}

// wantText checks that a member of the payload is a string that is not empty.
func (p *lineParser) wantText(k key) *Error {
	switch v := p.members[k]; {
	case v.kind == 0:
		return p.fault(k, "missing")
	case v.kind != '"':
		return p.fault(k, "want a string")
	case v.empty():
		return p.fault(k, "empty")
	}
	return nil
}

func (p *lineParser) wantMessage() *Error {
	switch p.members[keyMessage].kind {
	case '{':
		return p.badMessage
	case 0:
		return p.fault(keyMessage, "missing")
	}
	return p.fault(keyMessage, "want an object")
}

func (p *lineParser) checkBroadcast(l *Line) *Error {
	switch v := p.members[keyExcept]; v.kind {
	case '[':
		if p.badExcept != nil {
			return p.badExcept
		}
		l.Except = p.raw(v)
	case 0, 'n':
	default:
		return p.fault(keyExcept, "want an array of strings")
	}
	return p.wantMessage()
}

func (p *lineParser) checkPause(l *Line) *Error {
	l.Stop = StopNewWork
	for _, depth := range []struct {
		key
		Stop
	}{{keyOrdered, StopOrdered}, {keyAll, StopAll}} {
		switch p.members[depth.key].kind {
		case 't':
			l.Stop = depth.Stop
		case 0, 'n', 'f':
		default:
			return p.fault(depth.key, "want true or false")
		}
	}
	return nil
}

// quote quotes text for an error, and cuts it short, because the other party decides its length.
func quote(text []byte) string {
	const enough = 64
	if len(text) > enough {
		return strconv.QuoteToASCII(string(text[:enough])) + "..."
	}
	return strconv.QuoteToASCII(string(text))
}
