package signal

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// TURNCredentials returns the ephemeral credentials that a TURN server with the same secret accepts until
// expiry, as coturn does with use-auth-secret: the user is "<unix expiry>:mesh", the password the HMAC-SHA1 of
// the user in base64.
func TURNCredentials(secret string, expiry time.Time) (user, password string) {
	user = strconv.FormatInt(expiry.Unix(), 10) + ":mesh"
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(user)) // a hash never fails to write
	return user, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// TURNExpiry returns when ephemeral credentials expire, whose user names are "<unix expiry>:<anything>" (the TURN REST
// API draft, draft-uberti-behave-turn-rest); the zero time for others.
func TURNExpiry(user string) time.Time {
	digits, _, ok := strings.Cut(user, ":")
	expiry, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || expiry > 1<<40 {
		return time.Time{}
	}
	return time.Unix(expiry, 0)
}
