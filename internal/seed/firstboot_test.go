package seed

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// installed is a made-up installed system. First boot runs on a full system, so
// this uses the real shell, sed, awk and date of the machine at hand; the paths
// of the script are moved below a directory, and what looks at the kernel, the
// disks or the network is stood in for.
type installed struct {
	t       *testing.T
	root    string
	path    string   // where programs are that no stand-in is for; empty: everywhere
	shell   []string // that first boot runs in; none: dash
	patient bool
}

func newInstalled(t *testing.T) *installed {
	t.Helper()
	for name, deb := range map[string]string{"dash": "dash", "flock": "util-linux", "awk": "mawk"} {
		tool(t, name, deb)
	}
	s := &installed{t: t, root: t.TempDir()}
	s.write("sys/class/dmi/id/product_uuid", "4c4c4544-0042-3510-8051-b4c04f4d3732\n")
	s.write("sys/class/dmi/id/product_serial", "SN-A 1\n")
	s.write("sys/class/net/eth0/address", "52:54:00:00:00:a1\n")
	s.write("sys/block/sda/device/wwid", "naa.5002538e00000001\n")
	s.write("sys/block/sda/size", "937500000\n")
	s.write("proc/sys/kernel/hostname", "node-a\n")
	s.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	s.write("etc/hostname", "node-a\n")
	s.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
	s.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
	// What lies below kernel/ is in the kernel of this system, and sets what net/ has.
	s.write("kernel/overlay", "")
	s.write("kernel/br_netfilter", "")
	for _, key := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		s.write("proc/sys/"+key, "0\n")
	}
	s.write("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
	s.write("dev/sda", "")
	for _, l := range []string{"by-id/wwn-0x5002538e00000001", "by-path/pci-0000:00:17.0-ata-1"} {
		path := filepath.Join(s.root, "dev/disk", l)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../sda", path); err != nil {
			t.Fatal(err)
		}
	}
	s.program("findmnt", `echo /dev/mapper/vg0-root`)
	s.program("lsblk", `cat "$(dirname "$0")/../state/$(basename "$0")"`)
	s.write("state/lsblk", "vg0-root lvm\nsda3 part\nsda disk\n")
	s.program("udevadm", `echo ID_SERIAL_SHORT=S1`)
	s.program("timedatectl", `cat "$(dirname "$0")/../state/$(basename "$0")"`)
	s.write("state/timedatectl", "yes\n")
	s.program("sleep", `echo "sleep $*" >> "$(dirname "$0")/../state/log"`)
	s.program("poweroff", `echo "poweroff $*" >> "$(dirname "$0")/../state/log"`)
	s.program("uname", `echo 6.1.0-test`)
	s.program("id", `[ -e "$(dirname "$0")/../state/user" ]`)
	s.program("useradd", `here=$(dirname "$0")/../state
echo "useradd $*" >> "$here/log"
[ -e "$here/full" ] && { echo "useradd: no room"; exit 1; }
touch "$here/user"`)
	s.program("ip", `cat "$(dirname "$0")/../state/ip"`)
	s.write("state/ip", "2: eth0    inet 10.0.0.21/24 brd 10.0.0.255 scope global dynamic eth0\\       valid_lft 3600sec\n")
	s.program("modprobe", `here=$(dirname "$0")/..
[ -e "$here/kernel/$1" ] || { echo "modprobe: FATAL: Module $1 not found in directory /lib/modules/6.1.0-test"; exit 1; }
echo "modprobe $1" >> "$here/state/log"
mkdir -p "$here/sys/module/$1"`)
	s.program("swapoff", `here=$(dirname "$0")/..
echo "swapoff $*" >> "$here/state/log"
[ -e "$here/state/clings" ] || sed -i 1q "$here/proc/swaps"`)
	s.program("ctr", `[ "$3" = version ] && [ ! -e "$(dirname "$0")/../state/mute" ]`)
	s.program("containerd", `cat "$(dirname "$0")/../state/config"`)
	s.write("state/config", "disabled_plugins = []\n  [plugins.runc.options]\n    SystemdCgroup = true\n")
	s.program("getent", `echo "$2:x:1000:1000::$(cd "$(dirname "$0")/.." && pwd)/home:/bin/bash"`)
	for _, name := range []string{"usermod", "chown"} {
		s.program(name, `echo "$(basename "$0") $*" >> "$(dirname "$0")/../state/log"`)
	}
	// Debian's: the unit is ssh.service, and sshd.service is not known. state/enabled and
	// state/active hold units; nothing starts when state/stuck is there.
	s.program("systemctl", `here=$(dirname "$0")/../state
echo "systemctl $*" >> "$here/log"
verb=$1
shift
case $verb in
is-enabled | is-active)
	[ "$1" = --quiet ] || { echo inactive; exit 3; }
	shift
	for unit; do
		! grep -qxF "$unit" "$here/${verb#is-}" 2>/dev/null || exit 0
	done
	[ "$verb" = is-active ] || echo "Failed to get unit file state for $1: No such file or directory" >&2
	exit 3
	;;
restart)
	[ "$1" = ssh.service ] || { echo "Failed to restart $1: Unit $1 not found." >&2; exit 5; }
	[ ! -e "$here/stuck" ] || { echo "Job for $1 failed." >&2; exit 1; }
	echo "$1" >> "$here/active"
	;;
esac`)
	s.write("state/enabled", "ssh.service\n")
	s.write("state/active", "containerd.service\n")
	s.write("usr/sbin/sshd", "")
	s.program("ssh-keygen", `echo "ssh-keygen $*" >> "$(dirname "$0")/../state/log"; mkdir -p "$(dirname "$0")/../etc/ssh"; touch "$(dirname "$0")/../etc/ssh/ssh_host_ed25519_key"`)
	// HEAD of the server's /healthz, or a report.
	s.program("curl", `here=$(dirname "$0")/../state
for last; do :; done
case $last in
*/healthz)
	[ ! -e "$here/dead" ] || exit 7
	printf 'HTTP/1.1 200 OK\r\n'
	[ ! -e "$here/ahead" ] || date -u -d "@$(($(date +%s) - $(cat "$here/ahead")))" '+Date: %a, %d %b %Y %H:%M:%S GMT%n' | sed 's/$/\r/'
	;;
*/report)
	while [ "$1" != -d ]; do shift; done
	echo "POST $last $2" >> "$here/log"
	[ -e "$here/deaf" ] || exit 0
	case $2 in *"$(cat "$here/deaf")"*) exit 22 ;; esac
	;;
*) exit 3 ;;
esac`)
	s.clock(0)
	return s
}

