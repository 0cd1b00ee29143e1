// Package ignition reads configurations of Ignition, and of Butane, which is translated to it, by
// the libraries of those who make them. It is stricter than their programs: what they warn of is
// an error, and nothing is read beside the text. The package is pure.
package ignition

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/coreos/butane/config/common"
	fcos13 "github.com/coreos/butane/config/fcos/v1_3"
	fcos14 "github.com/coreos/butane/config/fcos/v1_4"
	fcos15 "github.com/coreos/butane/config/fcos/v1_5"
	fcos16 "github.com/coreos/butane/config/fcos/v1_6"
	flatcar10 "github.com/coreos/butane/config/flatcar/v1_0"
	flatcar11 "github.com/coreos/butane/config/flatcar/v1_1"
	"github.com/coreos/ignition/v2/config/v3_0"
	"github.com/coreos/ignition/v2/config/v3_1"
	"github.com/coreos/ignition/v2/config/v3_2"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/vcontext/report"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/strictyaml"
)

// The variants of Butane that are read.
const (
	Flatcar = "flatcar"
	FCOS    = "fcos" // Fedora CoreOS
)

// IsButane reports whether a text is Butane's YAML: Ignition's JSON begins with a brace.
func IsButane(text []byte) bool { return !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) }

// translator turns one version of Butane into Ignition.
type translator func([]byte, common.TranslateBytesOptions) ([]byte, report.Report, error)

// translators are those of all versions that are no experiment, by VARIANT VERSION.
func translators() map[string]translator {
	return map[string]translator{
		Flatcar + " 1.0.0": flatcar10.ToIgn3_3Bytes, Flatcar + " 1.1.0": flatcar11.ToIgn3_4Bytes,
		FCOS + " 1.3.0": fcos13.ToIgn3_2Bytes, FCOS + " 1.4.0": fcos14.ToIgn3_3Bytes, FCOS + " 1.5.0": fcos15.ToIgn3_4Bytes, FCOS + " 1.6.0": fcos16.ToIgn3_5Bytes,
	}
}

// Translate returns a text as a configuration of Ignition, in the version of the specification
// that it was written for, and everything that is wrong with it. Of a text with problems there is
// none. Butane is read in the given variants; none: in all that are known.
func Translate(text []byte, variants ...string) (config []byte, problems []strictyaml.Fault) {
	// Whatever a library does with a text that nobody foresaw, a server goes on.
	defer func() {
		if r := recover(); r != nil {
			config, problems = nil, []strictyaml.Fault{{Line: 1, Column: 1, Message: fmt.Sprintf("its reader fails: %v", r)}}
		}
	}()
	if !IsButane(text) {
		if problems = Check(text); len(problems) > 0 {
			return nil, problems
		}
		return text, nil
	}
	translate, problems := find(text, variants)
	if len(problems) > 0 {
		return nil, problems
	}
	config, rep, err := translate(text, common.TranslateBytesOptions{TranslateOptions: common.TranslateOptions{NoResourceAutoCompression: true}, Raw: true})
	if problems = told(rep, err); len(problems) > 0 {
		return nil, problems
	}
	return config, nil
}

// find returns what translates a text of Butane.
func find(text []byte, variants []string) (translator, []strictyaml.Fault) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var head, more yaml.Node
	if err := dec.Decode(&head); err != nil {
		return nil, told(report.Report{}, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, []strictyaml.Fault{{Line: max(more.Line, 1), Column: max(more.Column, 1), Message: "a second YAML document begins here, and nobody reads it"}}
	}
	if n := alias(&head); n != nil {
		return nil, []strictyaml.Fault{{Line: n.Line, Column: n.Column, Message: "an alias stands for a value elsewhere: write it out"}}
	}
	var said struct {
		Variant yaml.Node `yaml:"variant"`
		Version yaml.Node `yaml:"version"`
	}
	if err := head.Decode(&said); err != nil {
		return nil, told(report.Report{}, err)
	}
	known := translators()
	maps.DeleteFunc(known, func(name string, _ translator) bool {
		variant, _, _ := strings.Cut(name, " ")
		return len(variants) > 0 && !slices.Contains(variants, variant)
	})
	if t, ok := known[said.Variant.Value+" "+said.Version.Value]; ok {
		return t, nil
	}
	at := said.Version
	if at.Line == 0 {
		at = said.Variant
	}
	return nil, []strictyaml.Fault{{Line: max(at.Line, 1), Column: max(at.Column, 1), Message: fmt.Sprintf("variant %q of version %q is not read: use one of %s", said.Variant.Value, said.Version.Value, strings.Join(slices.Sorted(maps.Keys(known)), ", "))}}
}

// alias returns the first alias in a tree. Butane follows them without end.
func alias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n
	}
	for _, c := range n.Content {
		if a := alias(c); a != nil {
			return a
		}
	}
	return nil
}

// Check returns what is wrong with a configuration of Ignition.
func Check(text []byte) []strictyaml.Fault {
	var said struct{ Ignition struct{ Version string } }
	err := json.Unmarshal(text, &said)
	parse, known := parsers()[said.Ignition.Version]
	if err != nil || !known { // it says what is wrong with the version, or with the text as such
		parse = only(v3_5.ParseCompatibleVersion)
	}
	return told(parse(text))
}

// parsers are those of each version of the specification. The last one's would do, and reads a text once more
// for every version in between.
func parsers() map[string]func([]byte) (report.Report, error) {
	return map[string]func([]byte) (report.Report, error){
		"3.0.0": only(v3_0.Parse), "3.1.0": only(v3_1.Parse), "3.2.0": only(v3_2.Parse), "3.3.0": only(v3_3.Parse), "3.4.0": only(v3_4.Parse), "3.5.0": only(v3_5.Parse)}
}

// only leaves out what a parser makes of a text.
func only[C any](parse func([]byte) (C, report.Report, error)) func([]byte) (report.Report, error) {
	return func(text []byte) (report.Report, error) {
		_, rep, err := parse(text)
		return rep, err
	}
}

// told makes problems of what a library reports, by their places. Its error only sums up a report with entries.
func told(rep report.Report, err error) (out []strictyaml.Fault) {
	for _, e := range rep.Entries {
		if e.Kind == report.Info {
			continue
		}
		p := strictyaml.Fault{Line: 1, Column: 1, Message: e.Message}
		if e.Context.Len() > 0 {
			p.Message = strings.TrimPrefix(e.Context.String(), "$.") + ": " + e.Message
		}
		if s := e.Marker.StartP; s != nil {
			p.Line, p.Column = max(int(s.Line), 1), max(int(s.Column), 1)
		}
		out = append(out, p)
	}
	if err != nil && len(out) == 0 {
		for line := range strings.Lines(err.Error()) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "unmarshal errors:") {
				out = append(out, strictyaml.FaultOf(line))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b strictyaml.Fault) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
}
