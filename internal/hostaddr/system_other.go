//go:build !linux && !darwin

package hostaddr

import (
	"errors"
	"os"
)

// lost never happens.
var lost = errors.ErrUnsupported

// listen fails: the addresses are looked at again and again.
func listen() (*os.File, error) { return nil, errors.ErrUnsupported }

// unusable knows nothing: an address that is tentative counts.
func unusable() map[interfaceAddr]bool { return nil }
