package main

// Servers and clients that others have written, by way of mesh serve and mesh forward, all of them processes.

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chatixia-ai/mesh/internal/testutil"
)

// much is how many bytes go one way where the amount matters.
const much = 100_000_000

// curl reads, writes, and does so many times over, from and to nginx.
func TestForwardHTTP(t *testing.T) {
	curl, nginx := needs(t, "curl"), needs(t, "/usr/sbin/nginx")
	onMesh(t)
	dir := testutil.ShortDir(t)
	socket := startNginx(t, nginx, dir)
	address, _ := startPair(t, "unix:"+socket)
	url := "http://" + address + "/"
	get := func(args ...string) *exec.Cmd {
		return foreign(curl, append([]string{"-q", "--silent", "--show-error", "--fail"}, args...)...)
	}

	sum := randomFile(t, filepath.Join(dir, "www", "much"), much)
	if got := sumOf(t, get(url+"much")); got != sum {
		t.Errorf("the checksum of what curl has got is %s, want %s", got, sum)
	}
	prints(t, get("--upload-file", filepath.Join(dir, "www", "much"), url+"sent"))
	if got := sumOf(t, foreign("cat", filepath.Join(dir, "www", "sent"))); got != sum {
		t.Errorf("the checksum of what curl has sent is %s, want %s", got, sum)
	}

	some := randomFile(t, filepath.Join(dir, "www", "some"), 5_000_000)
	var all sync.WaitGroup
	for range 6 {
		cmd := get(url + "some")
		all.Go(func() {
			if got := sumOf(t, cmd); got != some {
				t.Errorf("one of several has got the checksum %s, want %s", got, some)
			}
		})
	}
	all.Wait()

	// The connections that curl makes for three files: one, which is kept.
	kept := get("--write-out", "%{num_connects} %{size_download}\n", "-o", "a", "-o", "b", "-o", "c",
		url+"some", url+"some", url+"some")
	if got, want := prints(t, kept), "1 5000000\n0 5000000\n0 5000000\n"; got != want {
		t.Errorf("connections and bytes are\n%swant\n%s", got, want)
	}
}

// startNginx starts a server of the files in www, which it also writes, and returns its socket.
func startNginx(t *testing.T, nginx, dir string) (socket string) {
	t.Helper()
	socket = filepath.Join(dir, "http")
	conf := filepath.Join(dir, "conf")
	writeFile(t, conf, `
daemon off;
user root;
pid pid;
events {}
http {
	access_log off;
	client_max_body_size 0;
	client_body_temp_path temp;
	proxy_temp_path temp;
	fastcgi_temp_path temp;
	uwsgi_temp_path temp;
	scgi_temp_path temp;
	server {
		listen unix:`+socket+`;
		root www;
		dav_methods PUT;
	}
}
`)
	if err := os.Mkdir(filepath.Join(dir, "www"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := begin(t, foreign(nginx, "-p", dir, "-c", conf, "-e", "stderr"), syscall.SIGTERM)
	s.until(t, "the server", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return socket
}

// ssh runs commands at sshd, whose input, output and exit status arrive.
func TestForwardSSH(t *testing.T) {
	ssh, keygen, sshd := needs(t, "ssh"), needs(t, "ssh-keygen"), needs(t, "/usr/sbin/sshd")
	onMesh(t)
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		prints(t, foreign(keygen, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)))
	}
	address, _ := startPair(t, startSSHD(t, sshd, dir))
	args := sshArgs(t, dir, address)
	remote := func(command string) *exec.Cmd { return foreign(ssh, append(args, command)...) }

	cmd := remote("echo out; echo err >&2; exit 7")
	var out, errs output
	cmd.Stdout, cmd.Stderr = &out, &errs
	if _ = finish(cmd); cmd.ProcessState.ExitCode() != 7 || out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("%v with\n%s%s", cmd.ProcessState, &out, &errs)
	}

	path := filepath.Join(dir, "much")
	sum := randomFile(t, path, much)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	there := remote("sha256sum")
	there.Stdin = file
	if got := prints(t, there); got != sum+"  -\n" {
		t.Errorf("the checksum of what has got there is %s, want %s", got, sum)
	}
	if got := sumOf(t, remote("cat '"+path+"'")); got != sum {
		t.Errorf("the checksum of what has come back is %s, want %s", got, sum)
	}
}

// sshArgs are the arguments of ssh before a command, with the keys in dir.
func sshArgs(t *testing.T, dir, address string) []string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(address)
	known := filepath.Join(dir, "known")
	writeFile(t, known, fmt.Sprintf("[%s]:%s %s", host, port, key))
	return slices.Clip([]string{
		"-F", "none", "-i", filepath.Join(dir, "user"), "-p", port, "-l", me.Username, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
		"-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known, host,
	})
}

