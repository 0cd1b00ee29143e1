package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Scenario is one story that the lab plays.
type Scenario struct {
	Key   string
	Title string
	play  func(ctx context.Context, l *Lab) error
	dhcp  string   // of the configuration; empty: Bootlane owns the network
	Full  bool     // slow, or of little news: played when it is named, or with all
	needs []string // programs and files, beside what all of them need
}

// Scenarios returns every scenario: those that are played by default first, the longest of them first. In a network without DHCPv6, OVMF
// waits a minute for it on its way to the disk: the one with the most power cycles has it.
func Scenarios() []Scenario {
	return []Scenario{
		{"c", "the Debian installer, UEFI and BIOS: own seed, identity gate, report; then the deadline", installer, "", false, nil},
		{"a", "the main job, UEFI: blank disk to installed, and two more power cycles", mainJob, ownDHCP + ipv6Keys, false, nil},
		{"s", "the main job with Secure Boot enforced, Microsoft's keys: signed by network and from the disk; then held", secureJob, ownDHCP + ipv6Keys + secureLoaders, false, []string{secureCode}},
		{"g", "the server is killed twice on the way; the run goes on", killed, "", false, nil},
		{"t", "the Debian installer with Secure Boot enforced: shim, GRUB, kernel; own seed, identity gate", secureInstaller, ownDHCP + secureLoaders, false, []string{secureCode}},
		{"b", "the main job, legacy BIOS", legacy, "", false, nil},
		{"e", "registered MAC, foreign UUID: quarantine, accept, and on", foreign, "", false, nil},
		{"o", "Secure Boot with the owner's keys, UEFI: iPXE and kernel signed by them run, as far as the agent's first report; unsigned iPXE does not", ownKeys, "", false, []string{secureCode, plainIPXE}},
		{"f", "a disk of the wrong serial, and one of the wrong size: nothing is written", wrongDisk, "", false, nil},
		{"h", "proxyDHCP beside a site's own DHCP server, UEFI and BIOS", beside, proxyDHCP, false, []string{"dnsmasq"}},
		{"u", "Secure Boot, chains that cannot hold: refused beforehand; forced, refused by the firmware and by shim; GRUB by HTTP Boot", brokenChains, ownDHCP + secureLoaders, false, []string{secureCode}},
		{"k", "proxyDHCP beside Kea on another computer, as exported: PXE by UEFI and BIOS, HTTP Boot", besideKea, proxyDHCP, true, []string{"kea-dhcp4"}},
		{"l", "proxyDHCP on Kea's own computer, as exported: port 4011 alone, UEFI and BIOS", withKea, proxyDHCP + "\n    only4011: true", true, []string{"kea-dhcp4"}},
		{"v", "PXE over IPv6 alone, UEFI: as far as the agent's first report, then to its disk", pxe6, onlyIPv6, true, []string{"radvd"}},
		{"w", "HTTP Boot over IPv6 alone, UEFI: an unknown machine is held, and told why", http6, onlyIPv6, true, []string{"radvd"}},
		{"x", "HTTP Boot, UEFI: as far as the agent's first report", httpBoot, "", true, nil},
		{"y", "the site's own DHCP server names the boot files, as exported: dnsmasq, Kea, ISC; PXE and HTTP Boot", exported, externalDHCP, true, []string{"dnsmasq", "kea-dhcp4", "dhcpd"}},
		{"m", "arm64 UEFI: an image for x86_64 is refused; shim and GRUB by PXE, as far as the identity gate of the Debian installer; not by HTTP Boot", arm64, ownDHCP + armLoaders, true, []string{"qemu-system-aarch64", armCode, armLoader}},
		{"i", "UEFI of 32 bits: an unknown machine is held, and SYSLINUX tells it why", ia32, ownDHCP + efi32Loaders, true, []string{ia32Code, efi32Loader, efi32Rest}},
		{"r", "behind a router and a relay agent, UEFI: as far as the agent's first report", relayed, relayedDHCP, true, []string{"dhcrelay"}},
		{"p", "SYSLINUX in place of iPXE, UEFI: as far as the agent's first report", syslinux, ownDHCP + efi64Loaders, true, []string{efi64Loader, efi64Rest}},
		{"j", "a tagged boot VLAN, UEFI: firmware, SYSLINUX and the agent tag, as far as the agent's first report", tagging, ownDHCP + efi64Loaders, true, []string{efi64Loader, efi64Rest}},
		{"q", "U-Boot on arm64: configuration, kernel and initrd by TFTP, as far as the identity gate of the Debian installer", uboot, "", true, []string{"qemu-system-aarch64", ubootCode, armLoader}},
		{"z", "first boot of nodes for Kubernetes, UEFI: a sound one is ready; a wrong name, a wrong clock, a missing module and a stopped containerd are each named", readiness, "", true, nil},
		{"tpm", "an image that is encrypted, UEFI: the machine's TPM opens the disk at each boot, and another TPM does not", sealedByTPM, ownDHCP + ipv6Keys + rolesTPM, true, append(sealTools(), "swtpm")},
		{"tang", "an image that is encrypted, legacy BIOS: a Tang server opens the disk at each boot; without it the machine waits, until it is back", sealedByTang, ownDHCP + rolesTang, true, append(sealTools(), tangProgram, "systemd-socket-activate")},
		{"n", "a machine that nobody knows, UEFI: looked at from RAM, adopted, its disk written and another cleared without a hand on it", commissioned, "", true, nil},
		{"d", "an unknown machine: held, and told why", unknown, "", false, nil},
	}
}

