package signaling

import (
	"sync"
	"time"
)

// maxSources bounds the sources that a quota knows. There are more only if more than maxSources of them have done
// something within a few moments; the rest then share one account.
const maxSources = 10_000

// quota counts what each source, such as an address, does, and says when one has done too much lately. It is a token
// bucket: burst at once, and one more after every.
type quota[K comparable] struct {
	burst int
	every time.Duration

	mu    sync.Mutex
	whole map[K]time.Time // when a source will have its whole burst again; others have it now
	swept time.Time
}

func newQuota[K comparable](burst int, every time.Duration) *quota[K] {
	return &quota[K]{burst: burst, every: every, whole: map[K]time.Time{}}
}

// wait returns how long it takes until source may do one more, 0 if it may now.
func (q *quota[K]) wait(source K) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	return q.untilNext(q.owedLocked(q.accountLocked(source, now), now))
}

// spend counts one of source, and reports whether it was allowed.
func (q *quota[K]) spend(source K) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	account := q.accountLocked(source, now)
	owed := q.owedLocked(account, now)
	if q.untilNext(owed) > 0 {
		return false
	}
	q.whole[account] = now.Add(owed + q.every)
	return true
}

// owedLocked returns how long it takes until an account is whole again.
func (q *quota[K]) owedLocked(account K, now time.Time) time.Duration {
	return max(0, q.whole[account].Sub(now))
}

// untilNext returns how long it takes until an account that owes so much may be charged for one.
func (q *quota[K]) untilNext(owed time.Duration) time.Duration {
	return max(0, owed-time.Duration(q.burst-1)*q.every)
}

// accountLocked returns the key of source in the table, or that of all those for which there is no room.
func (q *quota[K]) accountLocked(source K, now time.Time) K {
	if _, known := q.whole[source]; known || len(q.whole) < maxSources {
		return source
	}
	if now.Sub(q.swept) >= q.every {
		q.swept = now
		for k, t := range q.whole {
			if !t.After(now) {
				delete(q.whole, k)
			}
		}
	}
	if len(q.whole) < maxSources {
		return source
	}
	var rest K
	return rest
}