// kubernetes is what a host with that purpose gets.
func kubernetes(in Input) Input {
	if in.Bundle.Seed == lane.SeedTalos { // which is nothing else
		return in
	}
	site, _ := Merge(Defaults(""), Purpose(level("site", lane.InstallOptions{Purpose: new(lane.PurposeKubernetes)})))
	in.Site.Purpose, in.Site.Modules, in.Site.Sysctls, in.Site.Swap, in.Site.Runtime = lane.PurposeKubernetes, site.Modules, site.Sysctls, site.Swap, site.Runtime
	return in
}

// clock sets how far this machine's clock is ahead of the server's.
func (s *installed) clock(ahead time.Duration) {
	s.write("state/ahead", fmt.Sprint(int(ahead.Seconds())))
}

func (s *installed) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *installed) forget(name string) {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.root, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *installed) program(name, body string) { s.write("bin/"+name, "#!/bin/sh\n"+body+"\n") }

func (s *installed) read(name string) string {
	b, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil && !os.IsNotExist(err) {
		s.t.Error(err)
	}
	return string(b)
}

// place puts the script of first boot where it runs. It looks twice before it gives up, and
// tries to join three times; only patient does both as often as it really is.
func (s *installed) place(in Input) {
	s.t.Helper()
	var prelude strings.Builder
	if s.shell != nil { // busybox has programs of its own, and takes them before any other
		have, err := os.ReadDir(filepath.Join(s.root, "bin"))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range have {
			if !strings.Contains(e.Name(), "-") {
				fmt.Fprintf(&prelude, "%s() { %s/bin/%[1]s \"$@\"; }\n", e.Name(), s.root)
			}
		}
	}
	patience, tries := "-ge 2", "-ge 3"
	if s.patient {
		patience, tries = "-ge 12", "-ge 20"
	}
	s.write("firstboot", prelude.String()+strings.NewReplacer("/dev/null", "/dev/null", "/lib/modules/", s.root+"/lib/modules/", "/usr/lib/", s.root+"/usr/lib/", "/sys/", s.root+"/sys/", "/proc/", s.root+"/proc/", "/dev/disk/", s.root+"/dev/disk/", `"/dev/$1"`, `"`+s.root+`/dev/$1"`,
		"/etc/", s.root+"/etc/", "rundir=/run/", "rundir="+s.root+"/run/", "/usr/sbin/", s.root+"/usr/sbin/", "/var/", s.root+"/var/", "-ge 12", patience, "-ge 20", tries).Replace(document(s.t, in, "firstboot.sh")))
}

