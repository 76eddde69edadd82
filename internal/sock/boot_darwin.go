package sock

import "golang.org/x/sys/unix"

// Boot returns an id of this host since it was started, which is nobody else's, "" if there is none.
func Boot() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid")
	return id
}
