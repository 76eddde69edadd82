package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/chatixia-ai/mesh/internal/wire"
)

// readAll returns every line of a stream, with "too_large" between angle brackets for lines over the
// limit, and the final error.
func readAll(t testing.TB, src io.Reader, maxLine int) (lines []string, final error) {
	t.Helper()
	r := wire.NewReader(src, maxLine)
	for {
		line, err := r.ReadLine()
		var bad *wire.Error
		switch {
		case errors.As(err, &bad):
			lines = append(lines, "<"+string(bad.Code)+">")
		case err != nil:
			if _, again := r.ReadLine(); again != err {
				t.Fatalf("%v, then %v: the error is not final", err, again)
			}
			return lines, err
		default:
			lines = append(lines, string(line))
		}
	}
}

func TestReader(t *testing.T) {
	const bom = "\xEF\xBB\xBF"
	long := strings.Repeat("x", 100_000)
	tests := []struct {
		name, stream string
		max          int
		want         []string
	}{
		{"empty", "", 10, nil},
		{"lines", "a\nb\nc\n", 10, []string{"a", "b", "c"}},
		{"last line without newline", "a\nb", 10, []string{"a", "b"}},
		{"blank lines", "\n\r\n \t \na\n\n\r \r\r\nb\n\r", 10, []string{"a", "b"}},
		{"carriage return", "a\r\nb\r\r\nc\rd\r\n", 10, []string{"a", "b\r", "c\rd"}},
		{"white space stays", " a \n", 10, []string{" a "}},
		{"at the limit", "0123456789\n0123456789\r\n0123456789", 10, []string{"0123456789", "0123456789", "0123456789"}},
		{"over the limit", "a\n0123456789x\nb\n", 10, []string{"a", "<too_large>", "b"}},
		{"over the limit by a carriage return", "0123456789\r\r\n0123456789x\r\nb\n", 10,
			[]string{"<too_large>", "<too_large>", "b"}},
		{"far over the limit", "a\n" + long + "\nb\n" + long + "\n" + long + "\nc", 10,
			[]string{"a", "<too_large>", "b", "<too_large>", "<too_large>", "c"}},
		{"over the limit at the end", "a\n" + long, 10, []string{"a", "<too_large>"}},
		{"blank but over the limit", strings.Repeat(" ", 11) + "\na\n", 10, []string{"<too_large>", "a"}},
		{"long lines", long + "\n" + "a\n" + long + long + "\nb", 1 << 20, []string{long, "a", long + long, "b"}},
		{"zero bytes", "\x00\n\x00\x00\n", 10, []string{"\x00", "\x00\x00"}},
		{"byte order mark", bom + "a\nb\n", 10, []string{"a", "b"}},
		{"nothing but a byte order mark", bom, 10, nil},
		{"a byte order mark over the limit", bom + "\n", 0, nil},
		{"a blank line after the byte order mark", bom + "\r\na\n", 10, []string{"a"}},
		{"a line at the limit after the byte order mark", bom + "0123456789\n", 10, []string{"0123456789"}},
		{"a line over the limit after the byte order mark", bom + "0123456789x\na\n", 10, []string{"<too_large>", "a"}},
		{"two byte order marks", bom + bom + "a\n", 10, []string{bom + "a"}},
		{"a byte order mark in a line", "a" + bom + "\n" + bom + "b\n", 10, []string{"a" + bom, bom + "b"}},
		{"a byte order mark after a blank line", "\n" + bom + "a\n", 10, []string{bom + "a"}},
		{"part of a byte order mark", bom[:2] + "a\n", 10, []string{bom[:2] + "a"}},
		{"nothing but part of a byte order mark", bom[:2], 10, []string{bom[:2]}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole":         func(r io.Reader) io.Reader { return r },
				"byte by byte":  iotest.OneByteReader,
				"error at once": iotest.DataErrReader,
				"empty reads":   func(r io.Reader) io.Reader { return &hesitant{r: iotest.HalfReader(r)} },
			} {
				got, err := readAll(t, wrap(strings.NewReader(test.stream)), test.max)
				if err != io.EOF || !slices.Equal(got, test.want) {
					t.Errorf("%s: %.200q, %v; want %.200q", name, got, err, test.want)
				}
			}
		})
	}
}

