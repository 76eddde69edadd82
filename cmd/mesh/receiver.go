package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A store is a directory into which peers copy. All names are below it: an os.Root follows no link out of it.
type store struct {
	root *os.Root

	mu   sync.Mutex
	open map[string]*receiver // those that are receiving a file
}

// stalled is how long nothing must have come of a copy for another one of the same file to take its place: a sender that
// was killed copies again, perhaps before it is known to be gone.
const stalled = 3 * time.Second

var errUnderWay = errors.New("another copy of this file is under way")

// enter notes that a file is being received, once nobody else does. It waits for one that has stalled, and ends it.
func (r *receiver) enter(name string) error {
	for began := time.Now(); ; time.Sleep(stalled / 20) {
		r.mu.Lock()
		other := r.open[name]
		if other == nil {
			r.open[name] = r
		}
		r.mu.Unlock()
		if other == nil {
			return nil
		}
		if time.Since(time.Unix(0, other.heard.Load())) > stalled {
			_ = other.conn.Close() // it leaves then
		}
		if time.Since(began) > 2*stalled {
			return errUnderWay
		}
	}
}

func (r *receiver) leave(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, name)
}

// tidy removes the directory for what is not complete, unless something is in it.
func (s *store) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.root.Remove(partsDir)
}

// A receiver takes one copy.
type receiver struct {
	*store
	*wire
	conn  io.ReadWriteCloser
	heard atomic.Int64     // when something came
	done  func(item) error // is told of each file

	dirs   []item // whose permissions are set at the end: they may forbid to write
	failed int
}

func newReceiver(s *store, conn io.ReadWriteCloser, done func(item) error) *receiver {
	r := &receiver{store: s, conn: conn, done: done}
	r.heard.Store(time.Now().UnixNano())
	r.wire = newWire(r)
	return r
}

// Read reads what the peer sends, and notes that something came.
func (r *receiver) Read(b []byte) (int, error) {
	n, err := r.conn.Read(b)
	r.heard.Store(time.Now().UnixNano())
	return n, err
}

func (r *receiver) Write(b []byte) (int, error) { return r.conn.Write(b) }

// errItem is an error about one item, of which the sender is told.
type errItem struct{ error }

func (r *receiver) run() error {
	for {
		var it item
		if err := r.hear(&it); err != nil {
			return err
		}
		if it.Kind == kindEnd {
			return r.end()
		}
		err := r.take(it)
		if about := (errItem{}); errors.As(err, &about) {
			r.failed++
			err = r.say(got{Error: about.Error()})
		}
		if err != nil {
			return err
		}
	}
}

// end sets the permissions of directories, those within others first.
func (r *receiver) end() error {
	var failed error
	for _, d := range slices.Backward(r.dirs) {
		if err := r.root.Chmod(string(d.Name), d.Mode&fs.ModePerm); err != nil && failed == nil {
			failed = err
		}
	}
	var answer got
	if failed != nil {
		answer.Error = failed.Error()
	}
	if err := r.say(answer); err != nil {
		return err
	}
	if r.failed > 0 {
		return fmt.Errorf("%d files were not taken", r.failed)
	}
	return failed
}

func (r *receiver) take(it item) error {
	name := string(it.Name)
	if err := checkName(name); err != nil {
		return errItem{err}
	}
	switch it.Kind {
	case kindDir:
		if err := r.root.MkdirAll(name, 0o700); err != nil {
			return errItem{err}
		}
		// What is there already may forbid to write in it.
		if err := r.root.Chmod(name, it.Mode&fs.ModePerm|0o700); err != nil {
			return errItem{err}
		}
		r.dirs = append(r.dirs, it)
		return r.say(got{})
	case kindFile:
		if it.Size < 0 {
			return errors.New("a file of a negative size")
		}
		if err := r.enter(name); err != nil {
			return errItem{err}
		}
		defer r.leave(name)
		return r.takeFile(name, it)
	}
	return fmt.Errorf("an item of kind %q", it.Kind)
}

// partName is that of the file for what is not complete, in partsDir: the same for every copy of a name.
func partName(name string) string {
	h := sha256.Sum256([]byte(name))
	return path.Join(partsDir, hex.EncodeToString(h[:16]))
}

