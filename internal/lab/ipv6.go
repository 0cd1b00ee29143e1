package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// serverAddr6 is the server's IPv6 address in the scenarios.
const serverAddr6 = "fd77::1"

const ipv6Keys = `
    ipv6:
      server: fd77::1
      subnet: fd77::/64
      range: fd77::1000-fd77::1fff
      dns: [fd77::1]`

// onlyIPv6 is a network in which nobody gives IPv4 addresses: those would be for
// machines behind a relay agent that is not there.
const onlyIPv6 = `  - interface: br0
    relays: [192.168.99.1]
    server: 192.168.77.1
    subnet: 192.168.99.0/24
    range: 192.168.99.100-192.168.99.199` + ipv6Keys

// routerConfig makes radvd say what a site's router must: ask DHCPv6 for an address (M)
// and the rest (O), and make none of the prefix (no A): who does not ask has none.
const routerConfig = `interface br0 {
  AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on;
  MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
  prefix fd77::/64 { AdvOnLink on; AdvAutonomous off; };
};
`

// router starts the site's IPv6 router, as far as it advertises.
func (l *Lab) router() error {
	config := filepath.Join(l.dir, "radvd.conf")
	if err := os.WriteFile(config, []byte(routerConfig), 0o644); err != nil {
		return fmt.Errorf("write the router's configuration: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("make a router of us: %w", err)
	}
	_, err := l.spawn(filepath.Join(l.dir, "radvd.log"), "radvd", "--nodaemon", "--config", config, "--pidfile", filepath.Join(l.dir, "radvd.pid"), "--logmethod", "stderr", "--debug", "1")
	return err
}

// pxe6 boots a machine by PXE in a network without IPv4, as far as its agent's first
// report, and sends it to its disk after that.
func pxe6(ctx context.Context, l *Lab) error {
	m := l.machine("node-v", lane.UEFI, Disk{Serial: "SYSTEM-V", Bytes: 2 * gigabyte})
	m.Boot, m.place.net = PXE6, "192.168.99" // a reservation of IPv4 that nobody will ask for
	if err := l.router(); err != nil {
		return err
	}
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.stage(ctx, m.Name, lane.StageKernel, patience); err != nil {
		return err
	}
	if err := l.cameByIPv6(ctx, m, "fd77::21"); err != nil {
		return err
	}
	if err := l.reportedFrom(ctx, m, "fd77::21"); err != nil {
		return err
	}
	m.stop()
	if _, err := l.client.Act(ctx, m.Name, "cancel", "the way is shown"); err != nil {
		return err
	}
	return l.refusedByTFTP(ctx, m)
}

// reportedFrom expects that a machine's agent reported from the address that DHCPv6 gave it.
func (l *Lab) reportedFrom(ctx context.Context, m *Machine, address string) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool {
		return e.Kind == lane.KindStage && e.Stage == lane.StageKernel && e.Facts != nil && e.Facts.From == address
	}), "its agent asked DHCPv6, and reported from %s", address)
	if err != nil {
		return err
	}
	return l.screen(ctx, m, `net: +\S+ \(`+string(m.MACs[0])+`, \S+\) has `+address+` from fe80::`, 20*time.Second)
}

// refusedByTFTP boots a machine that is not to be installed any more: DHCPv6 has no boot
// menu, and its firmware goes on to the next boot option when its file is refused.
func (l *Lab) refusedByTFTP(ctx context.Context, m *Machine) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.screen(ctx, m, `failed to load Boot[0-9]+ "UEFI PXEv6`, patience); err != nil {
		return err
	}
	n, err := l.asked(ctx, m)
	l.expect(n > 0 && !m.shows("iPXE"), "%s, cancelled, is sent to its disk by a file that is refused, without a boot loader", m.Name)
	return err
}

// http6 boots a machine that nobody knows by HTTP over IPv6, in a network without IPv4.
func http6(ctx context.Context, l *Lab) error {
	m := l.machine("stranger-w", lane.UEFI, Disk{Serial: "SYSTEM-W", Bytes: gigabyte})
	m.Boot = HTTP6
	if err := l.router(); err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "Bootlane holds this machine", patience); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "boot server: "+regexp.QuoteMeta("http://["+serverAddr6+"]:8080"), 20*time.Second); err != nil {
		return err
	}
	l.expect(true, "its boot loader came and asked by IPv6 alone")
	l.expect(m.shows(string(lane.UnknownMachine)) && m.shows(string(m.UUID)), "its screen says who it is, and why it is held")
	l.expect(blank(m, 0), "its disk is still blank")
	return l.cameByIPv6(ctx, m, "fd77::1000")
}

// cameByIPv6 expects that firmware got an address and its boot loader by IPv6.
func (l *Lab) cameByIPv6(ctx context.Context, m *Machine, address string) error {
	for _, subject := range m.subjects() {
		events, err := l.client.Events(ctx, subject, 0, 5000)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			continue
		}
		l.expect(slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindLease && e.Message == "leased "+address }), "%s leased %s", m.Name, address)
		l.expect(slices.ContainsFunc(events, func(e lane.Event) bool {
			return strings.HasSuffix(e.Name, ".efi") && e.Facts != nil && strings.HasPrefix(e.Facts.From, "fd77:")
		}), "its firmware loaded the boot loader by IPv6")
		return nil
	}
	return fmt.Errorf("there is no evidence of %s", m.Name)
}