// hesitant returns nothing, without an error, before each real Read.
type hesitant struct {
	r     io.Reader
	ready bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.ready = !h.ready; h.ready {
		return 0, nil
	}
	return h.r.Read(p)
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("broken")
	got, err := readAll(t, io.MultiReader(strings.NewReader("a\nrest"), iotest.ErrReader(broken)), 10)
	if !errors.Is(err, broken) || !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q, %v: want no line that an error has cut short", got, err)
	}
	if _, err := readAll(t, readFunc(func([]byte) (int, error) { return 0, nil }), 10); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source that never returns anything: %v", err)
	}
	if _, err := readAll(t, readFunc(func(p []byte) (int, error) { return len(p) + 1, nil }), 10); err == nil {
		t.Error("a source that returns more than the buffer holds: no error")
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestReaderBuffer watches the buffer through the slices that the source is offered.
func TestReaderBuffer(t *testing.T) {
	const limit = 1 << 20
	// Of a line of 1 GiB no more than one line's worth may be kept.
	t.Run("line over the limit", func(t *testing.T) {
		left, largest := 1<<30, 0
		r := wire.NewReader(readFunc(func(p []byte) (int, error) {
			largest = max(largest, len(p))
			n := min(len(p), left)
			if n == 0 {
				return copy(p, "\nend\n"), io.EOF
			}
			left -= n
			clear(p[:n]) // any bytes but newlines
			return n, nil
		}), limit)
		if _, err := r.ReadLine(); code(t, err) != wire.CodeTooLarge {
			t.Fatal(err)
		}
		if line, err := r.ReadLine(); string(line) != "end" || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		if largest > limit+4*wire.SliceSize {
			t.Errorf("a buffer of at least %d bytes for lines of at most %d", largest, limit)
		}
	})
	t.Run("shrinks", func(t *testing.T) {
		offered := 0
		stream := strings.NewReader(strings.Repeat("x", limit) + "\n" + strings.Repeat("short\n", 100_000))
		r := wire.NewReader(readFunc(func(p []byte) (int, error) {
			offered = len(p)
			return stream.Read(p)
		}), limit)
		if line, err := r.ReadLine(); len(line) != limit || err != nil {
			t.Fatalf("%d bytes, %v", len(line), err)
		}
		for range 50_000 {
			if line, err := r.ReadLine(); string(line) != "short" || err != nil {
				t.Fatalf("%q, %v", line, err)
			}
		}
		if offered > 4*wire.SliceSize {
			t.Errorf("still a buffer of %d bytes", offered)
		}
	})
	t.Run("grows at once", func(t *testing.T) {
		long, less := strings.Repeat("x", limit)+"\n", strings.Repeat("y", 3*wire.SliceSize)+"\n"
		usual := strings.Repeat("z", 3*wire.SliceSize/2) + "\n" // it grows the buffer, but not to what long needed
		stream := strings.NewReader(long + long + usual + less + less)
		offered, grown := 0, 0
		r := wire.NewReader(readFunc(func(p []byte) (int, error) {
			if len(p) > offered {
				grown++
			}
			offered = len(p)
			return stream.Read(p[:min(len(p), wire.SliceSize)])
		}), limit)
		for i, want := range []struct{ length, grown, offered int }{
			{limit, 9, limit}, {limit, 3, limit}, {len(usual) - 1, 2, 4 * wire.SliceSize},
			{len(less) - 1, 3, limit}, {len(less) - 1, 3, 8 * wire.SliceSize}, // a long line is remembered once
		} {
			grown, offered = 0, 0
			line, err := r.ReadLine()
			if len(line) != want.length || err != nil || grown > want.grown || offered > want.offered {
				t.Errorf("line %d: %d bytes, %v, the buffer grew %d times, %d bytes free at last; want %+v",
					i, len(line), err, grown, offered, want)
			}
		}
	})
	t.Run("waits with little", func(t *testing.T) {
		stream := strings.NewReader(strings.Repeat("x", 100_000) + "\n" + strings.Repeat("short\n", 100))
		offered := 0
		r := wire.NewReader(readFunc(func(p []byte) (int, error) {
			offered = len(p)
			if short := 100 * len("short\n"); stream.Len() > short {
				p = p[:min(len(p), stream.Len()-short)]
			} else {
				p = p[:len("short\n")]
			}
			return stream.Read(p)
		}), limit)
		for {
			if _, err := r.ReadLine(); err != nil {
				break
			}
		}
		if offered > wire.SliceSize/4 {
			t.Errorf("waited with room for %d bytes", offered)
		}
	})
	t.Run("offers a slice's worth", func(t *testing.T) {
		stream := bytes.Repeat([]byte(strings.Repeat("x", 1000)+"\n"), 1000)
		src := &loop{text: stream}
		refused := false
		r := wire.NewReader(readFunc(func(p []byte) (int, error) {
			if len(p) < wire.SliceSize {
				if refused {
					return 0, fmt.Errorf("%d bytes offered again", len(p))
				}
				refused = true
				return 0, io.ErrShortBuffer
			}
			refused = false
			return src.Read(p[:wire.SliceSize])
		}), limit)
		for range 10_000 {
			if line, err := r.ReadLine(); len(line) != 1000 || err != nil {
				t.Fatalf("%d bytes, %v", len(line), err)
			}
		}
	})
}

// TestReaderAccount: the account is told of all that a reader has beyond what it may keep, before it has it.
func TestReaderAccount(t *testing.T) {
	const limit = 1 << 20
	for _, test := range []struct {
		name, stream string
		refuse       int   // the account refuses so many bytes
		want         []int // what the account is told, in turn; the last is the end
		lines        int
	}{
		{"usual lines", strings.Repeat(strings.Repeat("x", 40_000)+"\n", 20), 0, nil, 20},
		{"a long line", strings.Repeat("x", 200_000) + "\nshort\n", 0, []int{128 << 10, 256 << 10, 32 << 10}, 2},
		{"a line without end", strings.Repeat("x", 100_000), 0, []int{128 << 10, 32 << 10}, 1},
		{"a line that is skipped", strings.Repeat("x", 2*limit) + "\n", 0,
			[]int{128 << 10, 256 << 10, 512 << 10, 1 << 20, limit + 1 + 32<<10, 32 << 10}, 1},
		{"refused", strings.Repeat("x", 200_000) + "\n", 256 << 10, []int{128 << 10, 256 << 10, 32 << 10}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := strings.NewReader(test.stream)
			has, refused := 0, errors.New("refused")
			var told []int
			r := wire.NewReader(readFunc(func(p []byte) (int, error) {
				if len(p) > max(has, wire.ReaderKeep) {
					t.Errorf("room for %d bytes, and the account knows of %d", len(p), has)
				}
				return stream.Read(p[:min(len(p), wire.SliceSize)])
			}), limit)
			r.SetAccount(func(bytes int) error {
				told = append(told, bytes)
				if bytes == test.refuse {
					return refused
				}
				has = bytes
				return nil
			})
			lines := 0
			for {
				_, err := r.ReadLine()
				if bad := (*wire.Error)(nil); err == nil || errors.As(err, &bad) {
					lines++
					continue
				}
				if want := map[bool]error{true: io.EOF, false: refused}[test.refuse == 0]; err != want {
					t.Errorf("ended with %v, want %v", err, want)
				}
				break
			}
			r.Shrink()
			if !slices.Equal(told, test.want) || lines != test.lines {
				t.Errorf("%d lines, and the account was told %v; want %d and %v", lines, told, test.lines, test.want)
			}
		})
	}
}

// TestReaderTrickle would take minutes if each Read searched the whole line again.
func TestReaderTrickle(t *testing.T) {
	const length = 2 << 20
	src := iotest.OneByteReader(strings.NewReader(strings.Repeat("x", length)))
	if line, err := wire.NewReader(src, length).ReadLine(); len(line) != length || err != nil {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}