// startSSHD starts a server for this user, with the keys in dir, and returns its address.
func startSSHD(t *testing.T, sshd, dir string) (address string) {
	t.Helper()
	if os.Getuid() == 0 { // as its service does; it is not used, but has to be there
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port := reservePort(t)
	conf := filepath.Join(dir, "conf")
	writeFile(t, conf, fmt.Sprintf(`
ListenAddress 127.0.0.1
Port %d
PidFile none
HostKey %s/host
AuthorizedKeysFile %[2]s/user.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
`, port, dir))
	s := begin(t, foreign(sshd, "-D", "-e", "-f", conf), syscall.SIGTERM)
	s.until(t, "the server", func() bool { return strings.Contains(s.out.String(), "Server listening on") })
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// reservePort returns a TCP port of 127.0.0.1 for a program that cannot ask the system for one. Until the end of the test
// the system gives it to nobody else. One that asks for it can listen there, as the socket that has it does not.
func reservePort(t *testing.T) (port int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := cmp.Or(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*syscall.SockaddrInet4).Port
}

// psql fills and reads a table of PostgreSQL, and cancels a query, for which it makes a second connection.
func TestForwardPostgres(t *testing.T) {
	d, _ := startDatabase(t)
	rows := manyRows(100_000)
	prints(t, d.remote("CREATE TABLE many (n int, text text)"))
	fill := d.remote("COPY many FROM STDIN")
	fill.Stdin = strings.NewReader(rows)
	prints(t, fill)
	if got := prints(t, d.remote("SELECT count(*), sum(n), max(text) FROM many")); got != "100000|5000050000|row 99999\n" {
		t.Errorf("what has arrived is %s", got)
	}
	if got := prints(t, d.remote("COPY (SELECT * FROM many ORDER BY n) TO STDOUT")); got != rows {
		t.Errorf("%d bytes have come back, not the %d that were sent", len(got), len(rows))
	}

	slow := d.startSlow(t)
	_ = slow.Process.Signal(syscall.SIGINT)
	slow.fails(t, 1, "canceling statement due to user request")
}

// A query during which bob's mesh serve ends or is killed fails, at both ends. The next one goes by way of the same mesh
// forward to the next bob.
func TestForwardToRestarted(t *testing.T) {
	d, bob := startDatabase(t)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		slow := d.startSlow(t)
		_ = bob.Process.Signal(signal)
		testutil.Take(t, "the end of bob", bob.ended)
		slow.fails(t, 2, "connection to server was lost")
		testutil.Eventually(t, "the end of the query", func() bool { return d.slow(t) == 0 })
		bob = serveAsBob(t, d.socket())
		if got := prints(t, d.remote("SELECT 6*7")); got != "42\n" {
			t.Errorf("after %v there is %s", signal, got)
		}
	}
}

// A database is a PostgreSQL that can be reached by way of its socket in dir and by way of mesh forward.
type database struct{ bin, dir, address string }

func startDatabase(t *testing.T) (d *database, bob *background) {
	t.Helper()
	d = &database{bin: filepath.Dir(needs(t, "/usr/lib/postgresql/*/bin/postgres"))}
	onMesh(t)
	d.dir = startPostgres(t, d.bin)
	d.address, bob = startPair(t, d.socket())
	return d, bob
}

func (d *database) socket() string { return "unix:" + filepath.Join(d.dir, ".s.PGSQL.5432") }

func (d *database) direct(query string) *exec.Cmd { return d.psql(d.dir, "5432", query) }

func (d *database) remote(query string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(d.address)
	return d.psql(host, port, query)
}

func (d *database) psql(host, port, query string) *exec.Cmd {
	return foreign(filepath.Join(d.bin, "psql"), "-X", "-q", "-A", "-t", "-h", host, "-p", port, "-U", "postgres", "-c", query)
}

// slowQuery takes longer than any test.
const slowQuery = "SELECT pg_sleep(1000)"

// startSlow begins the slow query from afar, and blocks until it runs.
func (d *database) startSlow(t *testing.T) *background {
	t.Helper()
	p := begin(t, d.remote(slowQuery), syscall.SIGTERM)
	p.until(t, "the query", func() bool { return d.slow(t) == 1 })
	return p
}

// slow returns how many slow queries there are.
func (d *database) slow(t *testing.T) int {
	t.Helper()
	count := d.direct("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '" + slowQuery + "'")
	n, err := strconv.Atoi(strings.TrimSpace(prints(t, count)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startPostgres starts a server without TCP, and returns the directory of its Unix socket. It refuses to be root, so then it
// is another user, who can reach the directory, because it is in /tmp itself.
func startPostgres(t *testing.T, bin string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	as := new(syscall.SysProcAttr)
	if os.Getuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		as.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := foreign(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, as
		return cmd
	}
	data := filepath.Join(dir, "data")
	prints(t, run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"))
	s := begin(t, run("postgres", "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories="+dir, "-c", "fsync=off",
		"-c", "client_connection_check_interval=100ms"), syscall.SIGINT)
	s.until(t, "the server", func() bool { return strings.Contains(s.out.String(), "ready to accept connections") })
	return dir
}

// nobody is the id of a user without rights, by convention.
const nobody = 65534

// manyRows returns rows of two columns, numbered from 1, as COPY has them.
func manyRows(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "%d\trow %d\n", i+1, i+1)
	}
	return text.String()
}

// needs returns the path of a program, which is given by its name or a pattern of paths. The test is skipped where it is
// missing, and fails in the full suite.
func needs(t *testing.T, name string) string {
	t.Helper()
	if paths, _ := filepath.Glob(name); len(paths) > 0 {
		name = paths[len(paths)-1]
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case testutil.Full():
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}

// startPair makes what listens at an address a service of bob's, and that service a local port, whose address it returns.
func startPair(t *testing.T, to string) (address string, bob *background) {
	t.Helper()
	bob = serveAsBob(t, to)
	forward := startMesh(t, "forward", "0", "bob:service")
	return forward.out.after(t, "forwarding "), bob
}

func serveAsBob(t *testing.T, to string) *background {
	t.Helper()
	bob := startMesh(t, "serve", "service", "--to", to, "--id", "bob")
	bob.until(t, "the service", func() bool { return strings.Contains(bob.out.String(), "serving "+to+" at bob:service\n") })
	return bob
}

// startMesh starts the command that users run.
func startMesh(t *testing.T, args ...string) *background {
	t.Helper()
	path, err := builtMesh()
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, exec.Command(path, args...), syscall.SIGINT)
}

// builtMesh builds the command, once and never with -race: with that, much would take ten times as long. The other tests
// of the command run the same code with -race.
var builtMesh = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programs, "mesh")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path)
	build.Dir = sources
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building mesh: %w\n%s", err, out)
	}
	return path, nil
})

