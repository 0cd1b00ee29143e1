package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bootlane/internal/lab"
)

const labLong = `Play the whole lane on virtual servers with real firmware (QEMU, OVMF, SeaBIOS), in
a network namespace of its own. It needs root and no KVM.

  bootlane lab --image DIR --installer DIR            all scenarios
  bootlane lab --image DIR --installer DIR a d        two of them

Consoles, a packet capture and the timelines stay in the --out directory.`

func (a *app) labCmd() *cobra.Command {
	cfg := lab.Config{Out: a.Stdout, Now: a.Now}
	var inner string
	var atOnce int
	cmd := &cobra.Command{Use: "lab [SCENARIO...]", Short: "play the lane on virtual servers with real firmware", Long: labLong + scenarioList(), Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if cfg.Image == "" || cfg.Installer == "" {
				return usageError{errors.New("give the bundles to install with --image and --installer; `make lab` builds them")}
			}
			if err := absolute(&cfg.Dir, &cfg.Image, &cfg.Installer); err != nil {
				return err
			}
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the bootlane binary: %w", err)
			}
			cfg.Bootlane = exe
			if inner != "" {
				return lab.Inner(ctx, cfg, inner)
			}
			keys, err := scenarioKeys(argv)
			if err != nil {
				return err
			}
			return lab.Play(ctx, cfg, keys, atOnce)
		}}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "out", "lab-out", "`directory` for consoles, packets and timelines")
	f.StringVar(&cfg.Image, "image", "", "`directory` of an image bundle")
	f.StringVar(&cfg.Installer, "installer", "", "`directory` of a Debian installer bundle")
	f.IntVar(&atOnce, "at-once", 3, "`number` of scenarios played at the same time")
	f.StringVar(&inner, "inner", "", "one scenario, in the namespace that this process is in")
	_ = f.MarkHidden("inner") // the flag was defined one line above
	return cmd
}

func absolute(paths ...*string) error {
	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("find %s: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

func scenarioKeys(argv []string) ([]string, error) {
	var keys []string
	known := map[string]bool{}
	for _, s := range lab.Scenarios() {
		keys = append(keys, s.Key)
		known[s.Key] = true
	}
	if len(argv) == 0 {
		return keys, nil
	}
	for _, k := range argv {
		if !known[k] {
			return nil, usageError{fmt.Errorf("there is no scenario %q: %s", k, strings.Join(keys, ", "))}
		}
	}
	return argv, nil
}

func scenarioList() string {
	var b strings.Builder
	b.WriteString("\n\nScenarios:\n")
	for _, s := range lab.Scenarios() {
		fmt.Fprintf(&b, "  %s  %s\n", s.Key, s.Title)
	}
	return b.String()
}
