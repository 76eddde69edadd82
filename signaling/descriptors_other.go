//go:build !unix

package signaling

import "math"

// descriptors returns how many files this process may have open: there is no limit to ask for.
func descriptors() int { return math.MaxInt32 }
