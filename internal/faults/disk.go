//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A disk is a small file system in memory, in place of every directory in which a sidecar's own can be made. The one that a sidecar
// has already is hidden by it.
type disk struct {
	r    *run
	path string
}

// roomy is a disk with much room.
const roomy = "size=1m,nr_inodes=1000"

// mountDisk mounts a disk until the end of the row, and makes it the temporary directory.
func (r *run) mountDisk() *disk {
	hidden := os.TempDir()
	d := &disk{r: r, path: "/tmp"}
	mounted := func(path string) {
		r.later(func() { r.stop("unmount", unix.Unmount(path, unix.MNT_DETACH)) })
	}
	r.later(func() { // the directory of the first sidecar, whose agent has not seen it any more
		all, _ := filepath.Glob(filepath.Join(hidden, "mesh-*"))
		for _, name := range all {
			r.stop("clean up", os.RemoveAll(name))
		}
	})
	r.skip("mounts are not allowed here", unix.Mount("faults", d.path, "tmpfs", 0, roomy))
	mounted(d.path)
	for _, path := range []string{"/run/user/" + strconv.Itoa(os.Geteuid()), "/var/tmp", "/dev/shm"} {
		if _, err := os.Stat(path); err == nil {
			r.stop("mount", unix.Mount(d.path, path, "", unix.MS_BIND, ""))
			mounted(path)
		}
	}
	r.stop("environment", os.Setenv("TMPDIR", d.path))
	r.later(func() { r.stop("environment", os.Setenv("TMPDIR", hidden)) })
	return d
}

func (d *disk) remount(flags uintptr, options string) error {
	return unix.Mount("", d.path, "", unix.MS_REMOUNT|flags, options)
}

// fill leaves room for so many files, all of them empty.
func (d *disk) fill(files int) {
	const block = 4 << 10                                                                              // a page
	d.r.stop("fill the disk", os.WriteFile(filepath.Join(d.path, "full"), make([]byte, block), 0o600)) // size=0 would be no limit
	var now unix.Statfs_t
	d.r.stop("fill the disk", unix.Statfs(d.path, &now))
	used := now.Files - now.Ffree
	d.r.stop("fill the disk", d.remount(0, fmt.Sprintf("size=%d,nr_inodes=%d", int64(now.Blocks-now.Bfree)*now.Bsize, used+uint64(files))))
}

// empty makes room.
func (d *disk) empty() { d.r.stop("empty the disk", d.remount(0, roomy)) }
