//go:build linux || darwin

package sock

// Each parameter is a parent directory that TempDirIn tries as TempDir tries os.TempDir() or /tmp.
func TempDirIn(unchecked, shared string) (string, error) {
	return tempDirIn([]parent{{unchecked, nil}, {shared, checkShared}})
}
