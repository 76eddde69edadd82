// Readers gives the Go parsers' verdicts on streams of lines, for the fuzzers of the readers in other languages beside
// it: what one reader takes and another refuses, a hostile party can make use of.
//
// Each line of its input is a JSON object with a stream in base64 and the limit of its lines in bytes. Each line of its
// output is a JSON array with one verdict for each line of that stream that is not blank: ok, ignore (valid, and of a
// type that belongs to a later version), or error. The argument is the protocol, link (events) or peerlink.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/chatixia-ai/mesh/internal/wire"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "readers:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	judges := map[string]func([]byte) string{"link": event, "peerlink": peerLine}
	if len(args) != 1 || judges[args[0]] == nil {
		return errors.New("want one argument, link or peerlink")
	}
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c struct {
			Stream []byte
			Limit  int
		}
		if err := from.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := to.Encode(verdicts(c.Stream, c.Limit, judges[args[0]])); err != nil {
			return err
		}
	}
}

func verdicts(stream []byte, limit int, judge func([]byte) string) []string {
	list := []string{}
	r := wire.NewReader(bytes.NewReader(stream), limit)
	for {
		line, err := r.ReadLine()
		switch {
		case err == nil:
			list = append(list, judge(line))
		case wire.BadLine(err) != nil:
			list = append(list, "error")
		default: // the end
			return list
		}
	}
}

func verdict(unknown bool, err error) string {
	switch {
	case err != nil:
		return "error"
	case unknown:
		return "ignore"
	}
	return "ok"
}

func event(line []byte) string {
	var l wire.Line
	err := wire.ParseEvent(line, wire.Limits{}, &l)
	if err == nil {
		switch l.Type {
		case wire.TypeReady:
			_, err = wire.DecodeHello(l.Payload)
		case wire.TypePeerList:
			_, err = wire.DecodePeerList(l.Payload)
		case wire.TypeSignaling:
			_, err = wire.DecodeSignaling(l.Payload)
		case wire.TypeError:
			_, err = wire.DecodeErrorEvent(l.Payload)
		case wire.TypePeerConnected:
			_, _, err = wire.DecodePeerConnected(l.Payload)
		case wire.TypeDrained:
			_, err = wire.DecodeUnsent(l.Payload)
		case wire.TypePath:
			_, err = wire.DecodePath(l.Payload)
		case wire.TypeStats:
			_, err = wire.DecodeStats(l.Payload)
		case wire.TypeCard:
			_, err = wire.DecodeCard(l.Payload)
		case wire.TypeListening, wire.TypeStream, wire.TypeStreamEnd, wire.TypeStreamStop:
			_, err = wire.DecodeStream(l.Payload)
		}
	}
	return verdict(l.Type == wire.TypeUnknown, err)
}

func peerLine(line []byte) string {
	var l wire.PeerLine
	err := wire.ParsePeerLine(line, wire.Limits{}, &l)
	return verdict(l.Kind == wire.PeerUnknown, err)
}
