package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
	"bootlane/internal/lint"
)

const lintLong = `Judge what an installer or a first boot reads: your own files, without a server, or with
--host and --all the documents that the server would give to machines now. Each finding
has its place, its rule and its mend; docs/lint.md says why each rule is one. FILE may be
- for standard input.

Formats: autoinstall, cloud-config, meta-data, network-config, kickstart, preseed,
autoyast, agama, ignition, butane, talos, cmdline, ipxe, grub, shell. A format that is not linted is an error.

With --external the format's own validators are run too, where they are installed:
cloud-init, netplan, ksvalidator, debconf-set-selections, xmllint, shellcheck.

Exit codes: 0 clean or warnings only, 3 errors; with --strict warnings count as errors.`

// lintRun is one run of the linter.
type lintRun struct {
	format, sarif         string
	hosts, ignore         []string
	release               string
	all, strict, external bool
}

// lintText is one text to be linted.
type lintText struct {
	name   string
	body   []byte
	format lint.Format
}

// lintResult is what a run found, and what it looked at.
type lintResult struct {
	Findings   []lint.Finding `json:"findings"`
	Linted     []linted       `json:"linted"`
	Notes      []string       `json:"notes,omitempty"`
	Validators []validated    `json:"validators,omitempty"`
}

type linted struct {
	File   string      `json:"file"`
	Format lint.Format `json:"format"`
}

func (a *app) lintCmd() *cobra.Command {
	var run lintRun
	cmd := &cobra.Command{Use: "lint FILE... | --host HOST | --all", Short: "judge seeds and other files that installers read", Long: lintLong, Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if err := run.check(argv); err != nil {
				return err
			}
			docs, notes, err := a.lintDocuments(cmd.Context(), run, argv)
			if err != nil {
				return err
			}
			res := lintResult{Findings: []lint.Finding{}, Linted: []linted{}, Notes: notes}
			for _, d := range docs {
				res.Linted = append(res.Linted, linted{d.name, d.format})
				res.Findings = append(res.Findings, lint.File(d.name, d.body, d.format, lint.Options{Ignore: run.ignore, Release: run.release})...)
			}
			if run.external {
				var found []lint.Finding
				if res.Validators, found, err = validate(cmd.Context(), docs); err != nil {
					return err
				}
				res.Findings = append(res.Findings, found...)
			}
			return a.lintTell(res, run)
		}}
	f := cmd.Flags()
	f.StringVar(&run.format, "format", "auto", "the files' `format`, if name and text do not tell it")
	f.StringSliceVar(&run.hosts, "host", nil, "lint what this `host` would be served; may be given several times")
	f.BoolVar(&run.all, "all", false, "lint what every host would be served")
	f.BoolVar(&run.strict, "strict", false, "warnings count as errors")
	f.StringVar(&run.release, "release", "", "the `release` of Ubuntu that reads an autoinstall, as 24.04")
	f.StringSliceVar(&run.ignore, "ignore", nil, "leave out this `rule`; may be given several times")
	f.StringVar(&run.sarif, "sarif", "", "write the findings to this `file` too, as SARIF 2.1.0")
	f.BoolVar(&run.external, "external", false, "also run the formats' own validators, where they are installed")
	// The flags were defined above.
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(lintFormats(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("host", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.hostIDs(cmd, typed)
	})
	return cmd
}

func lintFormats() []string {
	out := []string{"auto"}
	for _, f := range lint.Formats() {
		out = append(out, string(f))
	}
	return out
}

// check refuses a command line that could be understood in two ways.
func (run lintRun) check(argv []string) error {
	ways := 0
	for _, given := range []bool{len(argv) > 0, len(run.hosts) > 0, run.all} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return usageError{fmt.Errorf("give files, or --host HOST, or --all")}
	case !slices.Contains(lintFormats(), run.format):
		return usageError{fmt.Errorf("--format %q: use one of %s", run.format, strings.Join(lintFormats(), ", "))}
	case run.format != "auto" && len(argv) == 0:
		return usageError{fmt.Errorf("--format is for files: a host's documents have theirs")}
	}
	for _, id := range run.ignore {
		if !slices.ContainsFunc(lint.Rules(), func(r lint.Rule) bool { return r.ID == id }) {
			return usageError{fmt.Errorf("--ignore %q: there is no such rule: docs/lint.md lists them", id)}
		}
	}
	return nil
}

// lintDocuments reads what is to be linted.
func (a *app) lintDocuments(ctx context.Context, run lintRun, argv []string) (docs []lintText, notes []string, err error) {
	for _, name := range argv {
		data, err := a.readInput(name)
		if err != nil {
			return nil, nil, fmt.Errorf("read what is to be linted: %w", err)
		}
		f := lint.Format(run.format)
		if run.format == "auto" {
			f = lint.Detect(name, data)
		}
		docs = append(docs, lintText{name, data, f})
	}
	if len(argv) > 0 {
		return docs, nil, nil
	}
	c, err := a.client()
	if err != nil {
		return nil, nil, err
	}
	hosts := run.hosts
	if run.all {
		list, err := c.Hosts(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, h := range list {
			if h.State != lane.StateRetired {
				hosts = append(hosts, string(h.ID))
			}
		}
	}
	for _, id := range hosts {
		files, err := c.Render(ctx, id)
		if err != nil {
			return nil, nil, fmt.Errorf("render the documents of %s: %w", id, err)
		}
		own := hostDocuments(files)
		if len(own) == 0 {
			notes = append(notes, fmt.Sprintf("%s: no installer documents: the record's bundle is not in the store", id))
		}
		docs = append(docs, own...)
	}
	return docs, notes, nil
}

// hostDocuments picks what a machine reads by HTTP. The rest is for people, and for other servers.
func hostDocuments(files []lane.Rendered) (out []lintText) {
	for _, f := range files {
		body := []byte(f.Body)
		if format := lint.Detect(f.Path, body); strings.HasPrefix(f.Path, "http/") && format != "" {
			out = append(out, lintText{f.Path, body, format})
		}
	}
	return out
}

// lintTell shows what was found, and returns the error that it is.
func (a *app) lintTell(res lintResult, run lintRun) error {
	if run.sarif != "" {
		out, err := lint.SARIF(res.Findings, a.Version)
		if err != nil {
			return fmt.Errorf("encode the findings: %w", err)
		}
		if err := os.WriteFile(run.sarif, append(out, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the findings: %w", err)
		}
	}
	errs := len(lint.Errors(res.Findings))
	warns := len(res.Findings) - errs
	if err := a.show(res, func(w io.Writer) { showLint(w, res, errs, warns) }); err != nil {
		return err
	}
	if errs > 0 || run.strict && warns > 0 {
		return lane.Errorf(lane.Refused, "lint finds %s and %s", counted(errs, "error"), counted(warns, "warning"))
	}
	return nil
}

func showLint(w io.Writer, res lintResult, errs, warns int) {
	for _, f := range res.Findings {
		fmt.Fprintf(w, "%s\n    mend: %s\n", lane.Clean(f.String(), 1000), lane.Clean(f.Mend, 500))
	}
	for _, n := range res.Notes {
		fmt.Fprintln(w, "note: "+lane.Clean(n, 500))
	}
	for _, v := range res.Validators {
		fmt.Fprintf(w, "%s: %s\n", v.Program, cmp.Or(v.Missing, fmt.Sprintf("ran on %d files", v.Files)))
	}
	fmt.Fprintf(w, "%s: %s, %s\n", counted(len(res.Linted), "file"), counted(errs, "error"), counted(warns, "warning"))
}
