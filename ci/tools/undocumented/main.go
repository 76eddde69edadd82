// Command undocumented lists the exported identifiers below a directory that have no doc comment, in the
// files for every operating system, and fails if there are any. (staticcheck checks only the form of
// existing comments.) A comment on a group of constants, variables or types counts for each of them.
// Methods whose meaning the standard library defines (Error, Unwrap, Is, As, String) need none.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: undocumented DIRECTORY")
		os.Exit(2)
	}
	missing, err := walk(os.Args[1])
	for _, m := range missing {
		fmt.Println(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || len(missing) > 0 {
		os.Exit(1)
	}
}

// walk checks every Go file below root, except those of other modules.
func walk(root string) (missing []string, err error) {
	fset := token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root || d.Name() == ".git" || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if file.Name.Name == "main" {
			return nil
		}
		for _, name := range undocumented(file) {
			pos := fset.Position(name.Pos())
			rel, err := filepath.Rel(root, pos.Filename)
			if err != nil {
				return err
			}
			missing = append(missing, fmt.Sprintf("%s:%d: exported %s has no doc comment", rel, pos.Line, name.Name))
		}
		return nil
	})
	return missing, err
}

var fixed = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "As": true, "String": true}

func undocumented(file *ast.File) (names []*ast.Ident) {
	need := func(name *ast.Ident, docs ...*ast.CommentGroup) {
		for _, doc := range docs {
			if strings.TrimSpace(doc.Text()) != "" {
				return
			}
		}
		if name.IsExported() {
			names = append(names, name)
		}
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil || ast.IsExported(receiver(decl)) && !fixed[decl.Name.Name] {
				need(decl.Name, decl.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					need(spec.Name, decl.Doc, spec.Doc, spec.Comment)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						need(name, decl.Doc, spec.Doc, spec.Comment)
					}
				}
			}
		}
	}
	return names
}

// receiver returns the name of the type that a method belongs to.
func receiver(decl *ast.FuncDecl) string {
	expr := decl.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}
