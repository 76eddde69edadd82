package sock_test

import (
	"errors"
	"io/fs"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh/internal/sock"
)

// limits are the longest paths that the kernels take, from their manuals.
var limits = map[string]int{"linux": 107, "darwin": 103, "windows": 107}

func TestCheckPath(t *testing.T) {
	limit, ok := limits[runtime.GOOS]
	if !ok {
		t.Fatalf("no limit known for %s", runtime.GOOS)
	}
	long := "/tmp/" + strings.Repeat("x", limit-len("/tmp/"))
	tests := []struct {
		name, path string
		want       []string // parts of the error; nil: none
	}{
		{"ordinary", "/tmp/mesh.sock", nil},
		{"relative", "mesh.sock", nil},
		{"longest", long, nil},
		{"one too long", long + "x", []string{long + "x", strconv.Itoa(limit + 1), strconv.Itoa(limit)}},
		{"empty", "", []string{"empty"}},
		{"NUL", "/tmp/a\x00b", []string{"NUL"}},
		{"abstract", "@mesh", []string{"@mesh", "abstract", "./@mesh"}},
		{"at sign in a file name", "./@mesh", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := sock.CheckPath(tt.path)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("CheckPath(%q) = %v", tt.path, err)
				}
				return
			}
			var pathErr *fs.PathError
			if !errors.Is(err, sock.ErrPath) || !errors.As(err, &pathErr) || pathErr.Path != tt.path {
				t.Fatalf("CheckPath(%q) = %#v, want a *fs.PathError of it around ErrPath", tt.path, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not mention %q", err, part)
				}
			}
			if _, err := sock.Listen(tt.path); !errors.Is(err, sock.ErrPath) {
				t.Errorf("Listen(%q) = %v, want ErrPath", tt.path, err)
			}
			if _, err := sock.Dial(t.Context(), tt.path); !errors.Is(err, sock.ErrPath) {
				t.Errorf("Dial(%q) = %v, want ErrPath", tt.path, err)
			}
		})
	}
}
