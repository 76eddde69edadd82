package main

import (
	"context"

	"github.com/pion/datachannel"
)

// A pionFleet is as many connections as n agents need to be linked all to all,
// each with a socket of its own, as the mesh has it by default. Each end has a
// reader, without which it would be of no use.
type pionFleet struct {
	ends  []*pionEnd
	links [][]*pionLink // links[i] are those that end i has made
	count *counter
	msg   []byte
}

func (f *pionFleet) open(ctx context.Context, n int, linked bool) (err error) {
	f.count = newCounter()
	f.msg = make([]byte, smallSize)
	f.ends = make([]*pionEnd, n)
	f.links = make([][]*pionLink, n)
	for i := range f.ends {
		if f.ends[i], err = newPionEnd(pionKind{}); err != nil {
			return err
		}
	}
	if !linked {
		return nil
	}
	return each(n, func(i int) error {
		for _, other := range f.ends[i+1:] {
			link, err := connectPion(ctx, f.ends[i], other)
			if err != nil {
				return err
			}
			f.links[i] = append(f.links[i], link)
			go f.receive(link.near)
			go f.receive(link.far)
		}
		return nil
	})
}

// receive ends with the link.
func (f *pionFleet) receive(dc *datachannel.DataChannel) {
	b := make([]byte, 2<<10) // just enough here: the baseline's memory shall be the least possible
	for {
		if _, err := dc.Read(b); err != nil {
			return
		}
		f.count.add(1)
	}
}

func (f *pionFleet) broadcast(ctx context.Context) error {
	f.count.expect(int64(len(f.links[0])))
	for _, link := range f.links[0] {
		if _, err := link.near.Write(f.msg); err != nil {
			return err
		}
	}
	return f.count.wait(ctx)
}

func (f *pionFleet) readers() int {
	n := 0
	for _, links := range f.links {
		n += 2 * len(links)
	}
	return n
}

func (f *pionFleet) close() {
	_ = each(len(f.links), func(i int) error {
		for _, link := range f.links[i] {
			link.close()
		}
		return nil
	})
}
