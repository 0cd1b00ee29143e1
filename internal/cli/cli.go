// Package cli is the command line: one file a subcommand. Every verb speaks to the
// operators' API, but `serve`, `lab` and those that only look at files.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnreachable = 4
)

// Env is what the command line runs in.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	Rand           io.Reader // makes keys
	Version        string
}

// app holds what the subcommands share.
type app struct {
	Env
	server, tokenFile, output, by string
	color                         bool
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, args []string, env Env) int {
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if a.output == "json" {
		return a.failJSON(err, code)
	}
	fmt.Fprintf(env.Stderr, "bootlane: %s\n", safe(err.Error()))
	if errors.Is(err, api.ErrUnreachable) {
		fmt.Fprintf(env.Stderr, "Is `bootlane serve` running there? Else set --server or BOOTLANE_SERVER.\n")
	}
	if code == exitUsage {
		path := root.CommandPath()
		if cmd, _, err := root.Find(args); err == nil {
			path = cmd.CommandPath()
		}
		fmt.Fprintf(env.Stderr, "`%s --help` says more.\n", path)
	}
	return code
}

// failJSON tells an error to a program that reads our answers.
func (a *app) failJSON(err error, code int) int {
	fallback := map[int]lane.Code{exitUsage: lane.Invalid, exitUnreachable: lane.Unavailable}[code]
	out := api.ErrorReply{Code: cmp.Or(lane.CodeOf(err), fallback, "failed"), Message: safe(err.Error())}
	if e := (*lane.Error)(nil); errors.As(err, &e) {
		out.Message, out.Problems = safe(e.Message), e.Problems
		if e.Err != nil {
			out.Message += ": " + safe(e.Err.Error())
		}
	}
	if jerr := json.NewEncoder(a.Stderr).Encode(out); jerr != nil {
		return exitFailed
	}
	return code
}

// usageError marks a command line that cannot be understood.
type usageError struct{ error }

// ownError marks a failure of this process itself: no server was asked, so none
// is unreachable.
type ownError struct{ error }

// Unwrap returns the cause.
func (e ownError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var own ownError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &own):
		return exitFailed
	case errors.Is(err, api.ErrUnreachable), lane.CodeOf(err) == lane.Unavailable:
		return exitUnreachable
	case lane.CodeOf(err) == lane.Refused, lane.CodeOf(err) == lane.Conflict:
		return exitRefused
	}
	return exitFailed
}

const rootLong = `Bootlane takes blank servers from firmware to a ready node over the network, and
can always prove why a machine was or was not allowed to erase its disk.

Exit codes: 0 ok, 1 failed, 2 usage, 3 refused, 4 unreachable.`

func (a *app) root() *cobra.Command {
	version := false
	root := &cobra.Command{Use: "bootlane", Short: "a provisioning lane for bare metal", Long: rootLong, SilenceErrors: true, SilenceUsage: true,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return a.showVersion()
			}
			return cmd.Help()
		}}
	root.Flags().BoolVar(&version, "version", false, "print the version, as the command version does")
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", a.fromEnv("BOOTLANE_SERVER", "http://127.0.0.1:8070"), "operators' `URL` of the server (BOOTLANE_SERVER)")
	f.StringVar(&a.tokenFile, "token-file", a.fromEnv("BOOTLANE_TOKEN_FILE", "/var/lib/bootlane/operator.token"), "`file` with the operators' token (BOOTLANE_TOKEN_FILE)")
	f.StringVarP(&a.output, "output", "o", "table", "output `format`: table, json or yaml")
	f.StringVar(&a.by, "as", a.fromEnv("BOOTLANE_OPERATOR", ""), "`name` under which the evidence records you (default: your login)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDescriptions = true
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)) // the flag was defined above
	root.AddCommand(a.serveCmd(), a.hostCmd(), a.onHost(a.provisionCmd()), a.onHost(a.cancelCmd()), a.onHost(a.quarantineCmd()), a.onHost(a.releaseCmd()), a.onHost(a.retireCmd()),
		a.onHost(a.eventsCmd()), a.onHost(a.whyCmd()), a.onHost(a.whatifCmd()), a.onHost(a.renderCmd()), a.onHosts(a.preflightCmd()), a.seedCmd(), a.firstbootCmd(), a.lintCmd(), a.bundleCmd(), a.clusterCmd(), a.dhcpCmd(), a.pcapCmd(), a.uefiCmd(), a.labCmd(), a.versionCmd())
	return root
}

