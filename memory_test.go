package mesh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// What is written arrives in order, however long; a writer waits for its reader
// once the buffer is full.
func TestMemoryConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMemoryConns()
		sent := bytes.Repeat([]byte("0123456789abcdef"), memoryBuffer/4) // four times the buffer
		wrote := make(chan error, 1)
		go func() {
			_, err := a.Write(sent)
			wrote <- err
		}()
		synctest.Wait()
		select {
		case err := <-wrote:
			t.Errorf("four times the buffer was written without a reader, %v", err)
		default:
		}
		if n := a.tryWrite([]byte("x")); n != 0 {
			t.Errorf("tryWrite found room for %d bytes in a full buffer", n)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("something else arrived, %v", err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		if x, y := a.tryWrite(make([]byte, 10)), a.tryWrite(make([]byte, memoryBuffer)); x != 10 || y != memoryBuffer-10 {
			t.Errorf("tryWrite took %d of 10 bytes, then %d where %d have room", x, y, memoryBuffer-10)
		}
	})
}

// Close ends both directions; what was written before it can be read.
func TestMemoryConnClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newMemoryConns()
		reading := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			reading <- err
		}()
		synctest.Wait()
		if _, err := a.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-reading; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read that Close ended: %v", err)
		}
		if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
			t.Errorf("the other end read %q, %v", got, err)
		}
		for name, conn := range map[string]*memoryConn{"closed": a, "other": b} {
			if _, err := conn.Write([]byte("x")); err == nil || conn.tryWrite([]byte("x")) != 0 {
				t.Errorf("the %s end can be written to", name)
			}
		}
	})
}

// Close frees a writer that waits for room.
func TestMemoryConnCloseFreesWriter(t *testing.T) {
	for _, own := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newMemoryConns()
			wrote := make(chan error, 1)
			go func() {
				_, err := a.Write(make([]byte, 2*memoryBuffer))
				wrote <- err
			}()
			synctest.Wait()
			if own {
				_ = a.Close()
			} else {
				_ = b.Close()
			}
			if err := <-wrote; err == nil {
				t.Error("no error")
			}
		})
	}
}
