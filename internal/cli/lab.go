package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bootlane/internal/bundle"
	"bootlane/internal/lab"
	"bootlane/internal/lane"
)

const labLong = `Play the whole lane on virtual servers with real firmware (QEMU, OVMF, SeaBIOS), in
a network namespace of its own. It needs root and no KVM.

  bootlane lab --image DIR --installer DIR            the scenarios of every day
  bootlane lab --image DIR --installer DIR a d        two of them

Consoles, a packet capture and the timelines stay in the --out directory.
` + "`bootlane lab try`" + ` plays your own configuration and inventory instead.`

func (a *app) labCmd() *cobra.Command {
	cfg := lab.Config{Out: a.Stdout, Now: a.Now}
	var inner string
	var atOnce int
	var full bool
	cmd := &cobra.Command{Use: "lab [SCENARIO...]", Short: "play the lane on virtual servers with real firmware", Long: labLong + scenarioList(), Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if cfg.Image == "" || cfg.Installer == "" {
				return usageError{errors.New("give the bundles to install with --image and --installer; `make lab` builds them")}
			}
			paths := []*string{&cfg.Dir, &cfg.Image, &cfg.Installer}
			for _, p := range []*string{&cfg.Kubernetes, &cfg.Encryptable, &cfg.Trust, &cfg.Key} {
				if *p != "" {
					paths = append(paths, p)
				}
			}
			if err := absolute(paths...); err != nil {
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
			keys, err := scenarioKeys(argv, full)
			if err != nil {
				return err
			}
			return lab.Play(ctx, cfg, keys, atOnce)
		}}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "out", "lab-out", "`directory` for consoles, packets and timelines")
	f.StringVar(&cfg.Image, "image", "", "`directory` of an image bundle")
	f.StringVar(&cfg.Installer, "installer", "", "`directory` of a Debian installer bundle")
	f.StringVar(&cfg.Kubernetes, "kubernetes", "", "`directory` of an image bundle with containerd, for scenario z")
	f.StringVar(&cfg.Encryptable, "encryptable", "", "`directory` of an image bundle for encrypted disks, for scenarios tpm and tang")
	f.StringVar(&cfg.Trust, "trust", "", "trust `file` of the server: only bundles that it trusts are installed")
	f.StringVar(&cfg.Key, "key", "", "private key `file` that signs the bundles which scenarios make")
	f.IntVar(&atOnce, "at-once", 3, "`number` of scenarios played at the same time")
	f.BoolVar(&full, "full", false, "play the slow scenarios as well")
	f.StringVar(&inner, "inner", "", "one scenario, in the namespace that this process is in")
	_ = f.MarkHidden("inner") // the flag was defined one line above
	cmd.AddCommand(a.labTryCmd())
	return cmd
}

const labTryLong = `Try your own configuration, inventory and bundles on virtual servers, before the
rack arrives. Every machine of the inventory, or each HOST that you name, becomes a
virtual server that says of itself what the inventory says of it: UUID, MACs, serial
number, asset tag, and a blank disk of that name and size. It boots real firmware in
a network namespace of its own, in which a bridge plays your network. Your
data directory and your networks are not touched. It needs root and no KVM.

  bootlane lab try --inventory rack7.yaml
  bootlane lab try --inventory rack7.yaml --bundle out/debian-12 --provision r7-n01 r7-n02

Without --provision nothing is installed: each machine asks, and is told what it
would be told now. With --provision each is granted an install and followed until it
is installed, failed or held. The exit code is 0 when every machine ended as hoped:
installed, or without --provision sent to its own disk.

A machine takes 1 GB of memory, one processor and, without KVM, some four minutes
for an image; it is switched off when its end is known. More than 8 must be named.
Consoles, a packet capture, the timelines and the disks of those that did not end as
hoped stay in the --out directory, in try/, which the next trial empties.`

// trialFlags are the flags of `lab try` as they were typed.
type trialFlags struct {
	lab.Trial
	firmware string
	bundles  []string
	inner    bool
}

