package lint

import (
	"encoding/json"
	"net/url"
	"strings"
)

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifText struct {
	Text     string `json:"text"`
	Markdown string `json:"markdown,omitempty"`
}

type sarifRule struct {
	ID      string    `json:"id"`
	Short   sarifText `json:"shortDescription"`
	Full    sarifText `json:"fullDescription"`
	Help    sarifText `json:"help"`
	Default struct {
		Level string `json:"level"`
	} `json:"defaultConfiguration"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	Physical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region struct {
			StartLine   int `json:"startLine"`
			StartColumn int `json:"startColumn"`
		} `json:"region"`
	} `json:"physicalLocation"`
}

// uri writes a file's name as SARIF wants it: escaped, and relative names as they are.
func uri(name string) string {
	u := url.URL{Path: name}
	if strings.HasPrefix(name, "/") {
		u.Scheme = "file"
	}
	return u.String()
}

// SARIF writes findings in the form that code hosts and editors show beside the lines, SARIF
// 2.1.0. Rules that are not ours, a validator's, are told by their name alone.
func SARIF(list []Finding, version string) ([]byte, error) {
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "bootlane lint", Version: version}
	index := map[string]int{}
	rule := func(x Rule) {
		s := sarifRule{ID: x.ID, Short: sarifText{Text: x.Title}, Full: sarifText{Text: x.Why}, Help: sarifText{Text: x.Why + " Mend: " + x.Mend, Markdown: x.Why + "\n\n**Mend:** " + x.Mend}}
		s.Default.Level = string(x.Severity)
		index[x.ID] = len(run.Tool.Driver.Rules)
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, s)
	}
	for _, x := range Rules() {
		rule(x)
	}
	for _, f := range list {
		if _, ok := index[f.Rule]; !ok {
			rule(Rule{ID: f.Rule, Severity: f.Severity, Title: f.Rule, Why: "A validator of the format's own says so.", Mend: f.Mend})
		}
		res := sarifResult{RuleID: f.Rule, RuleIndex: index[f.Rule], Level: string(f.Severity), Message: sarifText{Text: f.Message + ". " + f.Mend}}
		var at sarifLocation
		at.Physical.Artifact.URI = uri(f.File)
		at.Physical.Region.StartLine, at.Physical.Region.StartColumn = max(f.Line, 1), max(f.Column, 1)
		res.Locations = []sarifLocation{at}
		run.Results = append(run.Results, res)
	}
	return json.MarshalIndent(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}, "", "  ")
}
