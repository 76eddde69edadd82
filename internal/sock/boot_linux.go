package sock

import (
	"os"
	"strings"
)

// Boot returns an id of this host since it was started, which is nobody else's, "" if there is none.
func Boot() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}
