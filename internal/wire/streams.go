package wire

import (
	"bytes"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// MaxServices is how many services an agent may listen for.
const MaxServices = 1024

// MaxService is the length in bytes of the longest name of a service.
const MaxService = 255

// CheckService returns an [*Error] if name is no name of a service: 1 to MaxService bytes of UTF-8 without spaces, control characters
// and colons.
func CheckService(name string) error {
	switch {
	case name == "":
		return &Error{Code: CodeInvalidField, Text: "the name of the service is empty"}
	case len(name) > MaxService:
		return &Error{Code: CodeInvalidField, Text: "the name of the service has " + strconv.Itoa(len(name)) + " bytes, the limit is " + strconv.Itoa(MaxService)}
	case !utf8.ValidString(name):
		return &Error{Code: CodeInvalidField, Text: "the name of the service is not valid UTF-8"}
	}
	for _, r := range name {
		if r == ':' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return &Error{Code: CodeInvalidField, Text: "the name of the service has the character " + strconv.QuoteRuneToASCII(r)}
		}
	}
	return nil
}

// A Stream is the payload of the lines about streams; each has some of the fields.
type Stream struct {
	Stream  string // its id on the link
	PeerID  string
	Service string
	Secret  string // in the first line of a connection for a stream: that of ready
	Code    Code   // in stream_end and refuse: why; empty for a clean end
	Message string // the same for people
}

// DecodeStream decodes the payload of a line about a stream.
func DecodeStream(payload []byte) (Stream, error) {
	var s Stream
	err := decodeObject(payload, []field{
		{keyStream, &s.Stream}, {keyPeerID, &s.PeerID}, {keyService, &s.Service}, {keySecret, &s.Secret},
		{keyCode, (*string)(&s.Code)}, {keyMessage, &s.Message},
	})
	return s, err
}

// AppendStream appends a line about a stream: stream, stream_end, stream_stop, listen, unlisten, listening or
// refuse.
func AppendStream(dst []byte, t Type, s Stream) []byte {
	dst = append(appendType(dst, t), '{')
	first := len(dst)
	for _, f := range [...]struct{ name, text string }{
		{`"stream":`, s.Stream}, {`"peer_id":`, s.PeerID}, {`"service":`, s.Service}, {`"secret":`, s.Secret},
		{`"code":`, string(s.Code)}, {`"message":`, s.Message},
	} {
		if f.text == "" {
			continue
		}
		if len(dst) > first {
			dst = append(dst, ',')
		}
		dst = AppendString(append(dst, f.name...), f.text)
	}
	return append(dst, "}}\n"...)
}

// The lines with which a stream between two sidecars begins, one in each direction: what it is to be, and that it is.

// The codes with which a stream is reset.
const (
	// ResetFull: as many streams as there may be. It is the multiplexer's own code, too.
	ResetFull uint32 = iota
	// ResetNoService: nobody listens for the service.
	ResetNoService
	// ResetRefused: the listener does not want it.
	ResetRefused
	// ResetMalformed: its first line is not valid, or does not come.
	ResetMalformed
	// ResetClosed: the other end has closed it, so that writing is of no use.
	ResetClosed
	// ResetAbandoned: the other end has given it up before it was complete.
	ResetAbandoned
)

// MaxStreamLine is the length in bytes of the longest of them, with its newline.
const MaxStreamLine = 2 << 10

// AppendStreamOpen appends the first line of a stream to a service.
func AppendStreamOpen(dst []byte, service string) []byte {
	return append(AppendString(append(dst, `["open",{"service":`...), service), "}]\n"...)
}

// AppendStreamOpened appends the response to it.
func AppendStreamOpened(dst []byte) []byte { return append(dst, "[\"opened\"]\n"...) }

// ParseStreamOpen parses the first line of a stream, without its newline.
func ParseStreamOpen(line []byte) (service string, err error) {
	s := scanner{b: line, limit: DefaultMaxDepth}
	name, bad := s.streamLine(func() *Error { return s.object("open", []field{{keyService, &service}}) })
	switch {
	case s.err != nil || bad != nil:
		return "", firstError(s.err, bad)
	case name != "open":
		return "", problem(CodeInvalidField, "", "a stream that does not begin with open", 0)
	}
	return service, CheckService(service)
}

// ParseStreamOpened parses the response.
func ParseStreamOpened(line []byte) error {
	s := scanner{b: line, limit: DefaultMaxDepth}
	name, bad := s.streamLine(nil)
	if s.err == nil && bad == nil && name != "opened" {
		bad = problem(CodeInvalidField, "", "a response to open that is not opened", 0)
	}
	return firstError(s.err, bad)
}

// streamLine reads an array with a name and perhaps an object, which argument reads; further elements are ignored.
func (s *scanner) streamLine(argument func() *Error) (name string, bad *Error) {
	if s.peek() != '[' {
		s.unexpected("an array")
		return "", nil
	}
	s.open()
	if s.element(']') {
		if v := s.value(); v.kind == '"' {
			name = string(bytes.Clone(s.text(v)))
		}
	}
	for i := 0; s.err == nil && s.element(']'); i++ {
		if i == 0 && argument != nil && s.peek() == '{' {
			bad = argument()
		} else {
			s.skip()
		}
	}
	s.end()
	return name, bad
}