// foreign returns a command without the settings of whoever runs the test.
func foreign(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C"}
	cmd.WaitDelay = limit // for what it has started
	return cmd
}

// prints runs a program, which must succeed, and returns what it prints.
func prints(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errs output
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := finish(cmd); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &errs)
	}
	return out.String()
}

// sumOf runs a program, which must succeed, and returns the checksum of what it prints.
func sumOf(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	sum := sha256.New()
	var errs output
	cmd.Stdout, cmd.Stderr = sum, &errs
	if err := finish(cmd); err != nil {
		t.Errorf("%v: %v\n%s", cmd, err, &errs)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// finish runs a program, and kills it if it takes too long.
func finish(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	late := time.AfterFunc(testutil.Patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	return cmd.Wait()
}

// A background program runs beside the test.
type background struct {
	*exec.Cmd
	out   output
	ended chan struct{}
}

// begin starts a program that a signal ends at the end of the test, if it has not ended by then.
func begin(t *testing.T, cmd *exec.Cmd, stop syscall.Signal) *background {
	t.Helper()
	p := &background{Cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // also for those that it has started, which have its output
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(stop)
		select {
		case <-p.ended:
		case <-time.After(limit):
			_ = cmd.Process.Kill()
			<-p.ended
			t.Errorf("%v does not end\n%s", cmd, &p.out)
		}
	})
	return p
}

// until blocks until something about a program that keeps running is so.
func (p *background) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	testutil.Eventually(t, what, func() bool {
		select {
		case <-p.ended:
			t.Fatalf("%v has ended\n%s", p.Cmd, &p.out)
		default:
		}
		return ok()
	})
}

// fails blocks until a program has failed, and checks how.
func (p *background) fails(t *testing.T, status int, says string) {
	t.Helper()
	testutil.Take(t, "the end of a program", p.ended)
	if got := p.ProcessState.ExitCode(); got != status || !strings.Contains(p.out.String(), says) {
		t.Errorf("%v has status %d, want %d with %q\n%s", p.Cmd, got, status, says, &p.out)
	}
}

// randomFile makes a file, and returns its checksum.
func randomFile(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, sum), rand.Reader, size)
	if err := cmp.Or(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