func (a *app) labTryCmd() *cobra.Command {
	cfg := lab.Config{Out: a.Stdout, Now: a.Now}
	var t trialFlags
	cmd := &cobra.Command{Use: "try --inventory FILE [HOST...]", Short: "try your own configuration and inventory on virtual servers", Long: labTryLong, Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := t.usage(argv); err != nil {
				return usageError{err}
			}
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the bootlane binary: %w", err)
			}
			cfg.Bootlane = exe
			if err := absolute(&cfg.Dir); err != nil {
				return err
			}
			err = t.read()
			if !t.inner {
				err = errors.Join(err, t.Check(cfg))
			}
			switch {
			case err != nil:
				return err
			case t.inner:
				return t.Inner(ctx, cfg)
			}
			return lab.Try(ctx, cfg, t.Trial)
		}}
	f := cmd.Flags()
	f.StringVarP(&t.ConfigFile, "config", "c", a.fromEnv("BOOTLANE_CONFIG", "/etc/bootlane/config.yaml"), "configuration `file` of the server (BOOTLANE_CONFIG)")
	f.StringVarP(&t.Inventory, "inventory", "i", "", "inventory `file`")
	f.StringArrayVarP(&t.bundles, "bundle", "b", nil, "`directory` of a bundle; may be given several times")
	f.StringVar(&t.firmware, "firmware", string(lane.UEFI), "`kind` of firmware: uefi or bios")
	f.BoolVar(&t.Provision, "provision", false, "grant each machine an install, and follow it")
	f.IntVar(&t.AtOnce, "at-once", 2, "`number` of machines switched on at the same time")
	f.DurationVar(&t.Limit, "limit", 20*time.Minute, "`time` that one machine may take")
	f.BoolVar(&t.Keep, "keep", false, "keep the disks of machines that ended as hoped as well")
	f.StringVar(&cfg.Dir, "out", "lab-out", "`directory` for consoles, packets and timelines")
	f.BoolVar(&t.inner, "inner", false, "run in the namespace that this process is in")
	_ = f.MarkHidden("inner") // the flag was defined one line above
	return cmd
}

// usage looks at what the command line alone shows, all at once.
func (t *trialFlags) usage(hosts []string) error {
	var problems []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	t.Hosts, t.Firmware = hosts, lane.Firmware(t.firmware)
	bad(t.Inventory == "", "give the inventory with --inventory")
	bad(t.Provision && len(t.bundles) == 0, "give what is to be installed with --bundle DIR: a directory with a bundle.yaml")
	bad(t.Firmware != lane.UEFI && t.Firmware != lane.BIOS, "--firmware %q: use uefi or bios", t.firmware)
	bad(t.AtOnce < 1, "--at-once %d: at least one machine must run", t.AtOnce)
	bad(t.Limit < time.Minute || t.Limit > 24*time.Hour, "--limit %s: from 1m to 24h", t.Limit)
	return errors.Join(problems...)
}

// read reads the configuration and the bundles' manifests. The error holds all
// problems of all of them.
func (t *trialFlags) read() error {
	network, err := readBootNetwork(t.ConfigFile)
	problems := []error{err}
	t.Site = lab.Site(network)
	for _, dir := range t.bundles {
		m, err := bundle.ReadManifest(dir)
		b := lab.Bundle{Dir: dir, Bundle: m}
		problems = append(problems, err, absolute(&b.Dir))
		t.Bundles = append(t.Bundles, b)
	}
	return errors.Join(problems...)
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

func scenarioKeys(argv []string, full bool) ([]string, error) {
	var keys, usual []string
	known := map[string]bool{}
	for _, s := range lab.Scenarios() {
		keys = append(keys, s.Key)
		known[s.Key] = true
		if full || !s.Full {
			usual = append(usual, s.Key)
		}
	}
	if len(argv) == 0 {
		return usual, nil
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
		mark := ""
		if s.Full {
			mark = " (only when named, or with --full)"
		}
		fmt.Fprintf(&b, "  %s  %s%s\n", s.Key, s.Title, mark)
	}
	return b.String()
}
