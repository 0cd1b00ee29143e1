package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
)

// check reads one package and returns what it finds wrong, each with its place.
type check struct {
	name string
	run  func(p pkg) []string
}

func checks() []check {
	return []check{
		{"imports", importTable},
		{"narrow imports", narrowImports},
		{"modules", moduleUse},
		{"confined", confinement},
		{"purity", purity},
		{"budget", budget},
		{"function length", functionLength},
		{"init", noInit},
		{"panic", noPanic},
		{"package variables", packageVariables},
		{"assigned variables", assignedVariables},
		{"package comment", packageComment},
	}
}

func importTable(p pkg) (out []string) {
	r, ok := rooms()[p.path]
	if !ok {
		return []string{p.path + ": a package that the table in rules_test.go does not know"}
	}
	for _, f := range p.production() {
		for imp, pos := range f.imports() {
			ours, ok := strings.CutPrefix(imp, module+"/")
			if !ok || !r.leaf && ours == "internal/lane" || slices.Contains(r.imports, everybody) || slices.Contains(r.imports, ours) {
				continue
			}
			out = append(out, fmt.Sprintf("%s: %s may not import %s", p.at(pos), p.path, ours))
		}
	}
	return out
}

// unusedImports names what the table allows and nobody does: leave that is not
// taken back lets the next change through unseen.
func unusedImports(p pkg) (out []string) {
	for _, imp := range rooms()[p.path].imports {
		if imp != everybody && !slices.ContainsFunc(p.production(), func(f file) bool { _, ok := f.imports()[module+"/"+imp]; return ok }) {
			out = append(out, fmt.Sprintf("%s may import %s, and does not: take it out of the table", p.path, imp))
		}
	}
	return out
}

func narrowImports(p pkg) (out []string) {
	for _, n := range narrow {
		if n.pkg != p.path {
			continue
		}
		for _, f := range p.production() {
			if pos, ok := f.imports()[module+"/"+n.imports]; ok && !slices.Contains(strings.Fields(n.file), f.name) {
				out = append(out, fmt.Sprintf("%s: only %s may import %s: %s", p.at(pos), n.file, n.imports, n.why))
			}
		}
	}
	return out
}

// moduleUse checks who imports which dependency. The domain's tests stay with
// the standard library too, and go-cmp.
func moduleUse(p pkg) (out []string) {
	for _, f := range p.files {
		for imp, pos := range f.imports() {
			if !strings.Contains(strings.Split(imp, "/")[0], ".") {
				continue
			}
			i := slices.IndexFunc(modules, func(m struct {
				path string
				by   []string
				why  string
			}) bool {
				return imp == m.path || strings.HasPrefix(imp, m.path+"/")
			})
			switch {
			case i < 0:
				out = append(out, fmt.Sprintf("%s: %s is of no module in the allow-list", p.at(pos), imp))
			case !f.test && !within(modules[i].by, p.path):
				out = append(out, fmt.Sprintf("%s: %s may not import %s", p.at(pos), p.path, imp))
			}
		}
	}
	return out
}

// confinement finds what only some packages may use, as an import or as a name.
func confinement(p pkg) (out []string) {
	for _, c := range confined {
		if within(c.by, p.path) {
			continue
		}
		dir, last := path.Split(c.what)
		from, name, isName := strings.Cut(last, ".")
		for _, f := range p.production() {
			pos, imported := f.imports()[dir+from]
			switch {
			case !imported:
			case !isName:
				out = append(out, fmt.Sprintf("%s: %s may not import %s: %s", p.at(pos), p.path, c.what, c.why))
			default:
				for _, pos := range p.uses(f, dir+from, name) {
					out = append(out, fmt.Sprintf("%s: %s may not use %s: %s", p.at(pos), p.path, c.what, c.why))
				}
			}
		}
	}
	return out
}

// uses returns where a file names from.name, under whatever name it imports it.
func (p pkg) uses(f file, from, name string) (out []token.Pos) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok || s.Sel.Name != name {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok {
			if imported, ok := p.info.Uses[x].(*types.PkgName); ok && imported.Imported().Path() == from {
				out = append(out, s.Pos())
			}
		}
		return true
	})
	return out
}

func purity(p pkg) (out []string) {
	if !slices.Contains(pure, p.path) {
		return nil
	}
	for _, f := range p.production() {
		for imp, pos := range f.imports() {
			if slices.Contains(impure, imp) {
				out = append(out, fmt.Sprintf("%s: %s is pure, and may not import %s", p.at(pos), p.path, imp))
			}
			if p.path == "internal/lane" && strings.Contains(imp, ".") {
				out = append(out, fmt.Sprintf("%s: the domain needs nothing but the standard library, not %s", p.at(pos), imp))
			}
		}
	}
	return out
}

