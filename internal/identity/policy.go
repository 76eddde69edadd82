package identity

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// A Policy says which identities peers need.
type Policy string

const (
	Off    Policy = "off"    // none; one that is shown must be right
	Known  Policy = "known"  // that of the file of known peers; the first one seen is added to it
	Member Policy = "member" // one with a statement that a root has signed
)

// Settings are plain data, which can be passed to another process. The zero value is policy Off without a key.
type Settings struct {
	KeyFile        string   `json:"key_file,omitempty"`         // the agent's private key, PKCS #8 in PEM
	MeshName       string   `json:"mesh_name,omitempty"`        // part of everything that is signed
	Policy         Policy   `json:"policy,omitempty"`           // "" means Off
	Required       bool     `json:"required,omitempty"`         // Known: peers without an identity are refused
	KnownPeersFile string   `json:"known_peers_file,omitempty"` // of Known
	Roots          []string `json:"roots,omitempty"`            // of Member: public keys, base64
	MembershipFile string   `json:"membership_file,omitempty"`  // the agent's own statement
	RevokedFile    string   `json:"revoked_file,omitempty"`     // keys that are refused, whatever the policy
}

// A FieldError is about one field of Settings.
type FieldError struct {
	Field, Value string
	Err          error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// Demand returns what is demanded of the identities of peers, in the words of the link's ready: "known", "required",
// "member", or "" for nothing.
func (s Settings) Demand() string {
	switch {
	case s.Policy == Known && s.Required:
		return "required"
	case s.Policy == Off:
		return ""
	}
	return string(s.Policy)
}

// maxMeshName is the length in bytes of the longest name of a mesh, that of the longest peer id.
const maxMeshName = 128

// CheckMeshName returns why a mesh cannot have this name, nil if it can, as it can have none. What is signed has the
// name as it is, and JSON carries only UTF-8.
func CheckMeshName(name string) error {
	if len(name) > maxMeshName {
		return fmt.Errorf("the name has %d bytes, and at most %d are allowed", len(name), maxMeshName)
	}
	if !utf8.ValidString(name) {
		return errors.New("the name is not valid UTF-8")
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("%U in the name is a control character", r)
		}
	}
	return nil
}

func checkName(s Settings) error {
	if err := CheckMeshName(s.MeshName); err != nil {
		return &FieldError{Field: "MeshName", Err: err}
	}
	return nil
}

// checkPolicy returns an error for settings that do not fit together.
func checkPolicy(s Settings) error {
	needs := func(field, what string) error {
		return &FieldError{Field: field, Err: fmt.Errorf("empty, and policy %s needs %s", s.Policy, what)}
	}
	switch s.Policy {
	case "", Off:
		if s.Required {
			return &FieldError{"Required", "true", errors.New("policy off requires nothing; use policy known or member")}
		}
	case Known:
		if s.KnownPeersFile == "" {
			return needs("KnownPeersFile", "a file for the keys of the peers")
		}
	case Member:
		switch {
		case len(s.Roots) == 0:
			return needs("Roots", "the public key that signs the members")
		case s.KeyFile == "":
			return needs("KeyFile", "a key of this agent's own; make one with: mesh key new")
		case s.MembershipFile == "":
			return needs("MembershipFile", "a statement about this agent; make one with: mesh key sign")
		}
	default:
		return &FieldError{"Policy", string(s.Policy), errors.New("want off, known or member")}
	}
	return nil
}
