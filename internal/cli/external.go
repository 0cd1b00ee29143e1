package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/lint"
)

// validatorLimit is how long one validator may take for one file.
const validatorLimit = time.Minute

// validated tells what became of one validator.
type validated struct {
	Program string `json:"program"`
	Files   int    `json:"files"`
	Missing string `json:"missing,omitempty"` // why it did not run
}

// validator is a program that judges one format by itself.
type validator struct {
	program, debian string
	formats         []lint.Format
	args            []string // before the file's name
	judge           func(said output) []lint.Finding
}

// output is what a validator said of a file.
type output struct {
	stdout, stderr string
	failed         bool
	shift          int // lines that the validator saw before the file's first
}

func (o output) all() string { return strings.TrimSpace(o.stderr + "\n" + o.stdout) }

func validators() []validator {
	return []validator{
		{"cloud-init", "cloud-init", []lint.Format{lint.Autoinstall, lint.CloudConfig}, []string{"schema", "-c"}, byExitCode},
		// cloud-init calls every network-config valid: it has no netplan.
		{"netplan", "netplan.io", []lint.Format{lint.NetworkConfig}, nil, byExitCode},
		// Its exit code is the number of errors, modulo 256.
		{"ksvalidator", "python3-pykickstart", []lint.Format{lint.Kickstart}, nil, byOutput},
		// An unknown type is only a warning to it, and exit code 0.
		{"debconf-set-selections", "debconf", []lint.Format{lint.Preseed}, []string{"-c"}, byOutput},
		{"xmllint", "libxml2-utils", []lint.Format{lint.AutoYaST}, []string{"--noout", "--nonet"}, byExitCode},
		{"shellcheck", "shellcheck", []lint.Format{lint.Shell}, []string{"--norc", "--format=gcc"}, byLines},
	}
}

// validate runs the validators that are installed on the files of their formats.
func validate(ctx context.Context, docs []lintText) (told []validated, found []lint.Finding, err error) {
	dir, err := os.MkdirTemp("", "bootlane-lint-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for the validators: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, v := range validators() {
		t := validated{Program: v.program}
		if _, err := exec.LookPath(v.program); err != nil {
			t.Missing = "is not installed: Debian has it in " + v.debian
			if v.program == "ksvalidator" {
				t.Missing = "is not installed: it is pykickstart's, which Debian does not have"
			}
			told = append(told, t)
			continue
		}
		for i, d := range docs {
			if !slices.Contains(v.formats, d.format) || len(bytes.TrimSpace(d.body)) == 0 {
				continue
			}
			work := filepath.Join(dir, v.program+strconv.Itoa(i))
			said, err := v.run(ctx, work, d)
			if err != nil {
				return nil, nil, fmt.Errorf("run %s on %s: %w", v.program, d.name, err)
			}
			t.Files++
			for _, f := range v.judge(said) {
				f.Rule, f.File, f.Mend = v.program, d.name, "see what "+v.program+" says of it"
				f.Message = lane.Clean(strings.ReplaceAll(f.Message, work+"/", ""), 500)
				found = append(found, f)
			}
		}
		told = append(told, t)
	}
	return told, found, nil
}

// run lets the validator judge a copy: a document may have come from the server, or by a pipe.
func (v validator) run(ctx context.Context, work string, d lintText) (output, error) {
	name, body, shift := filepath.Join(work, "file"), d.body, 0
	argv := append(slices.Clone(v.args), name)
	if v.program == "netplan" {
		name = filepath.Join(work, "etc/netplan/file.yaml")
		argv = []string{"generate", "--root-dir", work}
		if !regexp.MustCompile(`(?m)^network\s*:`).Match(body) { // NoCloud does without, netplan does not
			body, shift = append([]byte("network:\n  "), bytes.ReplaceAll(body, []byte("\n"), []byte("\n  "))...), 1
		}
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return output{}, err
	}
	if err := os.WriteFile(name, body, 0o600); err != nil {
		return output{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, validatorLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.program, argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return output{}, err
	}
	return output{stdout.String(), stderr.String(), err != nil, shift}, nil
}

var (
	saidLine = regexp.MustCompile(`(?i)(?:\bline |:)(\d+)\b`)
	gccLine  = regexp.MustCompile(`^[^:]+:(\d+):(\d+): (\w+): (.*)$`)
)

// whole makes one finding of everything that a validator said.
func whole(o output) []lint.Finding {
	f := lint.Finding{Severity: lint.Error, Line: 1, Column: 1, Message: strings.Join(strings.Fields(o.all()), " ")}
	if f.Message == "" {
		f.Message = "it fails, and does not say why"
	}
	if m := saidLine.FindStringSubmatch(o.all()); m != nil {
		n, _ := strconv.Atoi(m[1]) // the pattern admits digits only
		f.Line = max(n-o.shift, 1)
	}
	return []lint.Finding{f}
}

func byExitCode(o output) []lint.Finding {
	if !o.failed {
		return nil
	}
	return whole(o)
}

func byOutput(o output) []lint.Finding {
	if !o.failed && o.all() == "" {
		return nil
	}
	return whole(o)
}

// byLines reads the form in which GCC writes.
func byLines(o output) (out []lint.Finding) {
	for _, l := range strings.Split(o.stdout, "\n") {
		m := gccLine.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		f := lint.Finding{Severity: lint.Warning, Message: m[4]}
		f.Line, _ = strconv.Atoi(m[1]) // the pattern admits digits only
		f.Column, _ = strconv.Atoi(m[2])
		if m[3] == "error" {
			f.Severity = lint.Error
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return byExitCode(o)
	}
	return out
}