func noCommand(cmd *cobra.Command, name string) error {
	meant := ""
	cmd.SuggestionsMinimumDistance = 2
	if list := cmd.SuggestionsFor(name); len(list) > 0 {
		meant = "; did you mean " + strings.Join(list, " or ") + "?"
	}
	return usageError{fmt.Errorf("there is no command `%s %s`%s", cmd.CommandPath(), name, meant)}
}

func (a *app) fromEnv(name, unset string) string {
	if v := a.Getenv(name); v != "" {
		return v
	}
	return unset
}

// args checks the number of arguments and calls it a usage error; to a group of commands, an
// argument is one that there is not.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, argv []string) error {
		err := check(cmd, argv)
		if err != nil && len(argv) > 0 && cmd.HasAvailableSubCommands() {
			return noCommand(cmd, argv[0])
		}
		if err != nil {
			return usageError{fmt.Errorf("%d arguments are given; usage: %s", len(argv), cmd.UseLine())}
		}
		return nil
	}
}

// client returns a client of the server, with the operators' token.
func (a *app) client() (*api.Client, error) {
	if u, err := url.Parse(a.server); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		like := strings.TrimPrefix(a.server, "//")
		if !strings.Contains(like, ":") && like != "" {
			like += ":8070"
		}
		return nil, usageError{fmt.Errorf("--server (BOOTLANE_SERVER) %q is not a URL: write http://%s", a.server, cmp.Or(like, "127.0.0.1:8070"))}
	}
	token, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the operators' token (--token-file or BOOTLANE_TOKEN_FILE; `bootlane serve` makes it at its first start): %w", err)
	}
	if t := strings.TrimSpace(string(token)); len(t) < 32 || strings.ContainsAny(t, " \t\r\n") {
		return nil, fmt.Errorf("%s does not hold the operators' token, one word of 32 characters or more: `bootlane serve` writes it as operator.token into its data directory", a.tokenFile)
	}
	by := a.by
	if by == "" {
		if u, err := user.Current(); err == nil {
			by = u.Username
		}
	}
	return api.NewClient(strings.TrimRight(a.server, "/"), strings.TrimSpace(string(token)), by), nil
}

// show prints v in the wanted format; table prints it for people.
func (a *app) show(v any, table func(w io.Writer)) error {
	switch a.output {
	case "table":
		table(a.Stdout)
		return nil
	case "json":
		if b, err := json.Marshal(v); err == nil && string(b) == "null" {
			v = []any{} // a list of nothing
		}
		enc := json.NewEncoder(a.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		// By way of JSON: one set of field names.
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		var plain any
		if err := json.Unmarshal(b, &plain); err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		out, err := yaml.Marshal(plain)
		if err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		_, err = a.Stdout.Write(out)
		return err
	}
	return usageError{fmt.Errorf("--output %q: use table, json or yaml", a.output)}
}

// safe makes text harmless for a terminal: machines choose some of it.
func safe(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		indent := l[:len(l)-len(strings.TrimLeft(l, " "))]
		lines[i] = indent + lane.Clean(l, 4000)
	}
	return strings.Join(lines, "\n")
}

// when prints a time as the messages of the evidence do: to the second, and in UTC,
// because those who compare two lines need not be in one place.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return lane.Clean(s, 500)
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error { return a.showVersion() }}
}

func (a *app) showVersion() error {
	return a.show(map[string]string{"version": a.Version}, func(w io.Writer) { fmt.Fprintf(w, "bootlane %s\n", a.Version) })
}
