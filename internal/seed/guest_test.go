//go:build guest

package seed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// guest is a Debian system in a directory that is started on a virtual server.
type guest struct {
	*testing.T
	root string
}

// newGuest unpacks the system that scripts/build-guest made.
func newGuest(t *testing.T) guest {
	t.Helper()
	dir := os.Getenv("BOOTLANE_GUEST")
	if dir == "" {
		t.Fatal("BOOTLANE_GUEST names no directory of scripts/build-guest: run `make test-guest`")
	}
	g := guest{t, t.TempDir()}
	g.run("tar", "-C", g.root, "-xf", filepath.Join(dir, "root.tar"))
	g.put(lane.File{Path: "/usr/local/sbin/tell", Mode: 0o755, Content: guestTells})
	g.put(lane.File{Path: "/etc/systemd/system/tell.service", Mode: 0o644, Content: "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/usr/local/sbin/tell\n[Install]\nWantedBy=multi-user.target\n"})
	g.systemctl("enable", "tell.service")
	return g
}

// guestTells waits for what the record says last, the address by DHCP and the bond's primary, writes down what
// there is, and ends the machine.
const guestTells = `#!/bin/sh
for _ in $(seq 90); do
	[ -z "$(ip -o -4 addr show mgmt0 scope global)" ] || [ "$(cat /sys/class/net/bond0/bonding/active_slave)" != lan1 ] || ip -o -6 addr show bond0 tentative | grep -q . || break
	sleep 1
done
sleep 3
{
	ip -o addr show scope global | awk '{ print "address", $2, $4 }' | sort
	{ ip -4 route show default; ip -6 route show default; } | awk '{ print "router", $3, $5 }'
	for what in mode primary active_slave miimon; do echo "bond $what $(cat /sys/class/net/bond0/bonding/$what)"; done
	for nic in lan0 lan1; do echo "member $nic $(basename "$(readlink /sys/class/net/$nic/master)") $(cat /sys/class/net/$nic/mtu)"; done
	echo "mtu bond0 $(cat /sys/class/net/bond0/mtu)"
	echo "vlan $(ip -d link show storage | grep -o 'id [0-9]*') on $(basename /sys/class/net/storage/lower_*)"
	echo "dns $(resolvectl dns bond0)"
	echo "search $(resolvectl domain bond0)"
	echo "name $(hostname)"
	echo "keys $(cat /home/admin1/.ssh/authorized_keys 2>/dev/null | wc -l)"
	systemctl --failed --no-legend | sed 's/^/failed /'
	echo end
} > /dev/ttyS1 2>&1
sync
poweroff -f
`

func (g guest) run(name string, args ...string) {
	g.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		g.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (g guest) put(f lane.File) {
	g.Helper()
	path := filepath.Join(g.root, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(f.Content), os.FileMode(f.Mode)); err != nil {
		g.Fatal(err)
	}
}

func (g guest) systemctl(verb string, units ...string) {
	g.Helper()
	g.run("systemctl", append([]string{"--root=" + g.root, verb}, units...)...)
}

// boot starts the system with the NICs of [wired], two on a switch and one where DHCP answers, and returns what
// it tells.
func (g guest) boot() []string {
	g.Helper()
	dir := g.TempDir()
	disk, console, told := filepath.Join(dir, "disk"), filepath.Join(dir, "console"), filepath.Join(dir, "told")
	g.run("truncate", "-s", "2G", disk)
	g.run("mke2fs", "-q", "-t", "ext4", "-d", g.root, disk)
	kernel, err := filepath.Glob(filepath.Join(g.root, "boot/vmlinuz-*"))
	initrd, _ := filepath.Glob(filepath.Join(g.root, "boot/initrd.img-*"))
	if err != nil || len(kernel) != 1 || len(initrd) != 1 {
		g.Fatal(kernel, initrd, err)
	}
	args := []string{"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "768", "-display", "none", "-no-reboot", "-nodefaults", "-no-user-config",
		"-serial", "file:" + console, "-serial", "file:" + told, "-kernel", kernel[0], "-initrd", initrd[0], "-append", "root=/dev/vda rw console=ttyS0 quiet",
		"-drive", "file=" + disk + ",format=raw,if=virtio"}
	for i, net := range []string{"hubport,hubid=0", "hubport,hubid=0", "user,restrict=on"} {
		args = append(args, "-netdev", fmt.Sprintf("%s,id=n%d", net, i), "-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=52:54:00:00:00:a%d", i, i+1))
	}
	q := exec.Command("qemu-system-x86_64", args...)
	if err := q.Start(); err != nil {
		g.Fatal(err)
	}
	limit := time.AfterFunc(5*time.Minute, func() { _ = q.Process.Kill() })
	err = q.Wait()
	limit.Stop()
	text, rerr := os.ReadFile(told)
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "\r", "")), "\n")
	if err != nil || rerr != nil || lines[len(lines)-1] != "end" {
		log, _ := os.ReadFile(console)
		g.Fatalf("the guest told %q; %v\n%s", text, err, log)
	}
	return lines[:len(lines)-1]
}

