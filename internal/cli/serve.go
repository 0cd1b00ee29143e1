package cli

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	server "bootlane/internal/app"
)

const serveLong = `Serve DHCP, TFTP and HTTP on the boot network, and the operators' API.

The configuration is one YAML file; docs/configuration.md lists its keys. All of
its problems are reported at once. Give root, or CAP_NET_BIND_SERVICE,
CAP_NET_RAW and CAP_NET_ADMIN.`

func (a *app) serveCmd() *cobra.Command {
	var config string
	var check bool
	cmd := &cobra.Command{Use: "serve", Short: "serve the boot network", Long: serveLong, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		cfg, err := server.LoadConfig(config)
		if err != nil {
			return err
		}
		if check {
			if err := cfg.Check(); err != nil {
				return err
			}
			fmt.Fprintf(a.Stdout, "%s is good: DHCP on %s for %s, machines at http://%s, operators at http://%s\n",
				config, cfg.DHCP.Interface, cfg.DHCP.Subnet, cfg.Listen.Machines, cfg.Listen.Operators)
			return nil
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
	cmd.Flags().BoolVar(&check, "check", false, "only say whether this configuration would serve")
	return cmd
}
