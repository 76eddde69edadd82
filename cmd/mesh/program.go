package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/chatixia-ai/mesh"
)

// programGrace is how long a program has from the signal to end to the one that ends it.
const programGrace = 5 * time.Second

// A program is a process whose standard input and output are one end of a stream.
type program struct {
	cmd    *exec.Cmd
	in     *os.File      // that it reads
	out    *os.File      // that it writes
	exited chan struct{} // closed when it has ended
	err    error         // valid after exited
	stop   sync.Once
}

// startProgram starts a program for the stream of a peer.
func startProgram(c *cobra.Command, conn *mesh.Conn, service string, args []string) (*program, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), in.Close())
	}
	p := &program{cmd: exec.Command(args[0], args[1:]...), in: in, out: out, exited: make(chan struct{})}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirIn, theirOut, c.ErrOrStderr()
	p.cmd.Env = append(os.Environ(), "MESH_PEER_ID="+conn.Peer().ID, "MESH_PEER_KEY="+conn.Peer().Key, "MESH_SERVICE="+service)
	p.cmd.WaitDelay = programGrace // for a stderr that is no file, and that a process of its own keeps
	group(p.cmd)
	err = p.cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close()
	if err != nil {
		_, _ = in.Close(), out.Close()
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *program) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if errors.Is(err, os.ErrClosed) { // by Close
		err = io.EOF
	}
	return n, err
}

func (p *program) Write(b []byte) (int, error) { return p.in.Write(b) }

// CloseWrite ends the input of the program.
func (p *program) CloseWrite() error { return p.in.Close() }

// Close ends the program, unless it has ended, and blocks until it has.
func (p *program) Close() error {
	p.stop.Do(func() {
		_ = p.in.Close()
		select {
		case <-p.exited:
		default:
			p.end()
		}
		_ = p.out.Close()
	})
	<-p.exited
	return nil
}

func (p *program) end() {
	terminate(p.cmd)
	select {
	case <-p.exited:
	case <-time.After(programGrace):
		kill(p.cmd)
	}
}

// serveProgram offers a program as a service, a process for each stream.
func (f *serveFlags) serveProgram(c *cobra.Command, service string, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("no such program: %w", err)
	}
	args = append([]string{path}, args[1:]...)
	return f.serve(c, service, path, func(_ context.Context, conn *mesh.Conn) (end, error) {
		return startProgram(c, conn, service, args)
	})
}
