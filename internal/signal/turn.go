package signal

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"strconv"
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
