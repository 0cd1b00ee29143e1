package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	server "bootlane/internal/app"
	"bootlane/internal/lane"
)

const serveLong = `Serve DHCP, TFTP and HTTP on the boot network, and the operators' API.

The configuration is one YAML file; docs/configuration.md lists its keys. All of
its problems are reported at once. Give root, or CAP_NET_BIND_SERVICE,
CAP_NET_RAW and CAP_NET_ADMIN.`

func (a *app) serveCmd() *cobra.Command {
	var config string
	var check bool
	cmd := &cobra.Command{Use: "serve", Short: "serve the boot network", Long: serveLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		if check {
			cfg, notes, err := server.CheckConfig(cmd.Context(), config)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Stdout, "%s is good: DHCP for %s, machines at %s, operators at http://%s\n",
				config, cfg.Subnets(), cfg.BaseURL(""), cfg.Listen.Operators)
			for _, note := range notes {
				fmt.Fprintln(a.Stdout, "NOTE:", lane.Clean(note, 1000))
			}
			return nil
		}
		cfg, err := server.LoadConfig(config)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		s, err := server.New(ctx, cfg, a.Version, cfg.NewLog(a.Stderr))
		if err != nil {
			return ownError{err}
		}
		if err := s.Run(ctx); err != nil {
			return ownError{err}
		}
		return nil
	}}
	cmd.Flags().StringVarP(&config, "config", "c", a.fromEnv("BOOTLANE_CONFIG", "/etc/bootlane/config.yaml"), "configuration `file` (BOOTLANE_CONFIG)")
	cmd.Flags().BoolVar(&check, "check", false, "only look at the configuration, its files, the interfaces, and whether each port can be opened")
	return cmd
}

// bootNetwork is what a configuration says of its network, and how to write it down
// for a server that keeps its data, and listens for operators, somewhere else.
type bootNetwork struct {
	Interface string
	Addresses []string
	Config    func(data, operators string) ([]byte, error)
}

// readBootNetwork reads a configuration. Its errors are those of `serve --check`.
func readBootNetwork(file string) (bootNetwork, error) {
	cfg, err := server.LoadConfig(file)
	if err != nil {
		return bootNetwork{}, err
	}
	n := cfg.Networks[0]
	if len(cfg.Networks) > 1 || n.Mode != "own" || len(n.Relays) > 0 {
		return bootNetwork{}, fmt.Errorf("%s has several networks, a relayed one, or one with mode: proxy or external, and the lab is one network without any other server: try it with a copy that has one attached network, mode: own and a range", file)
	}
	subnet, err := netip.ParsePrefix(n.Subnet)
	if err != nil {
		return bootNetwork{}, fmt.Errorf("parse the subnet: %w", err)
	}
	out := bootNetwork{Interface: n.Interface, Addresses: []string{fmt.Sprintf("%s/%d", n.Server, subnet.Bits())}}
	if n.IPv6 != nil {
		if p, err := netip.ParsePrefix(n.IPv6.Subnet); err == nil { // checked with the rest
			out.Addresses = append(out.Addresses, fmt.Sprintf("%s/%d", n.IPv6.Server, p.Bits()))
		}
	}
	// Listeners may have other addresses, behind a router: all of them are ours here.
	others := slices.Clone(n.Routers)
	for _, listen := range []string{cfg.Listen.Machines, cfg.Listen.TFTP} {
		a, err := netip.ParseAddrPort(listen)
		if err != nil {
			return bootNetwork{}, errors.Join(errors.New("parse a listener's address"), err)
		}
		others = append(others, a.Addr().String())
	}
	for _, text := range others {
		a, err := netip.ParseAddr(text)
		if err == nil && text != n.Server && !a.IsUnspecified() && !a.IsLoopback() && !slices.Contains(out.Addresses, text+"/32") {
			out.Addresses = append(out.Addresses, text+"/32")
		}
	}
	out.Config = func(data, operators string) ([]byte, error) {
		cfg.Data, cfg.Listen.Operators = data, operators
		text, err := yaml.Marshal(cfg)
		if err != nil {
			return nil, fmt.Errorf("write the configuration down: %w", err)
		}
		return append([]byte("# "+file+" for `bootlane lab try`, with all defaults: data and listen.operators are the lab's own.\n"), text...), nil
	}
	return out, nil
}
