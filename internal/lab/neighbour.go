package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// neighbourAddr is the address of the site's own DHCP server.
const neighbourAddr = "192.168.77.2"

// neighbour starts dnsmasq as a site's own DHCP server.
func (l *Lab) neighbour(ctx context.Context) error {
	inside, err := l.computer(ctx)
	if err != nil {
		return err
	}
	args := append(inside[1:], "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--log-dhcp", "--log-facility=-",
		"--interface="+l.site.Interface, "--dhcp-range=192.168.77.50,192.168.77.99,1h", "--dhcp-leasefile="+filepath.Join(l.dir, "neighbour.leases"), "--pid-file")
	_, err = l.spawn(filepath.Join(l.dir, "neighbour.log"), inside[0], args...)
	l.peers = map[string]string{neighbourAddr: "dnsmasq-base"}
	return err
}

// computer makes the computer of a site's own DHCP server, a second namespace at the
// same bridge, and returns the command that runs others in it. Its interface is called
// as ours is, as in an exported configuration.
func (l *Lab) computer(ctx context.Context) ([]string, error) {
	host, err := l.spawn(filepath.Join(l.dir, "neighbour.log"), "unshare", "-n", "sleep", "3600")
	if err != nil {
		return nil, err
	}
	pid := fmt.Sprint(host.cmd.Process.Pid)
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("read our namespace: %w", err)
	}
	if err := l.until(ctx, 10*time.Second, "the neighbour has a namespace", func() (bool, error) {
		theirs, err := os.Readlink("/proc/" + pid + "/ns/net")
		return err == nil && theirs != ours, nil
	}); err != nil {
		return nil, err
	}
	inside := []string{"nsenter", "-t", pid, "-n"}
	for _, step := range []struct {
		inside []string
		ip     string
	}{
		{nil, "link add name site0 type veth peer name " + l.site.Interface + " netns " + pid},
		{nil, "link set site0 master " + l.site.Interface + " up"},
		{inside, "address add " + neighbourAddr + "/24 dev " + l.site.Interface},
		{inside, "link set " + l.site.Interface + " up"},
	} {
		if err := run(ctx, step.inside, "ip", strings.Fields(step.ip)...); err != nil {
			return nil, err
		}
	}
	return inside, nil
}

// beside boots machines on a network whose addresses are somebody else's.
func beside(ctx context.Context, l *Lab) error {
	uefi := l.machine("node-h-uefi", lane.UEFI, Disk{Serial: "SYSTEM-H1", Bytes: 2 * gigabyte})
	bios := l.machine("node-h-bios", lane.BIOS, Disk{Serial: "SYSTEM-H2", Bytes: 2 * gigabyte})
	if err := l.neighbour(ctx); err != nil {
		return err
	}
	if err := l.ready(ctx, l.cfg.Image, uefi, bios); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, bios, uefi); err != nil {
		return err
	}
	for _, m := range []*Machine{bios, uefi} {
		if err := l.leasedByNeighbour(ctx, m, "neighbour.leases"); err != nil {
			return err
		}
		if _, err := l.client.Act(ctx, m.Name, "cancel", "the way is shown"); err != nil {
			return err
		}
	}
	return l.toldToBootDisk(ctx, uefi)
}

// besideKea boots machines on a network whose addresses are Kea's.
func besideKea(ctx context.Context, l *Lab) error {
	inside, err := l.computer(ctx)
	if err != nil {
		return err
	}
	web := l.machine("node-k-http", lane.UEFI, Disk{Serial: "SYSTEM-K3", Bytes: gigabyte})
	web.Boot = HTTP
	return l.kea(ctx, "proxy", inside, l.machine("node-k-uefi", lane.UEFI, Disk{Serial: "SYSTEM-K1", Bytes: gigabyte}), l.machine("node-k-bios", lane.BIOS, Disk{Serial: "SYSTEM-K2", Bytes: gigabyte}), web)
}

// withKea does so with Kea and Bootlane on one computer.
func withKea(ctx context.Context, l *Lab) error {
	return l.kea(ctx, "proxy-4011", nil, l.machine("node-l-uefi", lane.UEFI, Disk{Serial: "SYSTEM-L1", Bytes: gigabyte}), l.machine("node-l-bios", lane.BIOS, Disk{Serial: "SYSTEM-L2", Bytes: gigabyte}))
}

// kea starts Kea, with the configuration that is exported for it, and boots machines.
func (l *Lab) kea(ctx context.Context, form string, inside []string, machines ...*Machine) error {
	if err := l.ready(ctx, l.cfg.Image, machines...); err != nil {
		return err
	}
	if _, err := l.exportedServer(ctx, lane.DHCPExport{Server: "kea", Form: form, Range: "192.168.77.50-192.168.77.99"}, inside); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, machines...); err != nil {
		return err
	}
	for _, m := range machines {
		if err := l.leasedByNeighbour(ctx, m, "kea.leases"); err != nil {
			return err
		}
	}
	return nil
}

// leasedByNeighbour expects that the machine came to the agent with an address
// that we did not give.
func (l *Lab) leasedByNeighbour(ctx context.Context, m *Machine, file string) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	leases, err := os.ReadFile(filepath.Join(l.dir, file))
	if err != nil {
		return fmt.Errorf("read the neighbour's leases: %w", err)
	}
	l.expect(strings.Contains(string(leases), string(m.MACs[0])), "%s has a lease of the site's own server", m.Name)
	l.expect(!slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindLease }), "and none of ours: it got its boot files and its agent from Bootlane alone")
	return nil
}

// toldToBootDisk boots a machine that is not to be installed any more.
func (l *Lab) toldToBootDisk(ctx context.Context, m *Machine) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	asked := func() (bool, error) {
		n, err := l.asked(ctx, m)
		return n > 0, err
	}
	if err := l.until(ctx, patience, m.Name+" is sent to its disk", asked); err != nil {
		return err
	}
	l.expect(!m.shows("iPXE"), "%s, cancelled, is sent to its disk by the proxy, without a boot loader", m.Name)
	return nil
}
