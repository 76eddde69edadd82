package sock_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/chatixia-ai/mesh/internal/nowait"
	"github.com/chatixia-ai/mesh/internal/relief"
	"github.com/chatixia-ai/mesh/internal/sock"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// returns reports what Wait has returned, once it has.
func returns(w *sock.Watch) <-chan error {
	returned := make(chan error, 1)
	go func() { returned <- w.Wait() }()
	return returned
}

func want(t *testing.T, what string, returned <-chan error, err error) {
	t.Helper()
	if got := testutil.Take(t, what, returned); !errors.Is(got, err) {
		t.Errorf("%s: %v", what, got)
	}
}

func write(t *testing.T, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, from net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v", got, err)
	}
}

// A Watch tells what there is to read, unless it is off, without reading it.
func TestWatch(t *testing.T) {
	near, far := socketPair(t)
	w, err := sock.NewWatch(near)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 3 {
		returned := returns(w)
		write(t, far, "x")
		want(t, "something comes", returned, nil)
		want(t, "it is still there", returns(w), nil)
		read(t, near, "x")

		w.Off()
		returned = returns(w)
		write(t, far, "y")
		read(t, near, "y") // by another one
		write(t, far, "z")
		select {
		case err := <-returned:
			t.Errorf("off, and it returns %v", err)
		default:
		}
		w.On()
		want(t, "on again", returned, nil)
		read(t, near, "z")

		w.Wake()
		want(t, "woken before", returns(w), nil)
		returned = returns(w)
		w.Wake()
		want(t, "woken", returned, nil)
	}
	returned := returns(w)
	w.Off()
	_ = far.Close()
	want(t, "the end, off or not", returned, nil)
	returned = returns(w)
	w.Close()
	w.Close()
	<-returned // the end, or that of the watch
	if testutil.Take(t, "the end of the watch", returns(w)) == nil {
		t.Error("a closed watch waits")
	}
	w.On()
	w.Off()
	w.Wake()
}

// A guest's Read ends when it is over, before, meanwhile or too late, and otherwise when something comes.
func TestInterrupt(t *testing.T) {
	near, far := socketPair(t)
	d := sock.NewDirect(near)
	d.Later = true
	b := make([]byte, 10)
	if n, err := d.Read(b); err != nowait.ErrWait { //nolint:errorlint // itself
		t.Errorf("%d, %v", n, err)
	}
	write(t, far, "x")
	done := new(relief.Guest)
	done.Leave()
	d.Until = done
	if n, err := d.Read(b); err != nowait.ErrWait { //nolint:errorlint // itself
		t.Errorf("a guest that is over reads on: %d, %v", n, err)
	}
	d.Until = nil
	if n, err := d.Read(b); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for range 100 {
		over := new(relief.Guest)
		over.Sit(d)
		d.Until = over
		go over.Leave()
		if n, err := d.Read(b); err != nowait.ErrWait { //nolint:errorlint // itself
			t.Fatalf("%d, %v", n, err)
		}
		over.Sit(nil)
		d.Until = new(relief.Guest)
		go func() { _, _ = far.Write([]byte("x")) }()
		for n := 0; n == 0; { // a late Interrupt costs one turn
			var err error
			if n, err = d.Read(b); err != nil && err != nowait.ErrWait { //nolint:errorlint // itself
				t.Fatalf("%d, %v", n, err)
			}
		}
	}
}
