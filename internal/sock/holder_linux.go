package sock

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// lockHolder returns the user and the process that have locked a file with flock, "" if the system does not tell. See
// proc_locks(5).
func lockHolder(f *os.File) string {
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	st := fi.Sys().(*syscall.Stat_t)
	dev := uint64(st.Dev)
	major, minor := dev>>8&0xfff|dev>>32&^0xfff, dev&0xff|dev>>12&^0xff
	file := fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != file {
			continue
		}
		who := "pid " + field[4]
		if fi, err := os.Stat("/proc/" + field[4]); err == nil {
			who = fmt.Sprintf("uid %d, %s", owner(fi), who)
		}
		return who
	}
	return ""
}
