// Package cli is the command line: one file a subcommand. Every verb speaks to the
// operators' API, but `serve`, `lab` and those that only look at files.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	fmt.Fprintf(env.Stderr, "bootlane: %s\n", safe(err.Error()))
	if code == exitUnreachable {
		fmt.Fprintf(env.Stderr, "Is `bootlane serve` running there? Else set --server or BOOTLANE_SERVER.\n")
	}
	if code == exitUsage {
		fmt.Fprintf(env.Stderr, "`bootlane help` shows what there is.\n")
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
	root := &cobra.Command{Use: "bootlane", Short: "a provisioning lane for bare metal", Long: rootLong, SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", a.fromEnv("BOOTLANE_SERVER", "http://127.0.0.1:8070"), "operators' `URL` of the server (BOOTLANE_SERVER)")
	f.StringVar(&a.tokenFile, "token-file", a.fromEnv("BOOTLANE_TOKEN_FILE", "/var/lib/bootlane/operator.token"), "`file` with the operators' token (BOOTLANE_TOKEN_FILE)")
	f.StringVarP(&a.output, "output", "o", "table", "output `format`: table, json or yaml")
	f.StringVar(&a.by, "as", a.fromEnv("BOOTLANE_OPERATOR", ""), "`name` under which the evidence records you (default: your login)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDescriptions = true
	root.AddCommand(a.serveCmd(), a.hostCmd(), a.provisionCmd(), a.cancelCmd(), a.quarantineCmd(), a.releaseCmd(), a.retireCmd(),
		a.eventsCmd(), a.whyCmd(), a.whatifCmd(), a.renderCmd(), a.bundleCmd(), a.labCmd(), a.versionCmd())
	return root
}

func (a *app) fromEnv(name, unset string) string {
	if v := a.Getenv(name); v != "" {
		return v
	}
	return unset
}

// args checks the number of arguments and calls it a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, argv []string) error {
		if err := check(cmd, argv); err != nil {
			return usageError{fmt.Errorf("%s: %w; usage: %s", cmd.CommandPath(), err, cmd.UseLine())}
		}
		return nil
	}
}

// client returns a client of the server, with the operators' token.
func (a *app) client() (*api.Client, error) {
	token, err := os.ReadFile(a.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the operators' token (--token-file or BOOTLANE_TOKEN_FILE; `bootlane serve` makes it at its first start): %w", err)
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

// when prints a time for people: local to the reader, to the second.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return lane.Clean(s, 500)
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version", Args: args(cobra.NoArgs), RunE: func(*cobra.Command, []string) error {
		return a.show(map[string]string{"version": a.Version}, func(w io.Writer) { fmt.Fprintf(w, "bootlane %s\n", a.Version) })
	}}
}
