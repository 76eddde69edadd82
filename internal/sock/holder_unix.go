//go:build linux || darwin

package sock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// What errors say about who is in the way. In a shared directory such as /tmp any user can hold a name, one beside it
// or a lock, and nothing but another directory helps.

// process returns the user and the process at the other end of a connection, as far as the system tells: after a
// connect those that listen.
func process(c net.Conn) string {
	var uid int
	if peer(c, func(fd int) (err error) { uid, err = peerUID(fd); return err }) != nil {
		return "unknown"
	}
	who := "uid " + strconv.Itoa(uid)
	if pid, ok := PeerPID(c); ok {
		who += ", pid " + strconv.Itoa(pid)
	}
	return who
}

// inUse returns the error about a path on which who listens, "" if that is not known.
func inUse(who string) error {
	if who != "" {
		who = ": " + who
	}
	return fmt.Errorf("%w%s; stop it or choose another path", ErrInUse, who)
}

// checkFile returns an error if the file at path is not a socket of this user.
func checkFile(path string, fi os.FileInfo) error {
	uid := owner(fi)
	if fi.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%w: its mode is %v, and it belongs to uid %d; remove it or choose another path", ErrNotSocket, fi.Mode(), uid)
	}
	if uid == os.Geteuid() {
		return nil
	}
	err := fmt.Errorf("%w: uid %d, and this process is uid %d", ErrOwner, uid, os.Geteuid())
	if who, live, _ := listening(path); live && who != "" {
		err = fmt.Errorf("%w; the process that listens is %s", err, who)
	}
	return err
}

// advise adds to an error about path how to get out of the way of other users, if it is in their reach.
func advise(path string, err error) error {
	held := false
	for _, target := range []error{ErrInUse, ErrNotSocket, ErrOwner, ErrPeer, ErrLocked} {
		held = held || errors.Is(err, target)
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	fi, statErr := os.Stat(dir)
	if !held || statErr != nil || fi.Mode().Perm()&0o022 == 0 {
		return err
	}
	return fmt.Errorf("%w; other users can hold names in %s: let the agent and the sidecar use a path in a directory of this user, such as %s",
		err, filepath.Clean(dir), privatePath(name))
}

// privatePath returns a path for a socket in a directory to which only this user can write.
func privatePath(name string) string {
	dirs := []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(os.Geteuid())}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, home)
	}
	for _, dir := range dirs {
		if fi, err := os.Stat(dir); err == nil && filepath.IsAbs(dir) && checkPrivate(fi) == nil {
			return filepath.Join(dir, name)
		}
	}
	return "$XDG_RUNTIME_DIR/" + name
}
