package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// A source is a file or directory to be copied.
type source struct {
	item
	path string // here
}

// A collection is what is to be copied.
type collection struct {
	items   []source
	files   int
	bytes   int64
	skipped []string // paths of what is no file and no directory
}

// collect finds what is to be copied, with its names at the receiver.
func collect(paths []string) (*collection, error) {
	all := new(collection)
	seen := map[string]string{}
	for _, p := range paths {
		abs, err := filepath.Abs(p) // of which . and .. have a name
		if err != nil {
			return nil, err
		}
		base := filepath.Base(abs)
		if other, ok := seen[base]; ok {
			return nil, usage(fmt.Errorf("%s and %s would have the same name at the peer", quote(other), quote(p)))
		}
		seen[base] = p
		if resolved, err := filepath.EvalSymlinks(abs); err == nil {
			abs = resolved
		}
		if err := filepath.WalkDir(abs, func(at string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(abs, at)
			if err != nil {
				return err
			}
			return all.add(at, path.Join(base, filepath.ToSlash(rel)), d)
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (all *collection) add(at, name string, d fs.DirEntry) error {
	if !d.IsDir() && !d.Type().IsRegular() {
		all.skipped = append(all.skipped, at)
		return nil
	}
	fi, err := d.Info()
	if err != nil {
		return err
	}
	s := source{item{Kind: kindDir, Name: []byte(name), Mode: fi.Mode().Perm()}, at}
	if !d.IsDir() {
		s.Kind, s.Size = kindFile, fi.Size()
		all.bytes += s.Size
		all.files++
	}
	all.items = append(all.items, s)
	return nil
}

// A sender sends one copy.
type sender struct {
	*wire
	bar     progress
	sent    int64
	refused []string // what the receiver has not taken, and why
}

// errRefused is the receiver's error about one item.
var errRefused = errors.New("the peer")

func (s *sender) run(all *collection) error {
	for _, src := range all.items {
		err := s.send(src)
		if errors.Is(err, errRefused) {
			s.refused = append(s.refused, fmt.Sprintf("%s: %v", quote(src.path), err))
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := s.say(item{Kind: kindEnd}); err != nil {
		return err
	}
	return s.confirmed()
}

func (s *sender) send(src source) error {
	if src.Kind == kindDir {
		if err := s.say(src.item); err != nil {
			return err
		}
		return s.confirmed()
	}
	f, err := os.Open(src.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := s.say(src.item); err != nil {
		return err
	}
	return s.sendFile(f, src.item)
}

func (s *sender) sendFile(f *os.File, it item) error {
	total := sha256.New()
	for {
		var h had
		if err := s.hear(&h); err != nil {
			return err
		}
		if h.Error != "" {
			return refusal(h.Error)
		}
		offset, err := s.goOn(f, it, h, total)
		if err != nil {
			return err
		}
		if err := s.say(from{offset}); err != nil {
			return err
		}
		if !h.Whole || offset == it.Size {
			return s.sendRest(f, it, offset, total)
		}
	}
}

// goOn returns from where to send: what the receiver has is compared.
func (s *sender) goOn(f *os.File, it item, h had, total hash.Hash) (offset int64, err error) {
	total.Reset()
	if h.Bytes < 0 || h.Bytes > it.Size {
		return 0, fmt.Errorf("the peer has %d bytes of a file of %d", h.Bytes, it.Size)
	}
	if err := seek(f, 0); err != nil {
		return 0, err
	}
	if _, err := io.CopyN(total, f, h.Bytes); err != nil {
		return 0, changed(f, err)
	}
	if bytes.Equal(total.Sum(nil), h.SHA256) {
		return h.Bytes, nil
	}
	total.Reset()
	return 0, seek(f, 0)
}

func (s *sender) sendRest(f *os.File, it item, offset int64, total hash.Hash) error {
	s.bar.add(offset)
	n, err := io.CopyN(io.MultiWriter(s.w, total, s.bar), f, it.Size-offset)
	s.sent += n
	if err != nil {
		return changed(f, err)
	}
	if err := s.say(sum{total.Sum(nil)}); err != nil {
		return err
	}
	return s.confirmed()
}

// changed returns the error for a file that is shorter than it was.
func changed(f *os.File, err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has become shorter while it was copied; copy it again", quote(f.Name()))
	}
	return err
}

// confirmed hears that an item has arrived.
func (s *sender) confirmed() error {
	var g got
	if err := s.hear(&g); err != nil {
		return err
	}
	if g.Error != "" {
		return refusal(g.Error)
	}
	return nil
}

func refusal(text string) error { return fmt.Errorf("%w: %s", errRefused, text) }