// command is first boot as it was placed, with a shell: dash, or one like busybox sh.
func (s *installed) command(args ...string) *exec.Cmd {
	shell := s.shell
	if shell == nil {
		shell = []string{"dash"}
	}
	argv := slices.Concat(shell, []string{filepath.Join(s.root, "firstboot")}, args)
	cmd := exec.Command(argv[0], argv[1:]...)
	path := s.path
	if path == "" {
		path = os.Getenv("PATH")
	}
	cmd.Env = []string{"PATH=" + filepath.Join(s.root, "bin") + ":" + path, "LC_ALL=C"}
	return cmd
}

// boot runs first boot and returns its exit status and its reports.
func (s *installed) boot(in Input) (int, []url.Values) {
	s.t.Helper()
	s.place(in)
	cmd := s.command()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || strings.Contains(string(out), "not found\n") || strings.Contains(strings.ReplaceAll(string(out), "wget: server returned error:", ""), "rror:") {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return cmd.ProcessState.ExitCode(), s.reports(in)
}

// reports returns what was reported, in order.
func (s *installed) reports(in Input) (reports []url.Values) {
	s.t.Helper()
	for _, l := range strings.Split(s.read("state/log"), "\n") {
		if body, ok := strings.CutPrefix(l, "POST "+in.Base+"/report "); ok {
			v, err := url.ParseQuery(strings.ReplaceAll(body, s.root, "")) // as if it had not been moved
			if err != nil {
				s.t.Errorf("the report %q: %v", body, err)
			}
			reports = append(reports, v)
		}
	}
	return reports
}

// listed returns the checks that a report carries, as the server reads them.
func listed(t *testing.T, report url.Values) map[string]lane.Check {
	t.Helper()
	list, err := lane.ParseChecks(report.Get(lane.ReportChecks))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]lane.Check{}
	for _, c := range list {
		out[c.Name] = c
	}
	return out
}

