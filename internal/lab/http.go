package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// httpBoot boots a machine whose firmware fetches its loader by HTTP.
func httpBoot(ctx context.Context, l *Lab) error {
	m := l.machine("node-x", lane.UEFI, Disk{Serial: "SYSTEM-X", Bytes: 2 * gigabyte})
	m.Boot = HTTP
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	return l.loadedBy(ctx, m, lane.SurfaceHTTP)
}

// reachesAgent provisions machines, and follows them as far as their agent's first report.
func (l *Lab) reachesAgent(ctx context.Context, machines ...*Machine) error {
	for _, m := range machines {
		if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
	}
	for _, m := range machines {
		if err := l.stage(ctx, m.Name, lane.StageKernel, patience); err != nil {
			return err
		}
		m.stop()
	}
	return nil
}

// loadedBy expects that firmware got its boot loader over a surface.
func (l *Lab) loadedBy(ctx context.Context, m *Machine, s lane.Surface) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool { return strings.HasSuffix(e.Name, ".efi") && e.Surface == s }), "its firmware loaded the boot loader by %s", s)
	return nil
}

// exported boots machines in a network whose DHCP server is somebody else's, and was
// configured by `bootlane dhcp export`: one server after the other.
func exported(ctx context.Context, l *Lab) error {
	servers := []string{"dnsmasq", "kea", "isc"}
	machines := map[string][]*Machine{}
	var all []*Machine
	for _, s := range servers {
		for _, way := range []Way{PXE, HTTP} {
			m := l.machine(fmt.Sprintf("node-y-%s-%s", s, cmp.Or(way, "pxe")), lane.UEFI, Disk{Serial: fmt.Sprintf("SYSTEM-Y-%d", len(all)), Bytes: gigabyte})
			m.Boot = way
			machines[s], all = append(machines[s], m), append(all, m)
		}
	}
	if err := l.ready(ctx, l.cfg.Image, all...); err != nil {
		return err
	}
	inside, err := l.computer(ctx)
	if err != nil {
		return err
	}
	for _, s := range servers {
		p, err := l.exportedServer(ctx, lane.DHCPExport{Server: s, Form: "owned"}, inside)
		if err != nil {
			return err
		}
		if err := l.reachesAgent(ctx, machines[s]...); err != nil {
			return err
		}
		for _, m := range machines[s] {
			if err := l.leasedElsewhere(ctx, m, s); err != nil {
				return err
			}
		}
		p.kill()
	}
	return nil
}

// exportedServer starts a DHCP server with the configuration that is written for it, on
// the computer that inside leads to, or on ours.
func (l *Lab) exportedServer(ctx context.Context, e lane.DHCPExport, inside []string) (*process, error) {
	kind, addr := e.Server, neighbourAddr
	if inside == nil {
		inside, addr = []string{"env"}, serverAddr
	}
	r, err := l.client.ExportDHCP(ctx, e)
	if err != nil {
		return nil, err
	}
	file := func(suffix string) string { return filepath.Join(l.dir, kind+suffix) }
	// Kea keeps its leases where the site's own one does, unless told.
	body := strings.Replace(r.Body, `"persist": true`, `"persist": true, "name": "`+file(".leases")+`"`, 1)
	for name, text := range map[string]string{".conf": body, ".leases": ""} {
		if err := os.WriteFile(file(name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("write for %s: %w", kind, err)
		}
	}
	command := map[string][]string{
		"dnsmasq": {"dnsmasq", "--keep-in-foreground", "--user=root", "--log-dhcp", "--log-facility=-", "--pid-file", "--conf-file=" + file(".conf"), "--dhcp-leasefile=" + file(".leases")},
		"kea":     {"env", "KEA_LOCKFILE_DIR=" + l.dir, "KEA_PIDFILE_DIR=" + l.dir, "kea-dhcp4", "-c", file(".conf")},
		"isc":     {"dhcpd", "-4", "-f", "-d", "-cf", file(".conf"), "-lf", file(".leases"), "-pf", file(".pid"), l.site.Interface},
	}[kind]
	l.peers = map[string]string{addr: map[string]string{"dnsmasq": "dnsmasq-base", "kea": "kea-dhcp4-server", "isc": "isc-dhcp-server"}[kind]}
	l.say("%s serves DHCP, as exported", kind)
	return l.spawn(file(".log"), inside[0], slices.Concat(inside[1:], command)...)
}

// leasedElsewhere expects that a machine has its address of another server only.
func (l *Lab) leasedElsewhere(ctx context.Context, m *Machine, server string) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	ours := slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindLease })
	reserved := slices.ContainsFunc(events, func(e lane.Event) bool {
		return e.Speaker == lane.SpeakerLoader && e.Facts != nil && e.Facts.From == fmt.Sprintf("192.168.77.%d", 20+m.number)
	})
	l.expect(!ours && reserved, "%s came to its agent with the address that %s keeps for it", m.Name, server)
	return nil
}
