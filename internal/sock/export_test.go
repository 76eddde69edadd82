//go:build linux || darwin

package sock

// Each parameter is a parent directory that NewDirIn tries as NewDir tries os.TempDir() or /tmp.
func NewDirIn(unchecked, shared string) (*Dir, error) {
	return newDirIn([]parent{{unchecked, nil}, {shared, checkShared}})
}
