package archtest

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "bootlane"

// pkg is the source of one package.
type pkg struct {
	path  string // below the module: internal/lane
	fset  *token.FileSet
	files []file
	info  *types.Info // of production files: which name means what
	scope *types.Scope
}

type file struct {
	name string
	src  []byte
	ast  *ast.File
	test bool
}

// tree returns every package of the module.
func tree(t *testing.T) []pkg {
	t.Helper()
	root := filepath.Join("..", "..")
	sources := map[string]map[string][]byte{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if _, err := os.Stat(filepath.Join(p, "go.mod")); d.IsDir() && rel != "." && err == nil {
			return filepath.SkipDir // a module of its own
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		if sources[dir] == nil {
			sources[dir] = map[string][]byte{}
		}
		sources[dir][d.Name()] = src
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []pkg
	for _, dir := range slices.Sorted(maps.Keys(sources)) {
		out = append(out, parse(t, dir, sources[dir]))
	}
	if len(out) < 10 {
		t.Fatalf("only %d packages found below %s", len(out), root)
	}
	return out
}

// parse makes a pkg of the files of one directory, by name. Imports are not
// loaded: all that is needed of types is which package-level name is meant.
func parse(t *testing.T, dir string, sources map[string][]byte) pkg {
	t.Helper()
	p := pkg{path: dir, fset: token.NewFileSet(), info: &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}}
	var production []*ast.File
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		tree, err := parser.ParseFile(p.fset, path.Join(dir, name), sources[name], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		f := file{name, sources[name], tree, strings.HasSuffix(name, "_test.go")}
		p.files = append(p.files, f)
		if !f.test {
			production = append(production, tree)
		}
	}
	conf := types.Config{Importer: nothing{}, Error: func(error) {}, FakeImportC: true}
	checked, _ := conf.Check(dir, p.fset, production, p.info) // errors are about the imports we left out
	p.scope = checked.Scope()
	return p
}

// nothing imports empty packages.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	return nil, os.ErrNotExist
}

func (p pkg) at(pos token.Pos) string {
	at := p.fset.Position(pos)
	return at.Filename + ":" + strconv.Itoa(at.Line)
}

// production returns the files that are not tests.
func (p pkg) production() []file {
	return slices.DeleteFunc(slices.Clone(p.files), func(f file) bool { return f.test })
}

// imports returns the import paths of a file with their positions.
func (f file) imports() map[string]token.Pos {
	out := map[string]token.Pos{}
	for _, i := range f.ast.Imports {
		if s, err := strconv.Unquote(i.Path.Value); err == nil {
			out[s] = i.Pos()
		}
	}
	return out
}

// lines counts the lines that hold anything but blanks and comments.
func (f file) lines() int {
	fset := token.NewFileSet()
	tf := fset.AddFile(f.name, -1, len(f.src))
	var s scanner.Scanner
	s.Init(tf, f.src, nil, 0)
	seen := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return len(seen)
		}
		if tok == token.SEMICOLON && lit == "\n" {
			continue
		}
		first := tf.Line(pos)
		for l := range strings.Count(lit, "\n") + 1 {
			seen[first+l] = true
		}
	}
}

// within reports whether a package is in a list of packages and folders.
func within(list []string, pkg string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return s == pkg || strings.HasSuffix(s, "/") && strings.HasPrefix(pkg, s) })
}