// serverAddr is the server's address in the scenarios.
const serverAddr = "192.168.77.1"

const serverConfig = `data: %s
listen:
  operators: %s
networks:
%s
site:
  user: ops
  domain: lab.example
  sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA nobody@lab.example"]
policy:
  askMirrors: false # the lab has none
  held: {wait: 5s}
  bootRetry: 10s
  stageLimits: {kernel: 4m}
log: debug
`

const ownDHCP = `  - interface: br0
    server: 192.168.77.1
    subnet: 192.168.77.0/24
    range: 192.168.77.100-192.168.77.199
    routers: [192.168.77.1]
    dns: [192.168.77.1]
    domain: lab.example`

const proxyDHCP = `  - mode: proxy
    interface: br0
    server: 192.168.77.1
    subnet: 192.168.77.0/24`

// externalDHCP is a network in which Bootlane speaks no DHCP.
const externalDHCP = `  - mode: external
    interface: br0
    server: 192.168.77.1
    subnet: 192.168.77.0/24
    range: 192.168.77.50-192.168.77.99`

func scenarioSite(dhcp, trust string) Site {
	return Site{Interface: "br0", Addresses: []string{serverAddr + "/24", serverAddr6 + "/64"}, Config: func(data, operators string) ([]byte, error) {
		text := fmt.Appendf(nil, serverConfig, data, operators, dhcp)
		if trust != "" {
			text = fmt.Appendf(text, "bundles: {trust: %q}\n", trust)
		}
		return text, nil
	}}
}

const gigabyte = 1_000_000_000

// patience is how long one step may take without KVM, on a machine that is busy with
// more than the lab: a boot from disk took five minutes beside an image build.
const patience = 8 * time.Minute

func (l *Lab) ready(ctx context.Context, bundleDir string, machines ...*Machine) error {
	b, err := l.client.ImportBundle(ctx, lane.BundleImport{Dir: bundleDir})
	if err != nil {
		return err
	}
	for _, m := range machines {
		if err := l.enrol(ctx, m.spec(b.Ref())); err != nil {
			return err
		}
	}
	l.say("bundle %s imported, %d machines enrolled", b.Ref(), len(machines))
	return nil
}

func (l *Lab) provision(ctx context.Context, m *Machine, p lane.Provisioning) error {
	h, err := l.client.Provision(ctx, m.Name, p)
	if err == nil {
		l.say("%s provisioned: run %s until %s", m.Name, h.Run.ID, h.Run.Deadline.Format(time.TimeOnly))
	}
	return err
}

func mainJob(ctx context.Context, l *Lab) error {
	m := l.machine("node-a", lane.UEFI, Disk{Serial: "SYSTEM-A", Bytes: 2 * gigabyte}, Disk{Serial: "DATA-A", Bytes: 100_000_000})
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.install(ctx, m); err != nil {
		return err
	}
	before, err := hash(m.DiskFile(1))
	if err != nil {
		return err
	}
	l.expect(before == blankHash(m.Disks[1].Bytes), "the disk that the selector does not name is untouched")
	for i := range 2 {
		if err := l.bootsLocally(ctx, m, i+1); err != nil {
			return err
		}
	}
	h, err := l.client.Host(ctx, m.Name)
	if err != nil {
		return err
	}
	l.expect(h.State == lane.StateInstalled && h.Run.BootsUsed == 1, "%s is %s, with %d network boot counted", m.Name, h.State, h.Run.BootsUsed)
	return l.nothingInstalls(ctx, m)
}

