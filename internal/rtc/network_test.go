//go:build !js

package rtc

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/transport/v5"
	"github.com/rs/zerolog"
)

// A write to an address that an ICE restart has closed must look like a lost packet.
func TestMuxWriteAfterClose(t *testing.T) {
	cfg := Config{Settings: Settings{UDPPort: AnyUDPPort}, Log: zerolog.Nop()}
	cfg.OnlyLoopback()
	a, err := newAPI(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	addr := a.mux.GetListenAddresses()[0]
	for _, wrapped := range []bool{true, false} {
		conn, err := a.mux.GetConn("ufrag", addr)
		if !wrapped {
			conn, err = a.mux.MultiUDPMuxDefault.GetConn("ufrag", addr)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		_, errs := conn.WriteTo([]byte("x"), addr)
		if fast, ok := conn.(fastConn); ok {
			_, err := fast.WriteToAddrPort([]byte("x"), addr.(*net.UDPAddr).AddrPort())
			errs = errors.Join(errs, err)
		} else {
			t.Error("not the fast kind of connection")
		}
		if wrapped && (!errors.Is(errs, net.ErrClosed) || errors.Is(errs, io.ErrClosedPipe)) {
			t.Errorf("errors %v", errs)
		}
		if !wrapped && !errors.Is(errs, io.ErrClosedPipe) {
			t.Errorf("pion's own error is %v now: is the wrapper still needed?", errs)
		}
	}
}

// Each ICE restart has to see the addresses of its moment, but the system is not asked for each question
// that pion has about one connection.
func TestInterfacesAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := NewNetwork(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list := func() *transport.Interface {
			t.Helper()
			all, err := n.Interfaces()
			if err != nil || len(all) == 0 {
				t.Fatal(all, err)
			}
			return all[0]
		}
		first := list()
		if list() != first {
			t.Error("two lists at once")
		}
		<-time.After(interfacesAge)
		if list() == first {
			t.Error("the same list later")
		}
	})
}

func TestMuxNeedsAnAddress(t *testing.T) {
	cfg := Config{Settings: Settings{UDPPort: AnyUDPPort}, ipFilter: func(net.IP) bool { return false }}
	if a, err := newAPI(cfg.withDefaults()); err == nil {
		a.close()
		t.Error("no error")
	}
}
