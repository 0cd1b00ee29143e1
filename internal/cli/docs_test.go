package cli

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestDocs keeps docs/cli.md what the commands' own help says; -update rewrites it.
func TestDocs(t *testing.T) {
	root := (&app{Env: Env{Getenv: func(string) string { return "" }}}).root()
	var b strings.Builder
	b.WriteString("# Commands\n\nGenerated from the commands' help: do not edit. `go test ./internal/cli -update` writes it.\n\n" + root.Long + "\n\nEvery command takes:\n\n")
	flags(&b, root.PersistentFlags())
	for _, c := range root.Commands() {
		document(&b, c)
	}
	const path = "../../docs/cli.md"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(have)); diff != "" {
		t.Errorf("docs/cli.md is stale, run `go test ./internal/cli -update` (-want +got):\n%s", diff)
	}
}

func document(b *strings.Builder, c *cobra.Command) {
	if c.Name() == "help" || c.Name() == "completion" || c.Hidden {
		return
	}
	if c.HasSubCommands() {
		defer func() {
			for _, sub := range c.Commands() {
				document(b, sub)
			}
		}()
		if !c.LocalNonPersistentFlags().HasAvailableFlags() {
			return // a mere group of commands
		}
	}
	text := c.Long
	if text == "" {
		text = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
	}
	fmt.Fprintf(b, "## %s\n\n    %s\n\n%s\n\n", c.CommandPath(), c.UseLine(), text)
	flags(b, c.LocalNonPersistentFlags())
}

func flags(b *strings.Builder, set *pflag.FlagSet) {
	n := 0
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		short := ""
		if f.Shorthand != "" {
			short = "-" + f.Shorthand + ", "
		}
		fmt.Fprintf(b, "- `%s`: %s", strings.TrimSpace(short+"--"+f.Name+" "+name), usage)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			fmt.Fprintf(b, " (default `%s`)", f.DefValue)
		}
		b.WriteByte('\n')
		n++
	})
	if n > 0 {
		b.WriteByte('\n')
	}
}