// install provisions a machine, powers it on, and waits until it is installed.
func (l *Lab) install(ctx context.Context, m *Machine) error {
	if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	for _, s := range []lane.Stage{lane.StageScript, lane.StageKernel, lane.StageDiskWritten, lane.StageFirstBoot, lane.StageReady} {
		if err := l.stage(ctx, m.Name, s, patience); err != nil {
			return err
		}
	}
	if err := l.state(ctx, m.Name, lane.StateInstalled, 10*time.Second); err != nil {
		return err
	}
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool {
		return e.Kind == lane.KindInstalled && strings.Contains(e.Message, "user ops")
	}),
		"%s went from a blank disk to installed, and its first boot made the site's administrator", m.Name)
	return l.screen(ctx, m, m.Name+" login:", patience)
}

// bootsLocally power-cycles a machine; it asks the network first, and must end on its disk.
func (l *Lab) bootsLocally(ctx context.Context, m *Machine, nth int) error {
	before, err := l.asked(ctx, m)
	if err != nil {
		return err
	}
	// Longer than the kernel keeps a write to itself: what is to be shown is the boot
	// order, not what a file system bears.
	if err := l.pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := m.cycle(ctx); err != nil {
		return err
	}
	l.say("%s power-cycled, time %d", m.Name, nth)
	if err := l.screen(ctx, m, m.Name+" login:", patience); err != nil {
		return err
	}
	after, err := l.asked(ctx, m)
	if err != nil {
		return err
	}
	l.expect(after > before, "%s asked the network again, was sent to its disk, and booted it", m.Name)
	return nil
}

// asked counts the answers "local boot" that a machine was given.
func (l *Lab) asked(ctx context.Context, m *Machine) (int, error) {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	n := 0
	for _, e := range events {
		if (e.Kind == lane.KindAsked || e.Kind == lane.KindServed) && e.Action == lane.LocalBoot.String() {
			n += e.Count
		}
	}
	return n, err
}

// nothingInstalls walks every route that ever gave the machine an installing
// byte, and expects each to refuse.
func (l *Lab) nothingInstalls(ctx context.Context, m *Machine) error {
	paths, err := l.servedPaths(m)
	if err != nil {
		return err
	}
	l.expect(len(paths) > 0, "%d run paths were seen on the wire", len(paths))
	for _, p := range paths {
		status, _, err := fetch(ctx, p)
		if err != nil {
			return err
		}
		l.expect(status == http.StatusForbidden, "%s is refused now: %d", regexp.MustCompile(`run/[^/]+`).ReplaceAllString(p, "run/…"), status)
	}
	status, body, err := fetch(ctx, "http://"+serverAddr+":8080"+lane.ScriptPath+"?uuid="+string(m.UUID)+"&mac="+m.MACs[0].Hyphens()+"&serial="+m.Serial+"&asset="+m.Asset+"&buildarch=x86_64&platform=efi")
	l.expect(err == nil && status == http.StatusOK && !strings.Contains(body, "kernel ") && strings.Contains(body, "local boot"), "the boot script says local boot")
	return err
}

// servedPaths finds the URLs of the run on the machine's console: the kernel
// command line and iPXE's downloads show them.
func (l *Lab) servedPaths(m *Machine) ([]string, error) {
	b, err := os.ReadFile(m.file("serial.log"))
	if err != nil {
		return nil, fmt.Errorf("read the console: %w", err)
	}
	var out []string
	for _, u := range regexp.MustCompile(`http://`+regexp.QuoteMeta(serverAddr)+`:8080/run/[a-z0-9]{20,64}/(file/[0-9a-f]{64}/[A-Za-z0-9._-]+[A-Za-z0-9])`).FindAllString(ansi.ReplaceAllString(string(b), ""), -1) {
		if !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out, nil
}

func fetch(ctx context.Context, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", fmt.Errorf("ask for %s: %w", url, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("fetch %s: %w", url, err)
	}
	defer closeQuietly(res.Body)
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(body), err
}

