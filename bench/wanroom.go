package main

import (
	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil/netpath"
)

// ends are the API keys, and so the peer ids, of the two agents at the ends of a path.
var wanEnds = [2]string{nearID, farID}

// A wanRoom is a signaling server that leads two agents to each other over a path.
type wanRoom struct {
	*netpath.Room
	rooms *rooms
}

func openWANRoom(path *netpath.Path) (*wanRoom, error) {
	rooms, err := openRooms(1)
	if err != nil {
		return nil, err
	}
	room, err := netpath.NewRoom(path, rooms.url(0), wanEnds)
	if err != nil {
		rooms.close()
		return nil, err
	}
	return &wanRoom{room, rooms}, nil
}

// overPathOnly keeps agents to addresses from which a path leads anywhere.
var overPathOnly = mesh.Network{Addresses: netpath.Addresses, NoLocal: true}

func (w *wanRoom) close() {
	w.rooms.close()
	w.Close()
}