func (r *receiver) takeFile(name string, it item) error {
	if dir := path.Dir(name); dir != "." {
		if err := r.root.MkdirAll(dir, 0o755); err != nil {
			return errItem{err}
		}
	}
	if fi, err := r.root.Lstat(name); err == nil && fi.Mode().IsRegular() && fi.Size() == it.Size {
		if done, err := r.same(name, it); done || err != nil {
			return err
		}
	}
	part, err := r.openPart(partName(name))
	if err != nil {
		return errItem{err}
	}
	err = r.fill(part, it)
	if err = errors.Join(err, part.Close()); err != nil {
		return err
	}
	if err := r.root.Rename(partName(name), name); err != nil {
		return errItem{err}
	}
	r.tidy()
	if err := r.say(got{}); err != nil {
		return err
	}
	return r.done(it)
}

// openPart opens the file for what is not complete: a file, and no link to one.
func (r *receiver) openPart(part string) (*os.File, error) {
	r.mu.Lock() // against tidy
	defer r.mu.Unlock()
	if err := r.root.Mkdir(partsDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if fi, err := r.root.Lstat(part); err == nil && !fi.Mode().IsRegular() {
		if err := r.root.Remove(part); err != nil {
			return nil, err
		}
	}
	f, err := r.root.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(errUnderWay, f.Close())
	}
	return f, nil
}

// same offers the sender the file that is there, which may be complete: of an earlier copy, for example.
func (r *receiver) same(name string, it item) (done bool, err error) {
	f, err := r.root.Open(name)
	if err != nil {
		return false, nil //nolint:nilerr // it is written anew
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil || n != it.Size {
		return false, nil //nolint:nilerr // it is written anew
	}
	offset, err := r.offer(n, sum, true)
	if err != nil || offset != n {
		return false, err
	}
	if err := r.checkSum(sum); err != nil {
		return false, err
	}
	if err := f.Chmod(it.Mode & fs.ModePerm); err != nil {
		return false, errItem{err}
	}
	return true, r.say(got{})
}

// offer tells the sender what there is, and returns from where it goes on.
func (r *receiver) offer(n int64, sum hash.Hash, whole bool) (offset int64, err error) {
	if err := r.say(had{Bytes: n, SHA256: sum.Sum(nil), Whole: whole}); err != nil {
		return 0, err
	}
	var f from
	if err := r.hear(&f); err != nil {
		return 0, err
	}
	if f.Offset != n && f.Offset != 0 {
		return 0, fmt.Errorf("an offset of %d, with %d bytes there", f.Offset, n)
	}
	return f.Offset, nil
}

// fill receives what is missing of a file.
func (r *receiver) fill(part *os.File, it item) error {
	sum := sha256.New()
	n, err := io.Copy(sum, part)
	if err != nil {
		return errItem{err}
	}
	if n > it.Size { // of another file
		n = 0
		sum.Reset()
	}
	offset, err := r.offer(n, sum, false)
	if err != nil {
		return err
	}
	if offset == 0 {
		sum.Reset()
	}
	if err := errors.Join(part.Truncate(offset), seek(part, offset)); err != nil {
		return err
	}
	disk := &stubborn{w: part}
	if _, err := io.CopyN(io.MultiWriter(disk, sum), r.r, it.Size-offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := r.checkSum(sum); err != nil {
		return errors.Join(err, part.Truncate(0))
	}
	if disk.err != nil {
		return errItem{disk.err}
	}
	if err := errors.Join(part.Chmod(it.Mode&fs.ModePerm), part.Sync()); err != nil {
		return errItem{err}
	}
	return nil
}

// A stubborn writer goes on after an error, which is the first one's: a sender hears of it when it has sent everything.
type stubborn struct {
	w   io.Writer
	err error
}

func (s *stubborn) Write(b []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
	return len(b), nil
}

func seek(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

// checkSum compares the checksum of a file with that of the sender.
func (r *receiver) checkSum(have hash.Hash) error {
	var s sum
	if err := r.hear(&s); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(s.SHA256, have.Sum(nil)) != 1 {
		return errItem{errors.New("the checksum is wrong: the file may have changed while it was copied; copy it again")}
	}
	return nil
}