func legacy(ctx context.Context, l *Lab) error {
	m := l.machine("node-b", lane.BIOS, Disk{Serial: "SYSTEM-B", Bytes: 2 * gigabyte})
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.install(ctx, m); err != nil {
		return err
	}
	return l.bootsLocally(ctx, m, 1)
}

func installer(ctx context.Context, l *Lab) error {
	uefi := l.machine("node-c-uefi", lane.UEFI, Disk{Serial: "SYSTEM-C1", Bytes: gigabyte})
	bios := l.machine("node-c-bios", lane.BIOS, Disk{Serial: "SYSTEM-C2", Bytes: gigabyte})
	if err := l.ready(ctx, l.cfg.Installer, uefi, bios); err != nil {
		return err
	}
	for _, m := range []*Machine{bios, uefi} {
		if err := l.provision(ctx, m, lane.Provisioning{For: 8 * time.Minute}); err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
	}
	for _, m := range []*Machine{bios, uefi} {
		if err := l.stage(ctx, m.Name, lane.StageKernel, 8*time.Minute); err != nil {
			return err
		}
		if err := l.readItsSeed(ctx, m); err != nil {
			return err
		}
		// What follows needs a package mirror, which a lab without a network has not.
		m.stop()
		l.say("%s switched off: the installer's further components cannot be had here", m.Name)
	}
	for _, m := range []*Machine{bios, uefi} {
		if err := l.state(ctx, m.Name, lane.StateFailed, 8*time.Minute); err != nil {
			return err
		}
		v, err := l.client.Why(ctx, m.Name)
		if err != nil {
			return err
		}
		l.expect(v.Rule == string(lane.RunExpired) && v.Stage == lane.StageKernel, "why %s: %s at stage %s: %s", m.Name, v.Rule, v.Stage, v.Because)
		l.expect(blank(m, 0), "the disk of %s is still blank", m.Name)
	}
	return nil
}

func (l *Lab) readItsSeed(ctx context.Context, m *Machine) error {
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	for _, name := range []string{"seed/preseed.cfg", "seed/early.sh"} {
		l.expect(slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindServed && e.Name == name && e.Digest != "" }),
			"%s fetched its own %s", m.Name, name)
	}
	i := slices.IndexFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindStage && e.Stage == lane.StageKernel })
	l.expect(i >= 0 && strings.Contains(events[i].Message, string(m.UUID)), "%s passed the identity gate and reported its UUID", m.Name)
	return nil
}

func unknown(ctx context.Context, l *Lab) error {
	m := l.machine("stranger", lane.UEFI, Disk{Serial: "SYSTEM-D", Bytes: gigabyte})
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "Bootlane holds this machine", patience); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "next: add the machine to the inventory", 20*time.Second); err != nil {
		return err
	}
	for _, want := range []string{string(lane.UnknownMachine), string(m.MACs[0]), string(m.UUID), m.Serial, m.Asset} {
		l.expect(m.shows(regexp.QuoteMeta(want)), "its screen shows %s", want)
	}
	return l.held(ctx, m)
}

// held expects that a machine without a record was given nothing, and left its traces.
func (l *Lab) held(ctx context.Context, m *Machine) error {
	events, err := l.client.Events(ctx, string(m.MACs[0]), 0, 5000)
	if err != nil {
		return err
	}
	l.expect(len(events) > 0, "%d lines of evidence are kept under its MAC", len(events))
	l.expect(!slices.ContainsFunc(events, func(e lane.Event) bool { return e.Run != "" || e.Action == lane.Install.String() }), "no installer or agent byte was served to it")
	v, err := l.client.Why(ctx, string(m.MACs[0]))
	l.expect(err == nil && v.Rule == string(lane.UnknownMachine), "why %s: %s", m.MACs[0], v.Because)
	l.expect(blank(m, 0), "its disk is still blank")
	return err
}

