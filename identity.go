package mesh

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/chatixia-ai/mesh/internal/identity"
)

// An IdentityPolicy says which identities peers need: the values of
// Identity.Policy.
type IdentityPolicy string

const (
	// IdentityOff needs none: the signaling server is trusted. An identity that a
	// peer shows is verified all the same, and a wrong one refused.
	IdentityOff IdentityPolicy = "off"
	// IdentityKnown takes peers that have keys for what Identity.KnownPeersFile
	// says. A peer that it does not name is added with the key that it shows, so
	// who is there at the first contact is trusted. Peers without an identity are
	// accepted, unless the file has a key for them or Identity.Required is set.
	IdentityKnown IdentityPolicy = "known"
	// IdentityMember takes only peers that show a statement which one of
	// Identity.Roots has signed.
	IdentityMember IdentityPolicy = "member"
)

// Identity is who this agent is, and whom it believes to be who they say. Without
// it the signaling server vouches for all peers. See "Identity" in
// docs/protocol.md for how it works, and docs/threat-model.md for what it
// protects from.
//
// All of it is names of files and public keys, so that it works the same in a
// forked sidecar. A file must belong to this user or to root, and others must not
// be able to write to it.
type Identity struct {
	// KeyFile has this agent's Ed25519 private key: PKCS #8 in PEM, readable by
	// this user only. `mesh key new` makes one. With a key, peers can verify this
	// agent, whatever the policy. An agent with a key is one peer only: that of its
	// statement, of its self-certifying id, or the first id that the signaling
	// server gives it, which is kept in a file of the same name and ".ids".
	// Default: $MESH_IDENTITY_KEY.
	KeyFile string
	// MeshName is part of everything that is signed: the same for all agents of a
	// mesh, and another one for every mesh with the same keys. At most 128 bytes of
	// UTF-8 without control characters. Default: $MESH_NAME.
	MeshName string
	// Policy says which identities peers need. Default: $MESH_IDENTITY_POLICY, else
	// IdentityOff, but then neither KnownPeersFile nor Roots may be set: who has them
	// says what they are for. With IdentityOff itself the log warns that they are not
	// used.
	Policy IdentityPolicy
	// Required refuses peers without an identity under IdentityKnown;
	// IdentityMember does so by itself. $MESH_IDENTITY_REQUIRED sets it, too.
	Required bool
	// KnownPeersFile has the keys of peers for IdentityKnown, a line for each with
	// its id and its key. It is made if there is none. Agents of one mesh on one
	// host may share it. Default: $MESH_KNOWN_PEERS.
	KnownPeersFile string
	// Roots are the public keys, in base64, that sign the members of the mesh.
	// Default: those of $MESH_ROOTS, separated by commas.
	Roots []string
	// MembershipFile has the statement about this agent, from `mesh key sign`. It is
	// read again when it changes; peers are sent the new one. Default:
	// $MESH_MEMBERSHIP.
	MembershipFile string
	// RevokedFile lists public keys that are refused, one a line. It is read again
	// when it changes, and links to peers with these keys end. Default:
	// $MESH_REVOKED.
	RevokedFile string
}

// withDefaults returns the identity with what the environment adds, and with
// absolute paths.
func (i Identity) withDefaults() (Identity, error) {
	i.Policy = cmp.Or(i.Policy, IdentityPolicy(os.Getenv("MESH_IDENTITY_POLICY")))
	i.MeshName = cmp.Or(i.MeshName, os.Getenv("MESH_NAME"))
	if !i.Required {
		required := cmp.Or(os.Getenv("MESH_IDENTITY_REQUIRED"), "false")
		var err error
		if i.Required, err = strconv.ParseBool(required); err != nil {
			return i, &ConfigError{Field: "Identity.Required", Value: required, Err: errNotBool}
		}
	}
	if len(i.Roots) == 0 {
		i.Roots = strings.FieldsFunc(os.Getenv("MESH_ROOTS"), func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, f := range []struct {
		field, variable string
		path            *string
	}{
		{"KeyFile", "MESH_IDENTITY_KEY", &i.KeyFile},
		{"KnownPeersFile", "MESH_KNOWN_PEERS", &i.KnownPeersFile},
		{"MembershipFile", "MESH_MEMBERSHIP", &i.MembershipFile},
		{"RevokedFile", "MESH_REVOKED", &i.RevokedFile},
	} {
		if *f.path = cmp.Or(*f.path, os.Getenv(f.variable)); *f.path == "" {
			continue
		}
		abs, err := filepath.Abs(*f.path)
		if err != nil {
			return i, &ConfigError{Field: "Identity." + f.field, Value: *f.path, Err: err}
		}
		*f.path = abs
	}
	return i, i.defaultPolicy()
}

// defaultPolicy makes no policy IdentityOff, unless another one seems to be meant. It wants the other defaults filled in.
func (i *Identity) defaultPolicy() error {
	if i.Policy != "" {
		return nil
	}
	i.Policy = IdentityOff
	if unused := i.unused(); len(unused) > 0 {
		return &ConfigError{Field: "Identity.Policy", Err: fmt.Errorf("not set, so that peers would need no identity, but %s is; "+
			"set the policy to member or known, or to off if that is meant", strings.Join(unused, " and "))}
	}
	return nil
}

// unused returns what IdentityOff leaves unused, as a person could have set it.
func (i *Identity) unused() []string {
	var all []string
	if i.Policy != IdentityOff {
		return nil
	}
	if len(i.Roots) > 0 {
		all = append(all, "Roots (MESH_ROOTS)")
	}
	if i.KnownPeersFile != "" {
		all = append(all, "KnownPeersFile (MESH_KNOWN_PEERS)")
	}
	if p := os.Getenv("MESH_IDENTITY_POLICY"); p != "" && IdentityPolicy(p) != IdentityOff {
		all = append(all, "MESH_IDENTITY_POLICY="+p)
	}
	return all
}

func (i *Identity) settings() identity.Settings {
	return identity.Settings{
		KeyFile: i.KeyFile, MeshName: i.MeshName, Policy: identity.Policy(i.Policy), Required: i.Required,
		KnownPeersFile: i.KnownPeersFile, Roots: i.Roots, MembershipFile: i.MembershipFile, RevokedFile: i.RevokedFile,
	}
}
