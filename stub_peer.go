package mesh

import "context"

// checkCredentials is to be replaced by the real one in peer.go.
func checkCredentials(ctx context.Context, _ settings) error {
	<-ctx.Done()
	return nil
}