func budget(p pkg) []string {
	n := 0
	for _, f := range p.production() {
		n += f.lines()
	}
	// A package clause alone is no code.
	if r := rooms()[p.path]; n > max(r.budget, 1) {
		return []string{fmt.Sprintf("%s: %d lines, and the budget is %d", p.path, n, r.budget)}
	}
	return nil
}

func functionLength(p pkg) (out []string) {
	for _, f := range p.production() {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := p.fset.Position(fn.End()).Line - p.fset.Position(fn.Pos()).Line + 1; n > maxFunc {
				out = append(out, fmt.Sprintf("%s: %s has %d lines, more than %d", p.at(fn.Pos()), fn.Name.Name, n, maxFunc))
			}
		}
	}
	return out
}

func noInit(p pkg) (out []string) {
	for _, f := range p.files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, p.at(fn.Pos())+": func init: nothing happens by being imported")
			}
		}
	}
	return out
}

func noPanic(p pkg) (out []string) {
	for _, f := range p.production() {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" && p.info.Uses[id] == types.Universe.Lookup("panic") {
				out = append(out, p.at(call.Pos())+": panic: return an error")
			}
			return true
		})
	}
	return out
}

// packageVariables lets pass what is a constant in all but name.
func packageVariables(p pkg) (out []string) {
	for _, f := range p.production() {
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if !p.constantInAllButName(v) {
					out = append(out, fmt.Sprintf("%s: package-level variable %s: only patterns, templates, errors, tables and embedded files", p.at(v.Pos()), v.Names[0].Name))
				}
			}
		}
	}
	return out
}

func (p pkg) constantInAllButName(v *ast.ValueSpec) bool {
	if len(v.Values) == 0 {
		return text(v.Type) == "embed.FS"
	}
	for _, x := range v.Values {
		switch x := x.(type) {
		case *ast.CompositeLit:
		case *ast.CallExpr:
			if !slices.Contains([]string{"regexp.MustCompile", "template.Must", "errors.New"}, text(x.Fun)) {
				return false
			}
		case *ast.BasicLit:
			// Linkers set one string: the version of a program.
			if !strings.HasPrefix(p.path, "cmd/") || x.Kind != token.STRING || v.Names[0].Name != "version" {
				return false
			}
		case *ast.Ident:
			if v.Names[0].Name != "_" { // var _ I = T{} and the like change nothing
				return false
			}
		default:
			return false
		}
	}
	return true
}

// text returns a.b of a selector, or the name of an identifier.
func text(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return text(x.X) + "." + x.Sel.Name
	}
	return ""
}

// assignedVariables finds every change of a package-level variable, also of an
// element or field of one, and every change of another package's.
func assignedVariables(p pkg) (out []string) {
	for _, f := range p.production() {
		changed := func(x ast.Expr) {
			if id := p.global(x); id != nil {
				out = append(out, fmt.Sprintf("%s: the package-level variable %s is changed", p.at(id.Pos()), id.Name))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, l := range n.Lhs {
						changed(l)
					}
				}
			case *ast.IncDecStmt:
				changed(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND { // whoever has the address can change it
					changed(n.X)
				}
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					changed(n.Key)
					changed(n.Value)
				}
			case *ast.CallExpr:
				if fn := text(n.Fun); (fn == "delete" || fn == "clear" || fn == "copy") && len(n.Args) > 0 {
					changed(n.Args[0])
				}
			}
			return true
		})
	}
	return out
}

// global returns the name under x when it is a package-level variable.
func (p pkg) global(x ast.Expr) *ast.Ident {
	for {
		switch e := x.(type) {
		case *ast.ParenExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.SliceExpr:
			x = e.X
		case *ast.StarExpr:
			x = e.X
		case *ast.SelectorExpr:
			x = e.X
		case *ast.Ident:
			obj := p.info.Uses[e]
			v, isVar := obj.(*types.Var)
			_, isPkg := obj.(*types.PkgName)
			if isPkg || isVar && v.Parent() == p.scope {
				return e
			}
			return nil
		default:
			return nil
		}
	}
}

// packageComment wants one comment that says what the package is.
func packageComment(p pkg) []string {
	for _, f := range p.production() {
		if f.ast.Doc != nil {
			return nil
		}
	}
	return []string{p.path + ": no package comment"}
}
