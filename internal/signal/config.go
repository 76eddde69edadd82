package signal

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/rs/zerolog"
)

// Settings say where the server is and who connects to it: plain data, which can be passed to another process.
type Settings struct {
	URL      string `json:"url"`       // the WebSocket: ws, wss, http or https
	TokenURL string `json:"token_url"` // the token exchange: http or https
	// APIKey is sent in the header X-API-Key of the token exchange, of the WebSocket's handshake if that goes to the same
	// host by the same scheme, to the path beside it (/ws and /api/token), and of the request for ICE servers if
	// credentials in TokenURL leave no room for the token there, and nowhere else: not in a log, an error or a
	// redirected request. An empty key asks a server in development mode for a random id.
	APIKey string `json:"api_key"`
	// Started is when this instance was started. Of two instances with the same API key, the server keeps
	// the one started later. The zero time is not sent.
	Started time.Time `json:"started"`
	// IfFree registers only while no other connection has the peer id, and gives way to any that comes. Only our own server
	// knows that: another one lets this client take the other's place.
	IfFree bool `json:"if_free,omitempty"`
	// CAFile names a PEM file with certificates of authorities that are trusted besides the system's.
	// CertFile and KeyFile name the PEM files of a client certificate and its key. The files are read again
	// for every request, so that a renewed certificate is used at the next connection.
	CAFile   string `json:"ca_file,omitempty"`
	CertFile string `json:"cert_file,omitempty"`
	KeyFile  string `json:"key_file,omitempty"`
}

// Config configures a Client.
type Config struct {
	Settings
	// FetchICE reports the server's ICE servers to Handler.ICEServers. If they do not come with the token,
	// they are asked for at TokenURL with its last path element, token, replaced by config.
	FetchICE bool
	// CheckID, if not nil, is asked whether this client may be the peer that its token is for. Its error keeps the
	// client from connecting, and is one that only a person can mend.
	CheckID func(id string) error
	// OwnID, if not nil, returns the only id that CheckID accepts, "" if that is any. known is false if the id has to be
	// checked before the client is registered; otherwise our own server may register it with the handshake.
	OwnID func() (id string, known bool)
	Log   zerolog.Logger // silent by default
	// HTTPClient's transport is used for all requests, including the WebSocket handshake. Nil means one of
	// our own. Its redirect policy is not used: following a redirect would carry the key elsewhere.
	HTTPClient *http.Client
}

// Check returns an error about the first field that cannot work, usually a *FieldError, or nil. It reads the
// files that are named.
func (c Config) Check() error {
	if err := c.checkLasting(); err != nil {
		return err
	}
	_, err := c.httpClient(context.Background())
	return err
}

// checkLasting is the part of Check whose result lasts: what the files hold may change.
func (c Config) checkLasting() error {
	if err := CheckURL(c.URL, "ws", "wss", "http", "https"); err != nil {
		return &FieldError{"URL", err}
	}
	if err := CheckURL(c.TokenURL, "http", "https"); err != nil {
		return &FieldError{"TokenURL", err}
	}
	if c.usesFiles() && c.HTTPClient != nil && c.HTTPClient.Transport != nil {
		if _, ok := c.HTTPClient.Transport.(*http.Transport); !ok {
			return fmt.Errorf("CAFile, CertFile: cannot be used with an HTTPClient whose transport is a %T", c.HTTPClient.Transport)
		}
	}
	return nil
}

func (c Config) usesFiles() bool { return c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" }
