package main

import (
	"fmt"
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

func checkFiles(root fs.FS, document string, directories []string) (problems []string, err error) {
	text, err := fs.ReadFile(root, document)
	if err != nil {
		return nil, err
	}
	names, err := fileNames(root)
	if err != nil {
		return nil, err
	}
	for _, line := range prose(string(text)) {
		for _, span := range codeSpan.FindAllString(line.text, -1) {
			name := strings.Trim(span, "`")
			if looksLikePath(name) && !found(root, document, name, names) {
				problems = append(problems, fmt.Sprintf("%s:%d: %s does not exist", document, line.number, span))
			}
		}
	}
	unnamed, err := unnamedFiles(root, string(text), directories)
	for _, name := range unnamed {
		problems = append(problems, fmt.Sprintf("%s: does not name %s", document, name))
	}
	return problems, err
}

var (
	pathChars  = regexp.MustCompile(`^[A-Za-z0-9_.*/-]+$`)
	identifier = regexp.MustCompile(`\.[A-Z][A-Za-z0-9_.]*$`) // of a Go package, as in internal/wire.Reader
)

// looksLikePath reports whether code is the path of a file or directory of the repository rather than that of
// a module, of a package of the standard library, or of something else in the file system.
func looksLikePath(code string) bool {
	if !pathChars.MatchString(code) || strings.HasPrefix(code, "/") {
		return false
	}
	if !strings.Contains(code, "/") {
		switch path.Ext(code) {
		case ".go", ".md", ".sh":
			return code != path.Ext(code)
		}
		return false
	}
	first, _, _ := strings.Cut(code, "/")
	if strings.Contains(strings.Trim(first, "."), ".") {
		return false // a module
	}
	std := filepath.Join(build.Default.GOROOT, "src", filepath.FromSlash(identifier.ReplaceAllString(code, "")))
	_, err := os.Stat(std)
	return err != nil
}

// found reports whether a path exists in the repository or beside the document. A name without a directory
// may be that of any file.
func found(root fs.FS, document, name string, names map[string]bool) bool {
	if names[name] {
		return true
	}
	name = strings.TrimSuffix(name, "/...")
	for _, dir := range []string{".", path.Dir(document)} {
		for _, pattern := range []string{name, identifier.ReplaceAllString(name, "")} {
			if matches, err := fs.Glob(root, path.Join(dir, pattern)); err == nil && len(matches) > 0 {
				return true
			}
		}
	}
	return false
}

// fileNames returns the names of all files, without their directories.
func fileNames(root fs.FS) (map[string]bool, error) {
	names := make(map[string]bool)
	err := fs.WalkDir(root, ".", func(_ string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case !d.IsDir():
			names[d.Name()] = true
		}
		return nil
	})
	return names, err
}

// unnamedFiles returns the Go files of directories that text does not name.
func unnamedFiles(root fs.FS, text string, directories []string) (unnamed []string, err error) {
	var files []string
	count := make(map[string]int) // files with the same name
	for _, dir := range directories {
		matches, err := fs.Glob(root, path.Join(dir, "*.go"))
		if err != nil {
			return nil, err
		}
		if len(matches) == 0 {
			return nil, fmt.Errorf("%s: no Go files in this directory", dir)
		}
		for _, file := range matches {
			if !strings.HasSuffix(file, "_test.go") {
				files = append(files, file)
				count[path.Base(file)]++
			}
		}
	}
	for _, file := range files {
		switch {
		case mentions(text, file), count[path.Base(file)] == 1 && mentions(text, path.Base(file)):
		case count[path.Base(file)] > 1:
			unnamed = append(unnamed, file+" by its path (another file has the same name)")
		default:
			unnamed = append(unnamed, file)
		}
	}
	return unnamed, nil
}

// mentions reports whether text has name, and not only as a part of a longer path.
func mentions(text, name string) bool {
	return regexp.MustCompile(`(^|[^A-Za-z0-9_./-])` + regexp.QuoteMeta(name) + `($|[^A-Za-z0-9_/-])`).MatchString(text)
}
