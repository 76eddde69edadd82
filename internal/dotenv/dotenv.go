// Package dotenv reads the .env file of a command's working directory, and keeps it from sending secrets where
// its author likes: whoever wrote the directory wrote the file, and that need not be the user.
package dotenv

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/joho/godotenv"
	"github.com/rs/zerolog"
)

const (
	// TrustFlag is the flag by which a user lets a file decide where secrets go that are not in it.
	TrustFlag = "trust-dotenv-with-secrets"
	// TrustVariable is the variable of the environment that does the same.
	TrustVariable = "MESH_TRUST_DOTENV_WITH_SECRETS"
	// TrustUsage describes TrustFlag.
	TrustUsage = "let .env say where secrets go that it does not hold itself, such as a key from the environment; " +
		"also by " + TrustVariable + "=1 in the environment"
)

// The limits of a file. Values may refer to earlier ones ("${NAME}"), so that few bytes can become many: with
// these limits about 100 MB at worst.
const (
	maxBytes      = 64 << 10
	maxLines      = 1000
	maxReferences = 20 // dollar signs
)

// Env is the environment with what a .env file adds to it. It may not be used concurrently.
type Env struct {
	path   string
	lookup func(name string) (string, bool) // the environment
	file   map[string]string                // what the environment does not set
	given  map[string]bool                  // variables whose place a flag has taken
	used   map[string]bool                  // variables that have been taken from the file
}

// Load reads the file at path; lookup is that of the environment, such as os.LookupEnv. A variable that is set in the
// environment, even to nothing, is not taken from the file. A missing file is no error, and Env is never nil. Of a
// file with an invalid line the lines before it are used, as in chatixia-mesh's sidecar; the error then says so.
// Errors never quote the file, which may hold secrets.
func Load(path string, lookup func(string) (string, bool)) (*Env, error) {
	e := &Env{path: path, lookup: lookup, given: map[string]bool{}, used: map[string]bool{}}
	if abs, err := filepath.Abs(path); err == nil {
		e.path = abs
	}
	text, err := read(e.path)
	if err != nil || text == "" {
		return e, err
	}
	vars, bad := parse(text)
	maps.DeleteFunc(vars, func(name, _ string) bool { _, set := lookup(name); return set })
	e.file = vars
	if bad > 0 {
		err = fmt.Errorf("%s: line %d does not have the form NAME=value; only the lines before it are used", e.path, bad)
	}
	return e, err
}

// read returns the text of a file without the byte order mark that some editors put at its start, "" for a file that
// does not exist.
func read(path string) (string, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !fi.Mode().IsRegular():
		return "", fmt.Errorf("%s: not a regular file; not used", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimPrefix(string(b), "\uFEFF")
	switch {
	case len(b) > maxBytes:
		return "", fmt.Errorf("%s: over %d bytes; not used", path, maxBytes)
	case strings.Count(text, "\n") > maxLines:
		return "", fmt.Errorf("%s: over %d lines; not used", path, maxLines)
	case strings.Count(text, "$") > maxReferences:
		return "", fmt.Errorf("%s: over %d dollar signs, which refer to other variables; not used", path, maxReferences)
	}
	return text, nil
}

// parse returns the variables of the lines before the first bad one, and its number, 0 if there is none.
func parse(text string) (vars map[string]string, bad int) {
	lines := strings.SplitAfter(text, "\n")
	for good := len(lines); good > 0; good-- {
		vars, err := godotenv.Unmarshal(strings.Join(lines[:good], ""))
		_, nameless := vars[""] // the parser's result for a last line without "=" and newline
		if err != nil || nameless {
			continue
		}
		if good < len(lines) {
			bad = good + 1
		}
		return vars, bad
	}
	return nil, 1
}

// Get returns the value of a variable, "" if it has none.
func (e *Env) Get(name string) string {
	if v, ok := e.file[name]; ok {
		e.used[name] = true
		return v
	}
	v, _ := e.lookup(name)
	return v
}

// Export puts the file's values of these variables, and of no others, into the environment of the process.
func (e *Env) Export(names []string) error {
	for _, name := range names {
		if _, ok := e.file[name]; !ok {
			continue
		}
		if err := os.Setenv(name, e.Get(name)); err != nil {
			return fmt.Errorf("%s: %s: %w", e.path, name, err)
		}
	}
	return nil
}

// Override says that a flag has taken the place of a variable.
func (e *Env) Override(name string) {
	e.given[name] = true
	delete(e.used, name)
}

// An Aim is the variable of a secret, and the variables that decide where it goes, or who gets what it is for.
type Aim struct {
	Secret string
	At     []string
	What   string // the secret in an error; the variable's name if empty
}

// Report logs what came from the file, and loadErr, the error of Load. It returns an error if the file would decide
// where a secret goes that it does not hold, or who gets what the secret is for, unless trust, the value of TrustFlag, or
// TrustVariable allows that. Call it when all flags have been taken into account.
func (e *Env) Report(log zerolog.Logger, loadErr error, aims []Aim, trust bool) error {
	if loadErr != nil {
		log.Warn().Err(loadErr).Msg(".env not read completely")
	}
	if len(e.used) > 0 {
		log.Info().Str("file", e.path).Strs("variables", slices.Sorted(maps.Keys(e.used))).Msg("settings from .env")
	}
	err := e.checkAims(aims)
	if err != nil && (trust || e.trusted()) {
		log.Warn().Str("file", e.path).Msg(".env is trusted to say where secrets go that it does not hold")
		return nil
	}
	return err
}

// trusted reports whether TrustVariable is set in the environment. The file cannot vouch for itself.
func (e *Env) trusted() bool {
	v, _ := e.lookup(TrustVariable)
	trusted, _ := strconv.ParseBool(v)
	return trusted
}

func (e *Env) checkAims(aims []Aim) error {
	for _, aim := range aims {
		if !e.outside(aim.Secret) {
			continue
		}
		for _, name := range aim.At {
			if e.inFile(name) {
				return fmt.Errorf("%[2]s does not hold %[1]s, but its %[3]s would decide who gets that, or what it gives "+
					"access to; set %[3]s in the environment or by its flag, or, if you trust the file's author, give -%[4]s",
					cmp.Or(aim.What, aim.Secret), e.path, name, TrustFlag)
			}
		}
	}
	return nil
}

// outside reports whether a variable is set, but not by the file.
func (e *Env) outside(name string) bool {
	_, inFile := e.file[name]
	v, _ := e.lookup(name)
	return e.given[name] || !inFile && v != ""
}

// inFile reports whether the value of a variable is the file's.
func (e *Env) inFile(name string) bool {
	return !e.given[name] && e.file[name] != ""
}
