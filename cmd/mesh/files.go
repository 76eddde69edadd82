package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// The protocol of mesh cp and mesh recv, on a stream of the service files: lines of JSON, and bytes.
//
// The sender says what comes (an item), a directory or a file, and the receiver what it has of that: how many bytes, and
// their SHA-256 (a had). If the sender has the same, it goes on from there, else from the beginning: it says so (a from),
// sends the rest of the bytes, and the SHA-256 of the whole file (a sum). The receiver says that it has it all (a got). What
// it has may be a whole file under the name, of an earlier copy: if that is another one, it says next what else it has. An
// error in place of a had or got is about one item; the next one may follow. The last item is "end".

// filesService is the name of the service.
const filesService = "files"

// The kinds of an item.
const (
	kindDir  = "dir"
	kindFile = "file"
	kindEnd  = "end"
)

type item struct {
	Kind string `json:"kind"`
	// Name is the path from the directory of the receiver, with slashes. It is bytes, in base64: not every name is text.
	Name []byte      `json:"name,omitempty"`
	Size int64       `json:"size,omitempty"`
	Mode fs.FileMode `json:"mode,omitempty"` // permissions only
}

type had struct {
	Bytes  int64  `json:"bytes"`
	SHA256 []byte `json:"sha256,omitempty"` // of these
	Whole  bool   `json:"whole,omitempty"`  // it is the file under the name
	Error  string `json:"error,omitempty"`
}

type from struct {
	Offset int64 `json:"offset"`
}

type sum struct {
	SHA256 []byte `json:"sha256"` // of the whole file
}

type got struct {
	Error string `json:"error,omitempty"`
}

// wire reads and writes lines, and bytes between them.
type wire struct {
	r *bufio.Reader
	w *bufio.Writer
}

func newWire(c io.ReadWriter) *wire {
	return &wire{bufio.NewReaderSize(c, maxLine), bufio.NewWriterSize(c, maxLine)}
}

// maxLine bounds a line in bytes: the longest name in base64, and more.
const maxLine = 64 << 10

// say writes a line, at once.
func (w *wire) say(v any) error {
	if err := json.NewEncoder(w.w).Encode(v); err != nil {
		return err
	}
	return w.w.Flush()
}

// hear reads a line. That the other end breaks off is no end of file.
func (w *wire) hear(v any) error {
	line, err := w.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("not what mesh cp and mesh recv say to each other: %w", err)
	}
	return nil
}

const (
	maxName = 4096 // bytes in a path
	maxPart = 255  // in a part of it
	// partsDir is where what is not complete is kept.
	partsDir = ".mesh-parts"
)

// checkName returns an error if nothing may be written under a name: it has to be a path below the directory, of parts that
// every system has.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("a name of %d bytes; want 1 to %d", len(name), maxName)
	}
	for i, part := range strings.Split(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return errors.New("a name that leads elsewhere")
		case len(part) > maxPart:
			return fmt.Errorf("a name with a part of %d bytes, and %d are possible", len(part), maxPart)
		case strings.ContainsRune(part, 0):
			return errors.New("a name with a byte 0")
		case i == 0 && strings.EqualFold(part, partsDir):
			return errors.New("the name " + partsDir + " is that of what is not complete")
		}
	}
	return nil
}