// TestGuestNetwork starts Debian with what each installer writes about a network, and has the daemon that reads
// it bring that up: NetworkManager, systemd-networkd, netplan before it, and cloud-init before both.
func TestGuestNetwork(t *testing.T) {
	want := []string{
		"address bond0 10.0.0.21/24", "address bond0 10.0.0.22/24", "address bond0 fd00:20::21/64", "address mgmt0 10.0.2.15/24", "address storage 10.20.0.21/16",
		"router 10.0.0.1 bond0", "router fd00:20::1 bond0", "bond mode active-backup 1", "bond primary lan1", "bond active_slave lan1", "bond miimon 50",
		"member lan0 bond0 9000", "member lan1 bond0 9000", "mtu bond0 9000", "vlan id 20 on lower_bond0",
	}
	for _, c := range []struct {
		name    string
		in      Input
		off, on []string // units
		account bool     // cloud-init makes it, and names the machine
	}{
		{"NetworkManager", wired(lane.SeedKickstart), []string{"systemd-networkd.service", "cloud-init.target"}, []string{"NetworkManager.service"}, false},
		{"systemd-networkd", wired(lane.SeedPreseed), []string{"NetworkManager.service", "cloud-init.target"}, []string{"systemd-networkd.service"}, false},
		{"netplan", wired(lane.SeedNoCloud), []string{"NetworkManager.service", "cloud-init.target"}, []string{"systemd-networkd.service"}, false},
		{"cloud-init", clouded(wired(lane.SeedImage)), []string{"NetworkManager.service"}, []string{"systemd-networkd.service"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, want := newGuest(t), slices.Clone(want)
			files := view{Input: c.in}.NetworkFiles()
			if c.account {
				var err error
				if files, err = AgentFiles(c.in); err != nil {
					t.Fatal(err)
				}
				files = slices.DeleteFunc(files, func(f lane.File) bool { return !strings.Contains(f.Path, "cloud") })
			}
			for _, f := range files {
				g.put(f)
			}
			for _, u := range c.off {
				g.run("ln", "-sf", "/dev/null", filepath.Join(g.root, "etc/systemd/system", u))
			}
			g.systemctl("enable", append(c.on, "systemd-resolved.service")...)
			got := g.boot()
			want = append(want, "dns Link 5 (bond0): 10.0.0.2 fd00:20::2", "search Link 5 (bond0): example.net example.org")
			if c.account {
				want = append(want, "name node-a", "keys 2")
			}
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("not %q, but\n%s", w, strings.Join(got, "\n"))
				}
			}
			for _, l := range got {
				if fact, _, _ := strings.Cut(l, " "); (fact == "address" || fact == "router" || fact == "failed") && !slices.Contains(want, l) {
					t.Errorf("%q is too much", l)
				}
			}
		})
	}
}
