package pace

import (
	"sync"
	"time"
)

// maxSources bounds the sources that Sources knows. There are more only if more than maxSources of them have done
// something within a few moments; the rest then share one bucket.
const maxSources = 10_000

// Sources paces what each source does, such as an address or a peer. Its methods may be called concurrently.
type Sources[K comparable] struct {
	rate Rate

	mu      sync.Mutex
	buckets map[K]Bucket // others have their whole burst
	swept   time.Time
}

// NewSources returns the pace of sources, the same for each.
func NewSources[K comparable](r Rate) *Sources[K] {
	return &Sources[K]{rate: r, buckets: map[K]Bucket{}}
}

// Wait returns how long it takes until source may do one more, 0 if it may now.
func (s *Sources[K]) Wait(source K) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	b := s.buckets[s.keyLocked(source, now)]
	return b.Wait(now, s.rate)
}

// Take counts one event of source, and reports whether it is allowed.
func (s *Sources[K]) Take(source K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	key := s.keyLocked(source, now)
	b := s.buckets[key]
	if b.Take(now, s.rate) > 0 {
		return false
	}
	s.buckets[key] = b
	return true
}

// keyLocked returns the key of source's bucket: its own, or the zero key for all those for which there is no room.
func (s *Sources[K]) keyLocked(source K, now time.Time) K {
	if _, known := s.buckets[source]; known || len(s.buckets) < maxSources {
		return source
	}
	if now.Sub(s.swept) >= s.rate.Every {
		s.swept = now
		for k, b := range s.buckets {
			if !b.Whole().After(now) {
				delete(s.buckets, k)
			}
		}
	}
	if len(s.buckets) < maxSources {
		return source
	}
	var rest K
	return rest
}
