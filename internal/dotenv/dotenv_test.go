package dotenv_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/chatixia-ai/mesh/internal/dotenv"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

// write makes a .env file and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type environ map[string]string

func (e environ) lookup(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}

func TestLoad(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       environ
		says       string // in the error; "" for none
	}{
		{name: "good", text: "A=1\nSET=2\nexport B='x y'\n", want: environ{"A": "1", "SET": "stays", "B": "x y"}},
		{name: "empty in the environment", text: "NONE=1\n", want: environ{"NONE": ""}},
		{name: "refers to another", text: "A=1\nB=\"${A}2\"\nC=${SET}${HOME}", want: environ{"B": "12", "C": ""}},
		{name: "bad in the middle", text: "A=1\nno such thing\nB=2\n", want: environ{"A": "1", "B": ""}, says: "line 2"},
		{name: "bad at once", text: "no such thing\nA=1\n", want: environ{"A": ""}, says: "line 1"},
		{name: "bad at the end", text: "A=1\nsecret\n", want: environ{"A": "1"}, says: "line 2"},
		{name: "bad at the end, no newline", text: "A=1\nsecret", want: environ{"A": "1"}, says: "line 2"},
		{name: "no end of a quote", text: "A=1\nB=\"secret\nC=1\n", want: environ{"A": "1", "C": ""}, says: "line 2"},
		{name: "byte order mark", text: "\uFEFFA=1\nB=2\n", want: environ{"A": "1", "B": "2"}},
		{name: "bad after a byte order mark", text: "\uFEFFA=1\nno such thing\n", want: environ{"A": "1"}, says: "line 2"},
		{name: "nothing but a byte order mark", text: "\uFEFF"},
		{name: "empty"},
		{name: "too long", text: "A=1\nB=" + strings.Repeat("x", 64<<10), want: environ{"A": ""}, says: "over 65536 bytes"},
		{name: "too many lines", text: "A=1" + strings.Repeat("\n", 1001), want: environ{"A": ""}, says: "over 1000 lines"},
		{name: "many from few", text: "A=xxxxxxxxxx\n" + strings.Repeat("A=$A$A$A$A$A$A$A$A\n", 40), want: environ{"A": ""}, says: "over 20 dollar signs"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.text)
			env, err := dotenv.Load(path, environ{"SET": "stays", "NONE": ""}.lookup)
			if (err != nil) != (tc.says != "") || err != nil && (!strings.Contains(err.Error(), tc.says) ||
				!strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("error %v, want one with %q", err, tc.says)
			}
			for name, want := range tc.want {
				if got := env.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
	if env, err := dotenv.Load(filepath.Join(t.TempDir(), "none"), environ{"A": "1"}.lookup); err != nil || env.Get("A") != "1" {
		t.Error(err)
	}
	if _, err := dotenv.Load(t.TempDir(), environ{}.lookup); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestExport(t *testing.T) {
	for _, name := range []string{"MESH_TEST_A", "MESH_TEST_B", "MESH_TEST_OTHER"} {
		t.Setenv(name, "") // so that it is restored
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("MESH_TEST_B", "stays")
	env, err := dotenv.Load(write(t, "MESH_TEST_A=1\nMESH_TEST_B=2\nMESH_TEST_OTHER=3\n"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Export([]string{"MESH_TEST_A", "MESH_TEST_B", "MESH_TEST_C"}); err != nil {
		t.Fatal(err)
	}
	_, other := os.LookupEnv("MESH_TEST_OTHER")
	if a, b := os.Getenv("MESH_TEST_A"), os.Getenv("MESH_TEST_B"); a != "1" || b != "stays" || other {
		t.Errorf("A is %q, B %q; a variable that nobody reads is set: %v", a, b, other)
	}
}

func TestReport(t *testing.T) {
	aims := []dotenv.Aim{{Secret: "KEY", At: []string{"URL", "CA"}}}
	for _, tc := range []struct {
		name, file string
		env        environ
		flags      []string
		trust      bool
		err        string // in the error; "" for none
		log        string
	}{
		{name: "nothing"},
		{name: "all in the file", file: "KEY=k\nURL=u\n", log: `"variables":["KEY","URL"]`},
		{name: "all outside", env: environ{"KEY": "k", "URL": "u"}},
		{name: "target of the file", file: "URL=u\n", env: environ{"KEY": "k"}, err: "does not hold KEY, but its URL"},
		{name: "second target", file: "CA=c\n", env: environ{"KEY": "k", "URL": "u"}, err: "does not hold KEY, but its CA"},
		{name: "secret by flag", file: "URL=u\n", flags: []string{"KEY"}, err: "URL"},
		{name: "secret by flag, another in the file", file: "KEY=f\nURL=u\n", flags: []string{"KEY"}, err: "URL"},
		{name: "target by flag", file: "URL=u\n", env: environ{"KEY": "k"}, flags: []string{"URL"}},
		{name: "target in both", file: "URL=u\n", env: environ{"KEY": "k", "URL": "v"}},
		{name: "target empty in the environment", file: "URL=u\n", env: environ{"KEY": "k", "URL": ""}},
		{name: "empty secret", file: "URL=u\n", env: environ{"KEY": ""}, log: `"variables":["URL"]`},
		{name: "empty target", file: "URL=\n", env: environ{"KEY": "k"}},
		{name: "trusted by flag", file: "URL=u\n", env: environ{"KEY": "k"}, trust: true, log: ".env is trusted"},
		{name: "trusted by variable", file: "URL=u\n", env: environ{"KEY": "k", dotenv.TrustVariable: "1"}, log: ".env is trusted"},
		{name: "not trusted by variable", file: "URL=u\n", env: environ{"KEY": "k", dotenv.TrustVariable: "0"}, err: "URL"},
		{name: "trusted by itself", file: dotenv.TrustVariable + "=1\nURL=u\n", env: environ{"KEY": "k"}, err: "URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := write(t, tc.file)
			env, err := dotenv.Load(path, tc.env.lookup)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"KEY", "URL", "CA"} {
				env.Get(name)
			}
			for _, name := range tc.flags {
				env.Override(name)
			}
			var log testutil.LogBuffer
			err = env.Report(zerolog.New(&log), nil, aims, tc.trust)
			if (err != nil) != (tc.err != "") || err != nil && (!strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), path)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if !strings.Contains(log.String(), tc.log) || tc.log != "" && !strings.Contains(log.String(), path) {
				t.Errorf("want %s and the path in the log:\n%s", tc.log, &log)
			}
		})
	}
}

// FuzzLoad: whatever a file holds, its variables are made of nothing but itself, the environment stays in force,
// errors do not quote it, and it cannot aim a secret that is not in it.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{"A=1\nexport B='x y'\n# comment\nC: yaml\n", "A=\"${KEY}$KEY\\n\"\nB=$A$A\n", "no\nA=1", "KEY=x\nURL=y", "=1\nA", "A='1\n2'\n\"",
		"\uFEFFURL=u", "URL=\"a\\", "A=\\$KEY # x\n", "A=$(KEY)\nexport=1\nexport export\n", "A\x00=1\n\r\nB=2\r"} {
		f.Add(text)
	}
	const canary = "ak_canary_5d41402a"
	path := filepath.Join(f.TempDir(), ".env")
	told := regexp.MustCompile(`^` + regexp.QuoteMeta(path) + `: (line \d+ does not have the form NAME=value; only the lines before it are used|over \d+ .*; not used)$`)
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		env, err := dotenv.Load(path, environ{"KEY": canary, "HOME": canary}.lookup)
		if err != nil && !told.MatchString(err.Error()) {
			t.Fatalf("%q: %v", text, err)
		}
		if env.Get("KEY") != canary {
			t.Fatalf("%q changed a variable of the environment", text)
		}
		for _, name := range []string{"A", "B", "C", "URL"} {
			if v := env.Get(name); strings.Contains(v, canary) || v != "" && !strings.Contains(text, name) {
				t.Fatalf("%q: %s is %q", text, name, v)
			}
		}
		refused := env.Report(zerolog.Nop(), err, []dotenv.Aim{{Secret: "KEY", At: []string{"URL"}}}, false)
		if (refused != nil) != (env.Get("URL") != "") {
			t.Fatalf("%q: %v", text, refused)
		}
		// The text up to a bad line gives the same.
		if bad := regexp.MustCompile(`line (\d+)`).FindStringSubmatch(fmt.Sprint(err)); bad != nil {
			var n int
			_, _ = fmt.Sscan(bad[1], &n)
			lines := strings.SplitAfter(strings.TrimPrefix(text, "\uFEFF"), "\n")
			if err := os.WriteFile(path, []byte(strings.Join(lines[:n-1], "")), 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := dotenv.Load(path, environ{}.lookup)
			got, want := map[string]string{}, map[string]string{}
			for _, name := range []string{"A", "B", "C", "URL"} {
				got[name], want[name] = again.Get(name), env.Get(name)
			}
			if err != nil || !maps.Equal(got, want) {
				t.Fatalf("%q: %v; without what follows line %d: %v, %v", text, want, n, got, err)
			}
		}
	})
}
