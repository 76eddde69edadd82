package sidecar

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/chatixia-ai/mesh/internal/link"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/wire"
)

// maxUnproven is how much a caller may send before it has sent a valid line. The first one of an agent may be
// longer, and is taken for one if it looks like it.
const maxUnproven = 64 << 10

var (
	errNoValidLine  = errors.New("no valid line came")
	errUnauthorized = errors.New("the first line is not a hello with this sidecar's token")
)

// A caller is a connection that may be the agent's.
type caller struct {
	conn     net.Conn
	settings *Settings
	silence  time.Duration

	read    []byte // from conn, for the sidecar to read again
	judged  int    // bytes of read whose lines were looked at
	command wire.Line

	unproven atomic.Int64              // the length of read, for watch
	link     atomic.Pointer[link.Link] // once it is the agent's; for watch
	unwatch  func()                    // ends watch
}

// prove blocks until it is known whether the caller is the agent, silence at most, and returns nil if so. It
// is the agent once it has sent a valid line, which is the first one and has the token if the sidecar wants
// one. A caller that says nothing, as base agents may, is the agent if the sidecar's parent is at the other
// end, or when it has stayed for silence. One that has sent only what is no valid line is not.
func (c *caller) prove() error {
	end := time.Now().Add(c.silence)
	wait := end
	if pid, ok := sock.PeerPID(c.conn); ok && pid == os.Getppid() {
		wait = time.Now().Add(joinDelay)
	}
	buf := make([]byte, 4<<10)
	for {
		if err := c.conn.SetReadDeadline(wait); err != nil {
			return err
		}
		n, readErr := c.conn.Read(buf)
		c.read = append(c.read, buf[:n]...)
		c.unproven.Store(int64(len(c.read)))
		late := errors.Is(readErr, os.ErrDeadlineExceeded)
		proven, err := c.judge(readErr != nil && !late)
		switch {
		case err != nil:
			return err
		case late && len(c.read) == 0 && c.settings.Token == "":
			proven = true
		case late && wait.Before(end):
			wait = end
			continue
		}
		if proven {
			return c.conn.SetReadDeadline(time.Time{})
		}
		if readErr != nil {
			return errNoValidLine
		}
	}
}

// judge looks at the lines that have come, at the last one also without its end if no more will. proven is
// true for a valid one, and err is not nil for one that shows that this is not the agent.
func (c *caller) judge(last bool) (proven bool, err error) {
	for {
		line, _, ended := bytes.Cut(c.read[c.judged:], []byte{'\n'})
		if !ended && !last {
			break
		}
		c.judged += len(line)
		if ended {
			c.judged++
		}
		line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		if len(bytes.TrimSpace(line)) > 0 {
			if proven, err := c.judgeLine(bytes.TrimSuffix(line, []byte{'\r'})); proven || err != nil {
				return proven, err
			}
		}
		if !ended {
			return false, nil
		}
	}
	if len(c.read) <= maxUnproven {
		return false, nil
	}
	if c.settings.Token == "" && bytes.HasPrefix(c.read[c.judged:], []byte{'{'}) {
		return true, nil
	}
	return false, errNoValidLine
}

func (c *caller) judgeLine(line []byte) (proven bool, err error) {
	valid := wire.ParseCommand(line, c.settings.Limits, &c.command) == nil
	switch {
	case c.settings.Token == "":
		return valid, nil
	case !valid || c.command.Type != wire.TypeHello:
		return false, errUnauthorized
	}
	hello, err := wire.DecodeHello(c.command.Payload)
	if err == nil && subtle.ConstantTimeCompare([]byte(hello.Token), []byte(c.settings.Token)) == 1 {
		return true, nil
	}
	c.tellUnauthorized()
	return false, errUnauthorized
}

// tellUnauthorized tells an agent that is not this sidecar's why its connection is closed.
func (c *caller) tellUnauthorized() {
	_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout)) // fails with the connection, as the write does
	_, _ = c.conn.Write(wire.AppendError(nil, wire.ErrorEvent{Code: wire.CodeUnauthorized, Message: errUnauthorized.Error()}))
}
