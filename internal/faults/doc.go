// Command faults does to agents what happens to them in the field: processes are killed and stand still, networks fail and
// lose packets, the signaling server restarts, peers are slow. Each row of its table is a fault with what must hold. It
// prints one line per row: what was counted, and how long it took.
//
//	go run ./internal/faults -quick -run 'sidecar|cut'
//
// docs/guarantees.md has the figures, and what a user can rely on.
package main
