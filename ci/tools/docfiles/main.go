// Command docfiles checks what Markdown documents say about the files of a repository.
//
//	docfiles ROOT files DOCUMENT DIRECTORY...
//	docfiles ROOT links DOCUMENT...
//
// All paths are relative to ROOT. The first form checks that every path in backticks exists, and that every
// Go file of the directories, tests excepted, is named in the document: by its path or, if no other file of
// the directories has the same name, by its name. The second form checks that the targets of relative links
// exist, headings included. Fenced code blocks may name files, but contain neither paths in backticks nor
// links.
package main

import (
	"fmt"
	"io/fs"
	"os"
)

func main() {
	if len(os.Args) < 4 {
		usage()
	}
	root, documents := os.DirFS(os.Args[1]), os.Args[3:]
	var problems []string
	var err error
	switch os.Args[2] {
	case "files":
		problems, err = checkFiles(root, documents[0], documents[1:])
	case "links":
		problems, err = checkLinks(root, documents)
	default:
		usage()
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docfiles:", err)
	}
	if err != nil || len(problems) > 0 {
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: docfiles ROOT files DOCUMENT DIRECTORY...\n       docfiles ROOT links DOCUMENT...")
	os.Exit(2)
}

func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}