func foreign(ctx context.Context, l *Lab) error {
	m := l.machine("node-e", lane.UEFI, Disk{Serial: "SYSTEM-E", Bytes: 2 * gigabyte})
	real := m.UUID
	m.UUID = "11223344-5566-4777-8899-aabbccddeeff"
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	registered := m.UUID
	m.UUID = real
	if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := l.state(ctx, m.Name, lane.StateQuarantine, patience); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "identity-mismatch", patience); err != nil {
		return err
	}
	if err := l.screen(ctx, m, "Local boot in", 20*time.Second); err != nil {
		return err
	}
	l.expect(m.shows(string(registered)) && m.shows(string(real)), "its screen shows both UUIDs")
	h, err := l.client.Host(ctx, m.Name)
	if err != nil {
		return err
	}
	l.expect(h.Run.BootsUsed == 0 && len(h.Dispute) > 0, "the record is in quarantine with both sides, and no boot of the grant is used: %v", h.Dispute)
	if _, err := l.client.Accept(ctx, m.Name, lane.ReplacedBoard, h.Rev, "board replaced in the lab"); err != nil {
		return err
	}
	l.say("the new board is accepted")
	if err := m.cycle(ctx); err != nil {
		return err
	}
	if err := l.stage(ctx, m.Name, lane.StageKernel, patience); err != nil {
		return err
	}
	l.expect(true, "after `host accept` the same run goes on: the agent runs on it")
	return nil
}

func wrongDisk(ctx context.Context, l *Lab) error {
	serial := l.machine("node-f-serial", lane.UEFI, Disk{Serial: "SYSTEM-F1", Bytes: gigabyte})
	size := l.machine("node-f-size", lane.UEFI, Disk{Serial: "SYSTEM-F2", Bytes: gigabyte})
	if err := l.ready(ctx, l.cfg.Image, serial, size); err != nil {
		return err
	}
	// The machines come with other disks than the inventory describes.
	serial.Disks[0].Serial = "SOMEBODYS-DATA"
	size.Disks[0].Bytes = 3 * gigabyte
	for _, m := range []*Machine{serial, size} {
		if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
	}
	for _, m := range []*Machine{serial, size} {
		before := blankHash(m.Disks[0].Bytes)
		if err := l.state(ctx, m.Name, lane.StateFailed, patience); err != nil {
			return err
		}
		v, err := l.client.Why(ctx, m.Name)
		if err != nil {
			return err
		}
		l.expect(v.Rule == string(lane.DiskMismatch), "why %s: %s: %s", m.Name, v.Rule, v.Because)
		if err := l.until(ctx, 2*time.Minute, m.Name+" powers itself off", func() (bool, error) { return m.off(), nil }); err != nil {
			return err
		}
		after, err := hash(m.DiskFile(0))
		if err != nil {
			return err
		}
		l.expect(before == after, "the disk of %s is the same before and after: sha256 %s…", m.Name, after[:16])
	}
	return nil
}

func killed(ctx context.Context, l *Lab) error {
	m := l.machine("node-g", lane.UEFI, Disk{Serial: "SYSTEM-G", Bytes: 2 * gigabyte})
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
	if err := l.killServer(ctx, "between script and image"); err != nil {
		return err
	}
	written := func() (bool, error) {
		h, err := l.client.Host(ctx, m.Name)
		// Half: the agent tells every few seconds, and the next report may be that it is written.
		half := h.Run.Stage == lane.StageInstaller && h.Run.Total > 0 && h.Run.Done >= h.Run.Total/2
		return err == nil && (half || h.Run.Stage.AtLeast(lane.StageDiskWritten)), nil
	}
	if err := l.until(ctx, patience, "half of the image is written", written); err != nil {
		return err
	}
	if err := l.killServer(ctx, "between image and report"); err != nil {
		return err
	}
	if err := l.stage(ctx, m.Name, lane.StageDiskWritten, patience); err != nil {
		return err
	}
	l.expect(true, "the run went on over two kills of the server, to the written disk")
	h, err := l.client.Host(ctx, m.Name)
	if err != nil {
		return err
	}
	l.expect(h.Run.BootsUsed == 1, "the grant is consumed once: %d of %d network boots", h.Run.BootsUsed, h.Run.Boots)
	if err := l.nothingInstalls(ctx, m); err != nil {
		return err
	}
	return l.state(ctx, m.Name, lane.StateInstalled, patience)
}

// killServer kills the server with SIGKILL, lets the machine notice, and starts it again.
func (l *Lab) killServer(ctx context.Context, when string) error {
	l.server.kill()
	l.say("the server is killed, %s", when)
	if err := l.pause(ctx, 4*time.Second); err != nil {
		return err
	}
	if err := l.serve(ctx); err != nil {
		return err
	}
	l.say("the server runs again")
	return nil
}

func (l *Lab) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// blank reports whether a machine's disk holds nothing but zeros.
func blank(m *Machine, i int) bool {
	h, err := hash(m.DiskFile(i))
	return err == nil && h == blankHash(m.Disks[i].Bytes)
}