func TestFirstBoot(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*installed, *Input)
		want string // the check that fails, and how; empty: it is ready
	}{
		{"ready", nil, ""},
		{"no time server is named, and the clock a little off", func(s *installed, in *Input) {
			in.Site.NTP = nil
			s.write("state/timedatectl", "no\n")
			s.clock(time.Second)
		}, ""},
		{"clock far off, but synchronised", func(s *installed, _ *Input) { s.clock(time.Hour) }, ""},
		{"synchronised by chrony", func(s *installed, _ *Input) {
			s.write("state/timedatectl", "no\n")
			s.program("chronyc", `echo "Leap status     : Normal"`)
		}, ""},
		{"no selector of size", func(_ *installed, in *Input) { in.Host.Run.Disk.SizeGB = 0 }, ""},
		{"the long name", func(s *installed, _ *Input) {
			s.write("etc/hostname", "node-a.example.org\n")
		}, ""},
		{"the record's address", func(_ *installed, in *Input) { in.Host.Network.Address = netip.MustParseAddr("10.0.0.21") }, ""},
		{"for Kubernetes", func(_ *installed, in *Input) { *in = kubernetes(*in) }, ""},
		{"a built-in module", func(s *installed, in *Input) {
			*in = kubernetes(*in)
			s.forget("kernel/br_netfilter")
			s.write("lib/modules/6.1.0-test/modules.builtin", "kernel/net/bridge/br-netfilter.ko\n")
		}, ""},
		{"without a purpose, and nothing of Kubernetes", func(s *installed, _ *Input) {
			s.forget("kernel/br_netfilter")
			s.forget("sys/fs/cgroup/cgroup.controllers")
			s.write("proc/swaps", "Filename\n/dev/sda9 partition 1 0 -2\n")
			s.write("state/active", "")
		}, ""},

		{"the administrator cannot be made", func(s *installed, _ *Input) { s.write("state/full", "") }, "account: expected user admin1, it is useradd: no room"},
		{"another machine", func(s *installed, _ *Input) { s.write("sys/class/dmi/id/product_serial", "SN-B\n") }, "identity: expected uuid 4c4c4544-0042-3510-8051-b4c04f4d3732, serial SN-A 1, mac 52:54:00:00:00:a1 or 52:54:00:00:00:a2, it is uuid 4c4c4544-0042-3510-8051-b4c04f4d3732, serial SN-B, mac 52:54:00:00:00:a1"},
		{"another name", func(s *installed, _ *Input) { s.write("proc/sys/kernel/hostname", "debian\n") }, "hostname: expected node-a, it is debian and node-a in /etc/hostname"},
		{"another name at the next boot", func(s *installed, _ *Input) { s.write("etc/hostname", "# ours\ndebian\n") }, "hostname: expected node-a, it is node-a and debian in /etc/hostname"},
		{"another disk", func(s *installed, _ *Input) { s.write("state/lsblk", "sdb2 part\nsdb disk\n") }, "disk: expected byID=wwn-0x5002538e00000001 byPath=pci-0000:00:17.0-ata-1 wwn=0x5002538e00000001 serial=S1 sizeGB=480, it is sdb"},
		{"two disks", func(s *installed, _ *Input) { s.write("state/lsblk", "sdb disk\nsda disk\n") }, ", it is sda sdb"},
		{"no disk", func(s *installed, _ *Input) { s.write("state/lsblk", "") }, ", it is nothing"},
		{"disk of another size", func(s *installed, _ *Input) { s.write("sys/block/sda/size", "1000\n") }, ", it is sda of another size"},
		{"machine id not set", func(s *installed, _ *Input) { s.write("etc/machine-id", "uninitialized\n") }, "machine-id: expected one of its own, kept on the disk, it is uninitialized"},
		{"machine id empty", func(s *installed, _ *Input) { s.write("etc/machine-id", "") }, ", it is missing"},
		{"machine id too short", func(s *installed, _ *Input) { s.write("etc/machine-id", "0123\n") }, ", it is 0123"},
		{"machine id in memory", func(s *installed, _ *Input) {
			s.write("proc/self/mountinfo", "90 27 0:24 / "+s.root+"/etc/machine-id ro - tmpfs tmpfs rw\n")
		}, "0123456789abcdef0123456789abcdef in memory only"},
		{"not synchronised with the site's servers", func(s *installed, _ *Input) { s.write("state/timedatectl", "no\n") }, "time: expected synchronised, it is not synchronised, "},
		{"no time server is named, and the clock behind", func(s *installed, in *Input) {
			in.Site.NTP = nil
			s.write("state/timedatectl", "no\n")
			s.clock(-time.Hour)
		}, "time: expected synchronised, or at most 5 s off the clock of the server, it is not synchronised, 3"},
		{"no time server is named, and the clock ahead", func(s *installed, in *Input) {
			in.Site.NTP = nil
			s.write("state/timedatectl", "no\n")
			s.clock(time.Hour)
		}, "it is not synchronised, 3"},
		{"server does not tell the time", func(s *installed, _ *Input) { s.forget("state/ahead") }, "it is the server's clock cannot be read"},
		{"server cannot be reached for the time", func(s *installed, _ *Input) { s.write("state/dead", "") }, "it is the server's clock cannot be read"},
		{"another address", func(_ *installed, in *Input) { in.Host.Network.Address = netip.MustParseAddr("10.0.0.2") }, "network: expected 10.0.0.2, it is eth0 10.0.0.21/24"},
		{"no address", func(s *installed, _ *Input) { s.write("state/ip", "") }, "network: expected an address, it is none"},
		{"a module is missing", func(s *installed, in *Input) { *in = kubernetes(*in); s.forget("kernel/br_netfilter") }, "modules: expected overlay br_netfilter, it is missing: br_netfilter"},
		{"a setting is missing", func(s *installed, in *Input) {
			*in = kubernetes(*in)
			s.forget("proc/sys/net/ipv4/ip_forward")
			s.write("proc/sys/net/ipv4/ip_forward/x", "")
		}, "it is net.ipv4.ip_forward=missing"},
		{"cgroup 1", func(s *installed, in *Input) {
			*in = kubernetes(*in)
			s.forget("sys/fs/cgroup/cgroup.controllers")
		}, "cgroup: expected version 2, it is version 1, or none"},
		{"swap that stays", func(s *installed, in *Input) {
			*in = kubernetes(*in)
			s.write("state/clings", "")
			s.write("proc/swaps", "Filename\n/dev/sda9 partition 1 0 -2\n")
		}, "swap: expected none, it is /dev/sda9"},
		{"containerd is stopped", func(s *installed, in *Input) { *in = kubernetes(*in); s.write("state/active", "ssh.service\n") }, "runtime: expected containerd runs and answers, SystemdCgroup = true, CRI plugin on, it is containerd.service is inactive"},
		{"containerd does not answer", func(s *installed, in *Input) { *in = kubernetes(*in); s.write("state/mute", "") }, "it is it does not answer on its socket"},
		{"containerd as a vendor packs it", func(s *installed, in *Input) {
			*in = kubernetes(*in)
			s.write("state/config", "disabled_plugins = [\"cri\"]\nSystemdCgroup = false\n")
		}, "it is it runs. SystemdCgroup is not true. The CRI plugin is disabled."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, in := newInstalled(t), full(lane.SeedImage)
			s.patient = c.name == "another name"
			waits := map[bool]int{true: 11, false: 1}[s.patient]
			if c.edit != nil {
				c.edit(s, &in)
			}
			status, reports := s.boot(in)
			if status != 0 || len(reports) != 2 || said(reports[0]) != "first-boot 1 ok" {
				t.Fatalf("exit %d, reports %v", status, reports)
			}
			if m := reports[0].Get(lane.ReportMessage); m != "Debian GNU/Linux 12 (bookworm), kernel 6.1.0-test" {
				t.Errorf("the first report says %q", m)
			}
			message, done := reports[1].Get(lane.ReportMessage), s.read("var/lib/bootlane/done")
			list := listed(t, reports[1])
			if kept, err := lane.ParseChecks(s.read("var/lib/bootlane/checks")); err != nil || len(kept) != len(list) || len(list) < 13 {
				t.Errorf("%d checks reported, %d kept, %v", len(list), len(kept), err)
			}
			failed := lane.FailedChecks(slices.Collect(maps.Values(list)))
			if c.want == "" {
				if said(reports[1]) != "ready 1 ok" || !strings.HasPrefix(message, "identity uuid 4c4c4544-0042-3510-8051-b4c04f4d3732, serial SN-A 1, mac 52:54:00:00:00:a1, disk sda, machine-id 0123456789abcdef0123456789abcdef, hostname node-a") || done == "" || len(failed) > 0 {
					t.Errorf("report %s: %s, done %q, failed %v", said(reports[1]), message, done, failed)
				}
				return
			}
			if said(reports[1]) != "ready 1 failed" || done != "" || len(failed) != 1 || !strings.Contains(failed[0].String(), c.want) {
				t.Errorf("report %s: %s\nwant %s, done %q, failed %v", said(reports[1]), message, c.want, done, failed)
			}
			if !strings.HasPrefix(message, "first boot: ") || len(c.want) < 100 && !strings.Contains(message, c.want) {
				t.Errorf("%q does not say %q", message, c.want)
			}
			// What is only late gets two minutes; no failure powers off or reboots a machine that is installed.
			if log := s.read("state/log"); strings.Count(log, "sleep 10\n") != waits || strings.Contains(log, "poweroff") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// TestFirstBootProvesFirst: nothing is brought about on a machine that is not the one meant, and
// all that is wrong with it is told at once.
func TestFirstBootProvesFirst(t *testing.T) {
	s, in := newInstalled(t), kubernetes(full(lane.SeedImage))
	in.Scripts = []Script{{"x.sh", []byte("#!/bin/sh\ntouch " + s.root + "/state/ran\n")}}
	s.write("sys/class/dmi/id/product_serial", "SN-B\n")
	s.write("proc/sys/kernel/hostname", "debian\n")
	s.write("state/lsblk", "")
	s.write("etc/machine-id", "")
	_, reports := s.boot(in)
	list := listed(t, reports[len(reports)-1])
	for _, name := range []string{lane.CheckIdentity, lane.CheckDisk, lane.CheckMachineID, lane.CheckHostname} {
		if list[name].Status != lane.CheckFailed {
			t.Errorf("%+v", list[name])
		}
	}
	for _, name := range []string{lane.CheckModules, lane.CheckRuntime, lane.CheckScripts} {
		if list[name].Status != lane.CheckSkipped || list[name].Actual != "the machine is not proven" {
			t.Errorf("%+v", list[name])
		}
	}
	if log := s.read("state/log"); strings.Contains(log, "useradd") || strings.Contains(log, "modprobe") || s.read("state/ran") != "" || s.read("proc/sys/net/ipv4/ip_forward") != "0\n" {
		t.Errorf("something was changed:\n%s", log)
	}
}

// TestFirstBootByHand: who asks on the machine is told what is so now, and nothing is changed.
func TestFirstBootByHand(t *testing.T) {
	for _, shell := range [][]string{{"dash"}, {tool(t, "busybox", "busybox-static"), "sh"}} {
		s, in := newInstalled(t), kubernetes(full(lane.SeedImage))
		s.shell = shell
		s.place(in)
		before := s.everything()
		cmd := s.command("check")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "modules     failed   missing: overlay br_netfilter (expected: overlay br_netfilter)\n") || !strings.Contains(string(out), "hostname    ok       node-a\n") {
			t.Errorf("%v: %v\n%s", shell, err, out)
		}
		if after := s.everything(); after != before {
			t.Errorf("%v: changed\n%s\nto\n%s", shell, before, after)
		}
		if status, _ := s.boot(in); status != 0 {
			t.Errorf("exit %d", status)
		}
		if out, err := s.command("check").CombinedOutput(); err != nil || strings.Contains(string(out), "failed") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// everything is what the system consists of, but for the stand-ins, and for texts in which a
// clock stands.
func (s *installed) everything() string {
	s.t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -type f ! -path './state/*' ! -path './bin/*' ! -path ./firstboot ! -path ./var/lib/bootlane/done ! -path ./var/lib/bootlane/checks -print0 | sort -z | xargs -0 sed -s "s|$1||g" | sha256sum && find . -type f ! -path './state/*' ! -path './bin/*' ! -path './real/*' -exec stat -c '%A %n' {} + | sort -k 2`, "sh", s.root).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	return string(out)
}

// An image knows nobody and no time servers: first boot brings both from the
// site, once, and leaves an installer's account and a closed site alone.
func TestFirstBootAccount(t *testing.T) {
	s, in := newInstalled(t), full(lane.SeedImage)
	for range 2 {
		if status, _ := s.boot(in); status != 0 || s.read("var/lib/bootlane/done") == "" {
			t.Fatalf("exit %d", status)
		}
		s.forget("var/lib/bootlane/done")
	}
	log := s.read("state/log")
	for _, what := range []string{"useradd -m -s /bin/bash admin1\n", "usermod -p " + in.Site.PasswordHash + " admin1\n", "systemctl try-restart systemd-timesyncd.service\n"} {
		if !strings.Contains(log, what) {
			t.Errorf("not done: %s", what)
		}
	}
	for _, once := range []string{"useradd", "ssh-keygen", "systemctl restart ssh"} {
		if n := strings.Count(log, once); n != 1 {
			t.Errorf("%s ran %d times", once, n)
		}
	}
	for name, want := range map[string]string{"home/.ssh/authorized_keys": strings.Join(in.Site.SSHKeys, "\n") + "\n", "etc/sudoers.d/90-bootlane": "admin1 ALL=(ALL) NOPASSWD:ALL\n",
		"etc/systemd/timesyncd.conf.d/50-bootlane.conf": "[Time]\nNTP=" + strings.Join(in.Site.NTP, " ") + "\n"} {
		if got := s.read(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	chrony := newInstalled(t) // as Ubuntu has it from 25.10 on
	chrony.write("etc/chrony/sources.d/README", "")
	chrony.program("chronyc", `echo "chronyc $*" >> "$(dirname "$0")/../state/log"`)
	const sources = "server 10.0.0.2 iburst prefer\nserver ntp.example.org iburst prefer\n"
	if status, _ := chrony.boot(full(lane.SeedNoCloud)); status != 0 || chrony.read("etc/chrony/sources.d/bootlane.sources") != sources || !strings.Contains(chrony.read("state/log"), "chronyc reload sources\n") {
		t.Errorf("chrony, exit %d: it is told %q", status, chrony.read("etc/chrony/sources.d/bootlane.sources"))
	}
	closed := full(lane.SeedImage)
	closed.Site.PasswordHash, closed.Site.SSHKeys = "", nil
	for name, in := range map[string]Input{"installer": full(lane.SeedPreseed), "closed site": closed} {
		s := newInstalled(t)
		if _, _ = s.boot(in); strings.Contains(s.read("state/log"), "useradd") {
			t.Errorf("%s: an account is made", name)
		}
	}
}

// A server for SSH that the image enables must run before the machine is ready,
// whatever an earlier look already did; one that it disables is left alone.
func TestFirstBootSSH(t *testing.T) {
	for _, c := range []struct {
		name     string
		edit     func(*installed)
		want     string // words of the failure; empty: it is ready
		restarts int
	}{
		{"keys are missing", func(*installed) {}, "", 1},
		{"keys are missing, and it runs", func(s *installed) { s.write("state/active", "ssh.service\n") }, "", 1},
		{"all is well", func(s *installed) {
			s.write("etc/ssh/ssh_host_ed25519_key", "")
			s.write("state/active", "ssh.service\n")
		}, "", 0},
		{"keys are there, and it does not run", func(s *installed) { s.write("etc/ssh/ssh_host_ed25519_key", "") }, "", 1},
		{"by socket", func(s *installed) {
			s.write("etc/ssh/ssh_host_ed25519_key", "")
			s.write("state/enabled", "ssh.socket\n")
			s.write("state/active", "ssh.socket\n")
		}, "", 0},
		{"disabled", func(s *installed) { s.write("state/enabled", "") }, "", 0},
		{"not installed", func(s *installed) { s.forget("usr/sbin/sshd") }, "", 0},
		{"never starts", func(s *installed) { s.write("state/stuck", "") }, "ssh: expected", 2},
		{"never starts, with keys", func(s *installed) {
			s.write("etc/ssh/ssh_host_ed25519_key", "")
			s.write("state/stuck", "")
		}, "it is the SSH server is enabled, and does not run", 2},
		{"no keys to be had", func(s *installed) { s.program("ssh-keygen", "echo no room; exit 1") }, "ssh: expected", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newInstalled(t)
			c.edit(s)
			_, reports := s.boot(full(lane.SeedImage))
			last := reports[len(reports)-1]
			if want := map[bool]string{true: "ready 1 ok", false: "ready 1 failed"}[c.want == ""]; said(last) != want || !strings.Contains(last.Get(lane.ReportMessage), c.want) {
				t.Errorf("report %s: %s", said(last), last.Get(lane.ReportMessage))
			}
			if n := strings.Count(s.read("state/log"), "systemctl restart ssh.service\n"); n != c.restarts {
				t.Errorf("restarted %d times, want %d", n, c.restarts)
			}
		})
	}
}

// TestFirstBootClients lets the real clients that a system may have speak to a
// server, one at a time.
func TestFirstBootClients(t *testing.T) {
	for _, client := range []struct{ name, program, as, deb, timeout string }{
		{"curl", "curl", "curl", "curl", ""},
		{"wget", "wget", "wget", "wget", "timeout"},
		{"wget of the Debian installer", "wget", "wget", "wget", ""},
		{"busybox", "busybox", "wget", "busybox-static", "timeout"},
	} {
		for _, c := range []struct {
			name  string
			ahead time.Duration // the machine's clock
			date  bool
			want  string // words of the failure; empty: it is ready
		}{
			{"ready", time.Second, true, ""},
			{"clock off", time.Hour, true, "it is not synchronised, 3"},
			{"server does not tell the time", 0, false, "it is the server's clock cannot be read"},
		} {
			t.Run(client.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				s, in := newInstalled(t), full(lane.SeedImage)
				in.Site.NTP = nil
				s.write("state/timedatectl", "no\n")
				in.Base = s.serve(c.ahead, c.date)
				s.forget("bin/curl")
				s.only("awk", "basename", "cat", "cut", "date", "dirname", "flock", "grep", "head", "mkdir", "readlink", "sed", "sh", "sort", "sync", "touch", "tr", "wc", "chmod", "mv")
				if client.timeout != "" {
					s.have(client.timeout, tool(t, client.timeout, "coreutils"))
				}
				s.have(client.as, tool(t, client.program, client.deb))
				status, reports := s.boot(in)
				if status != 0 || len(reports) != 2 || said(reports[0]) != "first-boot 1 ok" || reports[0].Get(lane.ReportSerial) != "SN-A 1" {
					t.Fatalf("exit %d, reports %v", status, reports)
				}
				want := map[bool]string{true: "ready 1 ok", false: "ready 1 failed"}[c.want == ""]
				if message := reports[1].Get(lane.ReportMessage); said(reports[1]) != want || !strings.Contains(message, c.want) {
					t.Errorf("report %s: %s", said(reports[1]), message)
				}
			})
		}
	}
}

// serve starts a server that takes reports, and returns the URL of the run.
func (s *installed) serve(ahead time.Duration, date bool) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		if date {
			w.Header().Set("Date", time.Now().Add(-ahead).UTC().Format(http.TimeFormat))
		}
		if r.URL.Path == "/run/cap/join.sh" {
			s.giveJoin(w, r)
			return
		}
		if r.URL.Path != "/run/cap/report" {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			s.t.Errorf("%s: %v", r.Method, err)
		}
		log, err := os.OpenFile(filepath.Join(s.root, "state/log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			s.t.Error(err)
			return
		}
		_, err = fmt.Fprintf(log, "POST http://%s%s %s\n", r.Host, r.URL.Path, body)
		if err := errors.Join(err, log.Close()); err != nil {
			s.t.Error(err)
		}
	}))
	s.t.Cleanup(server.Close)
	return server.URL + "/run/cap"
}

// only leaves the system no programs but these, and the stand-ins.
func (s *installed) only(names ...string) {
	s.t.Helper()
	s.path = filepath.Join(s.root, "only")
	if err := os.Mkdir(s.path, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			s.t.Fatal(err)
		}
		s.have(name, path)
	}
}

// have gives the system one more program.
func (s *installed) have(name, path string) {
	s.t.Helper()
	if err := os.Symlink(path, filepath.Join(s.path, name)); err != nil {
		s.t.Fatal(err)
	}
}

func TestFirstBootAgain(t *testing.T) {
	t.Run("done", func(t *testing.T) {
		s := newInstalled(t)
		if status, reports := s.boot(full(lane.SeedImage)); status != 0 || len(reports) != 2 {
			t.Fatalf("exit %d, %v", status, reports)
		}
		if status, reports := s.boot(full(lane.SeedImage)); status != 0 || len(reports) != 2 {
			t.Errorf("once it is done, it reports again: exit %d, %v", status, reports)
		}
	})
	for _, stage := range []string{"stage=first-boot", "stage=ready"} {
		t.Run("interrupted at "+stage, func(t *testing.T) {
			s := newInstalled(t)
			s.write("state/deaf", stage)
			// The unit starts it again: it must fail, and not be done.
			if status, reports := s.boot(full(lane.SeedImage)); status == 0 || s.read("var/lib/bootlane/done") != "" {
				t.Errorf("exit %d after %d reports that nobody took", status, len(reports))
			}
			s.forget("state/deaf")
			status, reports := s.boot(full(lane.SeedImage))
			if last := reports[len(reports)-1]; status != 0 || said(last) != "ready 1 ok" || s.read("var/lib/bootlane/done") == "" {
				t.Errorf("exit %d, last report %s", status, said(last))
			}
		})
	}
	t.Run("a failure that nobody heard of", func(t *testing.T) {
		s := newInstalled(t)
		s.write("state/deaf", "stage=ready")
		s.write("proc/sys/kernel/hostname", "debian\n")
		if status, _ := s.boot(full(lane.SeedImage)); status == 0 {
			t.Error("the unit does not start it again")
		}
		s.forget("state/deaf")
		status, reports := s.boot(full(lane.SeedImage))
		if last := reports[len(reports)-1]; status != 0 || said(last) != "ready 1 failed" {
			t.Errorf("exit %d, last report %s", status, said(last))
		}
	})
	t.Run("two at once", func(t *testing.T) {
		s := newInstalled(t)
		s.write("var/lib/bootlane/lock", "")
		held := exec.Command("flock", "-n", filepath.Join(s.root, "var/lib/bootlane/lock"), "sh", "-c", "echo; read x")
		in, err := held.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := held.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fscanln(out); err != nil && err.Error() != "unexpected newline" {
			t.Fatal(err)
		}
		if status, reports := s.boot(full(lane.SeedImage)); status != 0 || len(reports) != 0 {
			t.Errorf("exit %d, %v", status, reports)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		_ = held.Wait() // read fails at the end of input; that is how it is told to end
	})
}

// TestFirstBootScripts: a bundle's scripts run in order, each until it has succeeded once,
// whatever bytes are in them; one that fails fails the run, and those behind it wait.
func TestFirstBootScripts(t *testing.T) {
	s, in := newInstalled(t), full(lane.SeedImage)
	in.Scripts = []Script{
		{"first.sh", []byte("#!/bin/sh\necho 'quotes\" $x `y`' >> " + s.root + "/state/ran\n")},
		{"second.sh", []byte("#!/bin/sh\n[ -e " + s.root + "/state/mended ] || exit 7\necho second >> " + s.root + "/state/ran\n")},
	}
	status, reports := s.boot(in)
	if status != 0 || len(reports) != 4 || said(reports[1]) != "first-boot 2 progress" || said(reports[2]) != "first-boot 3 progress" || said(reports[3]) != "ready 1 failed" || reports[3].Get(lane.ReportMessage) != "first boot: scripts: expected all have succeeded, it is first.sh second.sh failed, exit code 7" {
		t.Fatalf("exit %d, reports %v", status, reports)
	}
	if s.read("var/lib/bootlane/done") != "" {
		t.Error("it is done all the same")
	}
	s.write("state/mended", "")
	s.forget("state/log")
	if status, reports = s.boot(in); status != 0 || len(reports) != 0 || s.read("state/ran") != "quotes\" $x `y`\n" {
		t.Errorf("a run that failed goes on at the next boot: exit %d, reports %v", status, reports)
	}
	in.Host.Run.ID = "r-another"
	if status, reports = s.boot(in); status != 0 || said(reports[len(reports)-1]) != "ready 1 ok" {
		t.Fatalf("exit %d, reports %v", status, reports)
	}
	if got, want := s.read("state/ran"), "quotes\" $x `y`\nsecond\n"; got != want {
		t.Errorf("ran %q, want %q", got, want)
	}
}
