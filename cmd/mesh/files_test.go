package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/chatixia-ai/mesh"
	"github.com/chatixia-ai/mesh/internal/testutil"
)

func write(t *testing.T, name string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func random(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b)
	return b
}

// holds fails unless a file has the content and permissions.
func holds(t *testing.T, name string, data []byte, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q has %d bytes, %v, want %d", name, len(got), err, len(data))
	}
	if fi, err := os.Stat(name); err == nil && fi.Mode().Perm() != mode && runtime.GOOS != "windows" {
		t.Errorf("%q has the permissions %v, want %v", name, fi.Mode(), mode)
	}
}

// complete fails if anything is left of what was not complete.
func complete(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(dir, partsDir)); err == nil {
		t.Errorf("%s/%s is still there", dir, partsDir)
	}
}

// receiving starts mesh recv in the directory in.
func receiving(t *testing.T, args ...string) *running {
	t.Helper()
	if err := os.MkdirAll("in", 0o755); err != nil {
		t.Fatal(err)
	}
	p := start(t, append([]string{"recv", "in", "--id", "bob"}, args...)...)
	p.out.wait(t, "in")
	return p
}

func TestCopy(t *testing.T) {
	onMesh(t)
	big := random(5 << 20)
	odd := []string{"with space", "new\nline", "ünï\u202ecode", strings.Repeat("x", 255), "-rf", "a\\b", "bad\xffbytes", "\x1b[2J", "...", ".mesh-parts2"}
	write(t, "big", big, 0o640)
	write(t, "dir/sub/empty", nil, 0o444)
	write(t, "dir/run.sh", []byte("#!/bin/sh\n"), 0o755)
	for _, name := range odd {
		write(t, filepath.Join("dir", "odd", name), []byte(name), 0o600)
	}
	if err := os.Mkdir("dir/none", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", "dir/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("dir/sub", 0o555); err != nil {
		t.Fatal(err)
	}
	p := receiving(t)
	r := cli("cp", "big", "dir", "bob:")
	r.hasStatus(t, 0, "copied 13 files", "dir/link", "left out")
	holds(t, "in/big", big, 0o640)
	holds(t, "in/dir/sub/empty", nil, 0o444)
	holds(t, "in/dir/run.sh", []byte("#!/bin/sh\n"), 0o755)
	for _, name := range odd {
		holds(t, filepath.Join("in", "dir", "odd", name), []byte(name), 0o600)
	}
	if fi, err := os.Stat("in/dir/sub"); err != nil || fi.Mode().Perm() != 0o555 {
		t.Errorf("in/dir/sub: %v, %v", fi, err)
	}
	if fi, err := os.Stat("in/dir/none"); err != nil || !fi.IsDir() {
		t.Errorf("in/dir/none: %v, %v", fi, err)
	}
	if _, err := os.Lstat("in/dir/link"); err == nil {
		t.Error("a link was copied")
	}
	complete(t, "in")
	p.out.wait(t, ": big, 5242880 bytes\n")
	if strings.Contains(p.out.String()+r.out+r.err, "\x1b") {
		t.Error("a name steers the terminal")
	}

	// What is there already is not sent again; what has changed is.
	changed := bytes.Clone(big)
	changed[1000]++
	write(t, "big", changed, 0o600)
	var s shownCopy
	if cli("cp", "big", "dir/run.sh", "bob:", "--json").into(t, &s); s.Files != 2 || s.Sent != 5<<20+10 || len(s.Skipped) != 0 {
		t.Errorf("%+v", s)
	}
	if cli("cp", "big", "bob:", "--json").into(t, &s); s.Sent != 0 || s.Bytes != 5<<20 {
		t.Errorf("%+v", s)
	}
	holds(t, "in/big", changed, 0o600)
	p.interrupt()
	p.ends(t, 0)
	if err := os.Chmod("in/dir/sub", 0o755); err != nil { // for the cleanup
		t.Error(err)
	}
	_ = os.Chmod("dir/sub", 0o755)
}

// A copy that was cut off, by the death of either side, goes on where it was.
func TestResume(t *testing.T) {
	for _, victim := range []string{"sender", "receiver"} {
		t.Run(victim, func(t *testing.T) {
			onMesh(t)
			const size = 64 << 20
			big := random(size)
			write(t, "big", big, 0o600)
			if err := os.Mkdir("in", 0o755); err != nil {
				t.Fatal(err)
			}
			var out, errs output
			to := startProcess(t, &out, &errs, "recv", "in", "--id", "bob")
			out.wait(t, "receiving")
			by := startProcess(t, &out, &errs, "cp", "big", "bob:")
			part := filepath.Join("in", partName("big"))
			testutil.Eventually(t, "a part of the file", func() bool {
				fi, err := os.Stat(part)
				return err == nil && fi.Size() > 4<<20
			})
			if victim == "receiver" {
				to, by = by, to
			}
			if err := by.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if _ = by.Wait(); victim == "receiver" {
				_ = to.Process.Kill() // it would try to send until the link is lost
				_ = to.Wait()
				startProcess(t, &out, &errs, "recv", "in", "--id", "bob")
			}
			if _, err := os.Stat("in/big"); err == nil {
				t.Fatal("the file is there before it is complete")
			}
			var s shownCopy
			r := cli("cp", "big", "bob:", "--json", "--wait", "1m")
			if r.into(t, &s); s.Sent == 0 || s.Sent > size-4<<20 {
				t.Errorf("%+v", s)
			}
			holds(t, "in/big", big, 0o600)
			complete(t, "in")
		})
	}
}

// A part that is damaged, or of another file, is not used.
func TestDamagedPart(t *testing.T) {
	onMesh(t)
	data := random(100_000)
	write(t, "file", data, 0o600)
	receiving(t)
	for _, part := range [][]byte{random(50_000), random(200_000), append(bytes.Clone(data), 1), data[:50_000], nil} {
		write(t, filepath.Join("in", partName("file")), part, 0o600)
		_ = os.Remove("in/file")
		var s shownCopy
		cli("cp", "file", "bob:", "--json").into(t, &s)
		want := int64(len(data))
		if len(part) == 50_000 && bytes.Equal(part, data[:50_000]) {
			want = 50_000
		}
		if s.Sent != want {
			t.Errorf("a part of %d bytes: %d were sent, want %d", len(part), s.Sent, want)
		}
		holds(t, "in/file", data, 0o600)
		complete(t, "in")
	}
	if err := os.MkdirAll("in/"+partsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, "precious", []byte("mine"), 0o600)
	if err := os.Symlink("../../precious", filepath.Join("in", partName("file"))); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove("in/file")
	cli("cp", "file", "bob:").hasStatus(t, 0)
	holds(t, "in/file", data, 0o600)
	holds(t, "precious", []byte("mine"), 0o600)
}

// A hostile sender writes nothing outside of the directory, and what it says about one file is no harm to another.
func TestTraversal(t *testing.T) {
	onMesh(t)
	write(t, "outside/victim", []byte("mine"), 0o600)
	if err := os.MkdirAll("in", 0o755); err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs("outside")
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"in/out": abs, "in/rel": "../outside", "in/link": "../outside/victim"} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	p := receiving(t)
	w := newWire(stream(t, joined(t, "mallory", mesh.Config{}), "bob", filesService))
	ask := func(kind, name string) had {
		t.Helper()
		var h had
		if err := w.say(item{Kind: kind, Name: []byte(name), Size: 4, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if err := w.hear(&h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	for _, name := range []string{
		"", ".", "..", "/", "/etc/x", "../outside/new", "a/../../outside/new", "a/..", "a//b", "./a", "a/", abs + "/new",
		"out/new", "rel/new", "out/deep/new", "a\x00b", strings.Repeat("y", 256), strings.Repeat("z/", 3000) + "z",
		partsDir, partsDir + "/x", ".MESH-PARTS/x",
	} {
		for _, kind := range []string{kindFile, kindDir} {
			if h := ask(kind, name); h.Error == "" {
				t.Fatalf("%s %.60q was taken: %+v", kind, name, h)
			}
		}
	}
	send := func(name string, data []byte, total [32]byte) got {
		t.Helper()
		if h := ask(kindFile, name); h.Error != "" || h.Bytes != 0 {
			t.Fatalf("%q: %+v", name, h)
		}
		if err := w.say(from{0}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.w.Write(data)
		if err := w.say(sum{total[:]}); err != nil {
			t.Fatal(err)
		}
		var g got
		if err := w.hear(&g); err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := send("wrong", []byte("text"), sha256.Sum256([]byte("test"))); !strings.Contains(g.Error, "checksum") {
		t.Errorf("a wrong checksum: %+v", g)
	}
	if g := send("link", []byte("text"), sha256.Sum256([]byte("text"))); g.Error != "" { // the link itself is replaced
		t.Errorf("%+v", g)
	}
	holds(t, "in/link", []byte("text"), 0o600)
	holds(t, "outside/victim", []byte("mine"), 0o600)
	if all, err := os.ReadDir("outside"); err != nil || len(all) != 1 {
		t.Errorf("outside are %v, %v", all, err)
	}
	if all, err := os.ReadDir("."); err != nil || len(all) != 2 {
		t.Errorf("beside are %v, %v", all, err)
	}
	if _, err := os.Stat("in/wrong"); err == nil {
		t.Error("a file with a wrong checksum is there")
	}
	if err := w.say(item{Kind: "nonsense", Name: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	p.err.wait(t, `broke off: an item of kind "nonsense"`)
}

func TestCopyErrors(t *testing.T) {
	onMesh(t)
	write(t, "file", []byte("text"), 0o600)
	write(t, "other/file", []byte("text"), 0o600)
	cli("cp", "file").want(t, 2, "arg")
	cli("cp", "file", "bob").want(t, 2, "with a colon")
	cli("cp", "file", ":").want(t, 2, "with a colon")
	cli("cp", "none", "bob:").want(t, 1, "none")
	cli("cp", "file", "other/file", "bob:").want(t, 2, "the same name")
	cli("recv", "none").want(t, 1, "none", "make the directory first")
	cli("recv", "file").want(t, 1, "file")
	joined(t, "carol", mesh.Config{})
	cli("cp", "file", "carol:").hasStatus(t, 1, "carol takes no files", "mesh recv")
	p := receiving(t, "--allow", "alice", "--once", "--json")
	cli("cp", "file", "bob:").hasStatus(t, 1, "refused", "allow")
	if err := os.Mkdir("in/file", 0o755); err != nil {
		t.Fatal(err)
	}
	cli("cp", "file", "bob:", "--id", "alice").hasStatus(t, 1, "file: the peer: ", "1 of 1 were not copied")
	p.ends(t, 1, "1 files were not taken")
}

func TestRecvOnce(t *testing.T) {
	onMesh(t)
	write(t, "file", []byte("text"), 0o600)
	p := receiving(t, "--once", "--json")
	cli("cp", "file", "bob:", "--id", "alice").hasStatus(t, 0)
	p.ends(t, 0, `{"peer":"bob","dir":"in"}`, `{"from":"alice","name":"file","size":4}`)
}
