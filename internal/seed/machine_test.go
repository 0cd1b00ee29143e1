package seed

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"bootlane/internal/lane"
)

// machine is a made-up machine in a directory: its sysfs, its disks, and an
// installer's shell. Scripts run in it by chroot, under busybox, as they do in the
// Debian installer. What they would do to the world outside is written down.
type machine struct {
	t        *testing.T
	root     string
	programs string // where they are; empty: /bin
}

// outside stands in for the network and the power supply. Functions come before
// busybox's own applets. A POST fails as long as /refuse counts lines.
const outside = `
posted() {
	echo "POST $1 $2" >> /log
	[ ! -s /refuse ] || { sed -i 1d /refuse; return 1; }
}
got() {
	echo "GET $1" >> /log
	cat "/served/${1##*/}" > "$2"
}
timeout() { shift; "$@"; }
poweroff() { echo "poweroff $*" >> /log; [ -e /sticks ] || exit 99; }
sleep() { echo "sleep $*" >> /log; }
`

// wget is what the installers of Debian and Ubuntu fetch with here, curl is Anaconda's.
const wget = `
wget() {
	out='' data='' url=''
	while [ $# -gt 0 ]; do
		case $1 in
		-O) out=$2; shift ;;
		-T | -t) shift ;;
		-q) ;;
		--post-data=*) data=${1#--post-data=} ;;
		-*) echo "an option that was not foreseen: $1" >> /log ;;
		*) url=$1 ;;
		esac
		shift
	done
	if [ -n "$data" ]; then posted "$url" "$data"; else got "$url" "$out"; fi
}
`

const curl = `
curl() {
	out='' data='' url=''
	while [ $# -gt 0 ]; do
		case $1 in
		-o) out=$2; shift ;;
		-d) data=$2; shift ;;
		-m | --retry) shift ;;
		-fsS) ;;
		-*) echo "an option that was not foreseen: $1" >> /log ;;
		*) url=$1 ;;
		esac
		shift
	done
	if [ -n "$data" ]; then posted "$url" "$data"; else got "$url" "$out"; fi
}
wget() { echo "wget was not foreseen" >> /log; }
chroot() { echo "chroot $*" >> /log; [ ! -e /no-chroot ]; }
`

// newMachine returns the machine that full and minimal describe, with the disk
// that full selects as sda, and sdb beside it.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir()}
	busybox, err := os.ReadFile(tool(t, "busybox", "busybox-static"))
	if err != nil {
		t.Fatal(err)
	}
	m.write("bin/busybox", string(busybox))
	for _, applet := range []string{"sh", "cat", "chmod", "cut", "dd", "grep", "head", "ln", "mkdir", "readlink", "rm", "sed", "sort", "tail", "tr"} {
		if err := os.Symlink("busybox", filepath.Join(m.root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	m.write("usr/share/debconf/confmodule", "db_set() { echo \"debconf $*\" >> /log; [ ! -e /no-debconf ]; }\ndb_fset() { echo \"debconf-seen $*\" >> /log; }\n")
	m.furnish()
	return m
}

// furnish puts into a root what the machine is made of, and the world outside.
func (m *machine) furnish() {
	m.write("world", wget+outside)
	m.write("bin/in-target", "#!/bin/sh\necho \"in-target $*\" >> /log\n[ ! -e /no-in-target ]\n")
	m.write("bin/apt-install", "#!/bin/sh\necho \"apt-install $*\" >> /log\n")
	m.write("bin/udevadm", "#!/bin/sh\ncat /udev/\"${5##*/}\" 2>/dev/null\n")
	m.write("dev/null", "")
	m.write("tmp/.keep", "")
	m.write("sys/firmware/efi/.keep", "")
	m.write("sys/class/dmi/id/product_uuid", "4C4C4544-0042-3510-8051-B4C04F4D3732\n")
	m.write("sys/class/dmi/id/product_serial", " SN-A 1  \n")
	m.nic("lo", "00:00:00:00:00:00")
	m.nic("eth0", "52:54:00:00:00:99") // a port that the inventory does not know
	m.nic("eth1", "52:54:00:00:00:a2")
	m.disk("sda", map[string]string{"size": "937500000", "device/wwid": "naa.5002538e00000001", "ro": "0", "removable": "0"}, "by-id/wwn-0x5002538e00000001", "by-path/pci-0000:00:17.0-ata-1")
	m.write("udev/sda", "ID_SERIAL=X_S1\nID_SERIAL_SHORT=S1\n")
	m.disk("sdb", map[string]string{"size": "937500000", "device/wwid": "naa.5002538e00000002"}, "by-id/wwn-0x5002538e00000002")
	m.write("udev/sdb", "ID_SERIAL=X_S2\nID_SERIAL_SHORT=S2\n")
	m.disk("loop0", map[string]string{"size": "937500000", "serial": "S1"})
}

// machineFor returns the same machine as the installer of a seed finds it. No disk was told to it.
func machineFor(t *testing.T, seed string) *machine {
	t.Helper()
	m := newMachine(t)
	switch seed {
	case lane.SeedNoCloud:
		m.write("autoinstall.yaml", "a: \"@DISK0@\"\n")
	case lane.SeedKickstart, lane.SeedAgama, lane.SeedIgnition:
		m.write("world", curl+outside)
	case lane.SeedAutoYaST:
		m.write("world", curl+outside)
		m.write("tmp/profile/autoinst.xml", document(t, full(seed), "autoinst.xml"))
	}
	return m
}

// told reports whether the installer was told a disk.
func (m *machine) told() bool {
	auto := m.read("autoinstall.yaml")
	return strings.Contains(m.read("log"), "debconf partman-auto/disk") || auto != "" && !strings.Contains(auto, "@DISK0@") || m.read("tmp/bootlane-disk") != "" || m.read("tmp/profile/modified.xml") != "" || m.read("run/bootlane/profile.json") != ""
}

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	b, err := os.ReadFile(m.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Error(err)
	}
	return string(b)
}

func (m *machine) remove(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(m.path(name)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *machine) nic(name, mac string) { m.write("sys/class/net/"+name+"/address", mac+"\n") }

func (m *machine) disk(name string, attributes map[string]string, links ...string) {
	m.t.Helper()
	m.write("dev/"+name, "")
	for k, v := range attributes {
		m.write("sys/block/"+name+"/"+k, v+"\n")
	}
	for _, l := range links {
		if err := os.MkdirAll(filepath.Dir(m.path("dev/disk/"+l)), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.Symlink("../../"+name, m.path("dev/disk/"+l)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *machine) shell() *exec.Cmd {
	cmd := exec.Command("/bin/busybox", "sh", "-c", ". /world; . /script")
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + cmp.Or(m.programs, "/bin")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
	}
	return cmd
}

// run executes a document and returns its exit status and what it printed. 99:
// the machine was powered off.
func (m *machine) run(script string) (status int, console string) {
	m.t.Helper()
	m.write("script", script)
	cmd := m.shell()
	out, err := cmd.CombinedOutput()
	for tries := 0; errors.Is(err, syscall.ETXTBSY) && tries < 100; tries++ { // a process that another test just forked still holds it open for writing
		time.Sleep(10 * time.Millisecond)
		cmd = m.shell()
		out, err = cmd.CombinedOutput()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("run a script by chroot: %v (is the busybox here the one of the package busybox-static?)", err)
	}
	if log := m.read("log"); strings.Contains(log, "not foreseen") || strings.Contains(string(out), "not found") {
		m.t.Fatalf("the made-up machine lacks something:\n%s\n%s", log, out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// reports returns what was posted, in order.
func (m *machine) reports() []url.Values {
	m.t.Helper()
	var out []url.Values
	for _, l := range strings.Split(m.read("log"), "\n") {
		if body, ok := strings.CutPrefix(l, "POST "+testBase+"/report "); ok {
			v, err := url.ParseQuery(body)
			if err != nil {
				m.t.Errorf("the report %q: %v", body, err)
			}
			out = append(out, v)
		}
	}
	return out
}

// poweredOff reports whether the machine was: within a system that is not running, by the kernel's own means.
func (m *machine) poweredOff() bool {
	return strings.Contains(m.read("log"), "poweroff -f") || m.read("proc/sysrq-trigger") == "o\n"
}

// said is a report as stage, sequence and status.
func said(v url.Values) string {
	return v.Get(lane.ReportStage) + " " + v.Get(lane.ReportSeq) + " " + v.Get(lane.ReportStatus)
}

// expect runs a gate and holds its reports against want: "stage seq status: words
// of the message".
func (m *machine) expect(script string, pass bool, want ...string) {
	m.t.Helper()
	status, console := m.run(script)
	if passed := status == 0 && !m.poweredOff(); passed != pass {
		m.t.Errorf("passed %v (exit %d), want %v\n%s\n%s", passed, status, pass, m.read("log"), console)
	}
	if !pass && !m.poweredOff() {
		m.t.Errorf("it refuses, and the machine stays on (exit %d)\n%s", status, console)
	}
	reports := m.reports()
	if len(reports) != len(want) {
		m.t.Fatalf("reports %v, want %v\n%s", reports, want, console)
	}
	for i, r := range reports {
		what, words, _ := strings.Cut(want[i], ": ")
		if said(r) != what || !strings.Contains(r.Get(lane.ReportMessage), words) || len(r.Get(lane.ReportMessage)) > 500 {
			m.t.Errorf("report %s: %s\nwant %s", said(r), r.Get(lane.ReportMessage), want[i])
		}
	}
}

// gates returns the document that checks identity, per seed, and what it calls the installer.
var gates = []struct{ seed, document, system string }{
	{lane.SeedPreseed, "early.sh", "Debian"},
	{lane.SeedNoCloud, "gate.sh", "Ubuntu"},
	{lane.SeedKickstart, "gate.sh", "Anaconda"},
	{lane.SeedAutoYaST, "gate.sh", "AutoYaST"},
	{lane.SeedAgama, "gate.sh", "Agama"},
	{lane.SeedIgnition, "gate.sh", "Flatcar"},
}

func TestIdentityGate(t *testing.T) {
	for _, gate := range gates {
		for _, c := range []struct {
			name string
			edit func(*machine, *Input)
			want string // words of the refusal; empty: it passes
		}{
			{"the right machine", func(*machine, *Input) {}, ""},
			{"UUID in the other byte order", func(m *machine, _ *Input) {
				m.write("sys/class/dmi/id/product_uuid", "44454C4C-4200-1035-8051-B4C04F4D3732\n")
			}, ""},
			{"no UUID in the inventory", func(_ *machine, in *Input) { in.Host.Identity.UUID = "" }, ""},
			{"a factory default in the inventory", func(_ *machine, in *Input) { in.Host.Identity.UUID = "03000200-0400-0500-0006-000700080009" }, ""},
			{"no serial number in the inventory", func(_ *machine, in *Input) { in.Host.Identity.Serial = "" }, ""},
			{"no MAC in the inventory", func(_ *machine, in *Input) { in.Host.Identity.MACs = nil }, ""},
			{"another UUID", func(m *machine, _ *Input) {
				m.write("sys/class/dmi/id/product_uuid", "AAAAAAAA-0042-3510-8051-B4C04F4D3732\n")
			}, "uuid: expected 4c4c4544-0042-3510-8051-b4c04f4d3732, this machine has aaaaaaaa-0042-3510-8051-b4c04f4d3732."},
			{"a part of the UUID", func(m *machine, _ *Input) { m.write("sys/class/dmi/id/product_uuid", "4C4C4544\n") }, "uuid: expected"},
			{"no UUID", func(m *machine, _ *Input) { m.remove("sys/class/dmi") }, "uuid: expected 4c4c4544-0042-3510-8051-b4c04f4d3732, this machine has none."},
			{"empty UUID", func(m *machine, _ *Input) { m.write("sys/class/dmi/id/product_uuid", "\n") }, "uuid: expected 4c4c4544-0042-3510-8051-b4c04f4d3732, this machine has none."},
			{"other MACs", func(m *machine, _ *Input) { m.nic("eth1", "52:54:00:00:00:98") }, "mac: expected one of 52:54:00:00:00:a1 52:54:00:00:00:a2, this machine has 52:54:00:00:00:99 52:54:00:00:00:98"},
			{"no NIC", func(m *machine, _ *Input) { m.remove("sys/class/net/eth0", "sys/class/net/eth1") }, "mac: expected one of 52:54:00:00:00:a1 52:54:00:00:00:a2, this machine has none."},
			{"another serial number", func(m *machine, _ *Input) { m.write("sys/class/dmi/id/product_serial", "SN-B\n") }, "serial: expected SN-A 1, this machine has SN-B."},
			{"a longer serial number", func(m *machine, _ *Input) { m.write("sys/class/dmi/id/product_serial", "SN-A 10\n") }, "serial: expected"},
			{"many NICs", func(m *machine, _ *Input) {
				for i := range 40 {
					m.nic(fmt.Sprint("eth", i), fmt.Sprintf("52:54:00:00:01:%02d", i))
				}
			}, "mac: expected"},
			{"everything wrong", func(m *machine, _ *Input) { m.remove("sys/class") }, "uuid: expected 4c4c4544-0042-3510-8051-b4c04f4d3732, this machine has none. mac: expected one of 52:54:00:00:00:a1 52:54:00:00:00:a2, this machine has none. serial: expected SN-A 1, this machine has none."},
		} {
			if gate.seed != lane.SeedPreseed && !slices.Contains([]string{"", "uuid", "serial"}, strings.Split(c.want, ":")[0]) {
				continue // the check itself is the same text; this is about what becomes of it
			}
			t.Run(gate.system+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				m, in := machineFor(t, gate.seed), full(gate.seed)
				c.edit(m, &in)
				script := document(t, in, gate.document)
				if c.want != "" {
					m.expect(script, false, "kernel 1 failed: "+"identity gate: "+c.want)
					if m.told() {
						t.Error("the disk was told to the installer")
					}
					return
				}
				want := []string{"kernel 1 ok: " + gate.system + " installer up, identity agrees: uuid "}
				if gate.seed != lane.SeedPreseed {
					want = append(want, "installer 1 ok")
				}
				m.expect(script, true, want...)
				checkReportedIdentity(t, m.reports()[0], m, in)
			})
		}
	}
}

func checkReportedIdentity(t *testing.T, r url.Values, m *machine, in Input) {
	t.Helper()
	mac := "52:54:00:00:00:a2" // the port that the inventory knows, not the first
	if len(in.Host.Identity.MACs) == 0 {
		mac = "52:54:00:00:00:99"
	}
	uuid := strings.ToLower(strings.TrimSpace(m.read("sys/class/dmi/id/product_uuid")))
	if r.Get(lane.ReportUUID) != uuid || r.Get(lane.ReportMAC) != mac || r.Get(lane.ReportSerial) != "SN-A 1" {
		t.Errorf("the report says uuid %q, mac %q, serial %q", r.Get(lane.ReportUUID), r.Get(lane.ReportMAC), r.Get(lane.ReportSerial))
	}
}

// TestGateWithoutServer: a machine that cannot report must not go on.
func TestGateWithoutServer(t *testing.T) {
	for _, gate := range gates {
		t.Run(gate.system, func(t *testing.T) {
			if gate.seed != lane.SeedPreseed {
				return // the waiting is the same text, and takes a thousand processes
			}
			t.Parallel()
			m := machineFor(t, gate.seed)
			m.write("refuse", strings.Repeat("no\n", 1000))
			if status, console := m.run(document(t, full(gate.seed), gate.document)); status != 99 || !m.poweredOff() {
				t.Errorf("exit %d\n%s", status, console)
			}
			if n := strings.Count(m.read("log"), "sleep 5\n"); n != 2*59 { // the report, and that it could not be made
				t.Errorf("waited %d times", n)
			}
			if m.told() {
				t.Error("the disk was told to the installer")
			}
		})
		t.Run(gate.system+" comes back", func(t *testing.T) {
			t.Parallel()
			m := machineFor(t, gate.seed)
			m.write("refuse", "no\nno\n")
			if status, console := m.run(document(t, full(gate.seed), gate.document)); status != 0 || m.poweredOff() {
				t.Errorf("exit %d\n%s", status, console)
			}
			if r := m.reports(); len(r) < 3 || said(r[0]) != said(r[2]) {
				t.Errorf("reports %v", r)
			}
		})
	}
}

// TestGateHoldsWithoutPower: even where the power stays on, a gate that refuses does not succeed.
func TestGateHoldsWithoutPower(t *testing.T) {
	for _, c := range []struct{ seed, document string }{{lane.SeedPreseed, "early.sh"}, {lane.SeedPreseed, "partman.sh"}, {lane.SeedNoCloud, "gate.sh"}, {lane.SeedKickstart, "gate.sh"}, {lane.SeedAutoYaST, "gate.sh"}, {lane.SeedAgama, "gate.sh"}, {lane.SeedIgnition, "gate.sh"}} {
		m := machineFor(t, c.seed)
		m.write("sticks", "")
		m.remove("sys/class/dmi")
		if status, console := m.run(document(t, full(c.seed), c.document)); status == 0 || !m.poweredOff() {
			t.Errorf("%s: exit %d\n%s", c.document, status, console)
		}
		if m.told() {
			t.Errorf("%s: the disk was told to the installer:\n%s", c.document, m.read("log"))
		}
	}
}

func TestDiskGate(t *testing.T) {
	// A SAS disk as scsi_id shows it: the short serial number is the WWN.
	sas := func(m *machine) {
		m.disk("sdc", map[string]string{"size": "2344225968"})
		m.write("udev/sdc", "ID_SERIAL=35000c500a1b2c3d7\nID_SERIAL_SHORT=5000c500a1b2c3d7\nID_SCSI_SERIAL= WFK0ABCD  \n")
	}
	large := map[string]string{"size": "2000000000", "serial": "S1", "wwid": "eui.0025385a71b03a5b"}
	for _, c := range []struct {
		name string
		disk lane.DiskSelector
		edit func(*machine)
		want string // the disk chosen, or words of the refusal
	}{
		{"everything", full("").Host.Run.Disk, nil, "/dev/sda"},
		{"byID", lane.DiskSelector{ByID: "wwn-0x5002538e00000002"}, nil, "/dev/sdb"},
		{"byPath", lane.DiskSelector{ByPath: "pci-0000:00:17.0-ata-1"}, nil, "/dev/sda"},
		{"wwn of SCSI", lane.DiskSelector{WWN: "0x5002538e00000002"}, nil, "/dev/sdb"},
		{"wwn of NVMe", lane.DiskSelector{WWN: "eui.0025385a71b03a5b"}, func(m *machine) { m.disk("nvme0n1", large) }, "/dev/nvme0n1"},
		{"serial from udev", lane.DiskSelector{Serial: "S2"}, nil, "/dev/sdb"},
		{"serial of SAS", lane.DiskSelector{Serial: "WFK0ABCD"}, sas, "/dev/sdc"},
		{"serial of SAS, the WWN", lane.DiskSelector{Serial: "5000c500a1b2c3d7"}, sas, "/dev/sdc"},
		{"serial of SAS in newer sysfs", lane.DiskSelector{Serial: "5000c500a1b2c3d7"}, func(m *machine) { sas(m); m.write("sys/block/sdc/device/serial", "WFK0ABCD\n") }, "/dev/sdc"},
		{"serial of virtio without an end of line", lane.DiskSelector{Serial: "V1"}, func(m *machine) {
			m.write("dev/vda", "")
			m.write("sys/block/vda/serial", "V1")
			m.write("udev/vda", "ID_SERIAL_SHORT=V2\n")
		}, "/dev/vda"},
		{"serial of virtio", lane.DiskSelector{Serial: "V1"}, func(m *machine) { m.disk("vda", map[string]string{"size": "1", "serial": "V1"}) }, "/dev/vda"},
		{"serial of NVMe, with blanks", lane.DiskSelector{Serial: "N1"}, func(m *machine) { m.disk("nvme0n1", map[string]string{"size": "1", "device/serial": "  N1  "}) }, "/dev/nvme0n1"},
		{"two of a serial, one of the size", lane.DiskSelector{Serial: "S1", SizeGB: 1024}, func(m *machine) { m.disk("nvme0n1", large) }, "/dev/nvme0n1"},
		{"wwn of NVMe with a hidden path", lane.DiskSelector{WWN: "eui.0025385a71b03a5b", SizeGB: 1024}, func(m *machine) {
			m.disk("nvme0n1", large)
			m.disk("nvme0c0n1", large)
			m.write("sys/block/nvme0c0n1/hidden", "1\n")
		}, "/dev/nvme0n1"},
		{"serial of an eMMC with boot partitions", lane.DiskSelector{Serial: "0xdeadbeef"}, func(m *machine) {
			for _, name := range []string{"mmcblk0", "mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb"} {
				m.disk(name, map[string]string{"size": "1", "device/serial": "0xdeadbeef"})
			}
		}, "/dev/mmcblk0"},
		{"size within 1 %", lane.DiskSelector{Serial: "S1", SizeGB: 484.8}, nil, "/dev/sda"},
		{"model, as sysfs cuts it", lane.DiskSelector{Serial: "S1", Model: "MZ7L3480 'x' [a]"}, func(m *machine) { m.write("sys/block/sda/device/model", "MZ7L3480 'x' [a]  \n") }, "/dev/sda"},
		{"model, as udev has it whole", lane.DiskSelector{Serial: "S1", Model: "Samsung SSD 990 PRO 2TB"}, func(m *machine) {
			m.write("sys/block/sda/device/model", "Samsung SSD 990 \n")
			m.write("udev/sda", "ID_MODEL=Samsung_SSD_990_PRO_2TB\nID_SERIAL_SHORT=S1\n")
		}, "/dev/sda"},
		{"what the model begins with", lane.DiskSelector{Serial: "S1", Model: "Samsung SSD 990 PRO"}, func(m *machine) { m.write("udev/sda", "ID_MODEL=Samsung_SSD_990_PRO_2TB\nID_SERIAL_SHORT=S1\n") }, "/dev/sda"},
		{"another model", lane.DiskSelector{Serial: "S1", Model: "SSD"}, func(m *machine) { m.write("sys/block/sda/device/model", "Samsung SSD\n") }, "no disk matches serial=S1 model=SSD"},
		{"no pattern", lane.DiskSelector{Serial: "S1", Model: "Sam*"}, func(m *machine) { m.write("sys/block/sda/device/model", "Samsung SSD\n") }, "no disk matches serial=S1 model=Sam*"},
		{"no model", lane.DiskSelector{Serial: "S1", Model: "SSD"}, nil, "no disk matches serial=S1 model=SSD"},
		{"by the kernel's name", lane.DiskSelector{Name: "sdb"}, nil, "/dev/sdb"},
		{"300 disks", lane.DiskSelector{Serial: "S1"}, shelf, "/dev/sda"},
		{"300 disks, and none of them", lane.DiskSelector{Serial: "S9"}, shelf, "no disk matches serial=S9; seen: sda sd"},
		{"300 disks, two of one serial", lane.DiskSelector{Serial: "D7"}, func(m *machine) { shelf(m); m.write("sys/block/sdzz/serial", "D7\n") }, "2 disks match serial=D7: sd"},
		{"a name that is none here", lane.DiskSelector{Name: "sdc"}, nil, "no disk matches name=sdc"},

		{"no such link", lane.DiskSelector{ByID: "wwn-0x5002538e00000009"}, nil, "no disk matches byID=wwn-0x5002538e00000009; seen: sda sdb"},
		{"link to a partition", lane.DiskSelector{ByID: "wwn-0x1-part1"}, func(m *machine) {
			m.write("dev/sda1", "")
			if err := os.Symlink("../../sda1", m.path("dev/disk/by-id/wwn-0x1-part1")); err != nil {
				m.t.Fatal(err)
			}
		}, "no disk matches"},
		{"no such serial", lane.DiskSelector{Serial: "S9"}, nil, "no disk matches serial=S9"},
		{"a part of a serial", lane.DiskSelector{Serial: "WFK0"}, sas, "no disk matches"},
		{"a serial as a pattern", lane.DiskSelector{Serial: "WFK0A.CD"}, sas, "no disk matches"},
		{"a serial with its kind", lane.DiskSelector{Serial: "35000c500a1b2c3d7"}, sas, "no disk matches"},
		{"no such wwn", lane.DiskSelector{WWN: "0x5002538e00000009"}, nil, "no disk matches"},
		{"fields of two disks", lane.DiskSelector{Serial: "S2", WWN: "0x5002538e00000001"}, nil, "no disk matches"},
		{"two match", lane.DiskSelector{Serial: "S1"}, func(m *machine) { m.disk("nvme0n1", large) }, "2 disks match serial=S1: nvme0n1 sda"},
		{"too small", lane.DiskSelector{Serial: "S1", SizeGB: 490}, nil, "the disk sda has the wrong size for serial=S1 sizeGB=490"},
		{"too large", lane.DiskSelector{Serial: "S1", SizeGB: 470}, nil, "wrong size"},
		{"read-only", lane.DiskSelector{Serial: "S1"}, func(m *machine) { m.write("sys/block/sda/ro", "1\n") }, "the disk sda is read-only"},
		{"removable", lane.DiskSelector{Serial: "S1"}, func(m *machine) { m.write("sys/block/sda/removable", "1\n") }, "the disk sda is removable"},
		{"no udevadm to look with", lane.DiskSelector{WWN: "0x5002538e00000001"}, func(m *machine) { m.remove("bin/udevadm") }, "without udevadm nobody can say"},
		{"no disks", lane.DiskSelector{Serial: "S1"}, func(m *machine) { m.remove("sys/block") }, "no disk matches"},
		{"nothing selected", lane.DiskSelector{}, func(m *machine) { m.remove("sys/block/sdb") }, "no disk matches none"},
		{"only a size", lane.DiskSelector{SizeGB: 480}, func(m *machine) { m.remove("sys/block/sdb") }, "no disk matches sizeGB=480"},
	} {
		for _, gate := range []struct{ seed, document string }{{lane.SeedPreseed, "partman.sh"}, {lane.SeedNoCloud, "gate.sh"}, {lane.SeedKickstart, "gate.sh"}, {lane.SeedIgnition, "gate.sh"}} {
			if (gate.seed == lane.SeedNoCloud || gate.seed == lane.SeedIgnition) && !slices.Contains([]string{"everything", "no such link", "two match", "too small"}, c.name) {
				continue // the choice itself is the same text; this is about what becomes of it
			}
			t.Run(c.name+"/"+gate.seed, func(t *testing.T) {
				t.Parallel()
				m, in := machineFor(t, gate.seed), full(gate.seed)
				in.Host.Run.Disk = c.disk
				if c.edit != nil {
					c.edit(m)
				}
				diskGate(t, m, document(t, in, gate.document), c.want)
			})
		}
	}
}

// holds builds the block device holder upon others, which are disks, their
// partitions ("sda/sda1") or holders themselves.
func (m *machine) holds(holder string, on ...string) {
	m.write("sys/block/"+holder+"/size", "1\n")
	for _, name := range on {
		m.write("sys/block/"+name+"/holders/"+holder+"/.keep", "")
	}
}

// signed lets udev find a signature with an id on a disk, a partition or a holder.
func (m *machine) signed(name, kind, id string) {
	m.write("sys/block/"+name+"/holders/.keep", "")
	base := filepath.Base(name)
	m.write("udev/"+base, m.read("udev/"+base)+"ID_FS_TYPE="+kind+"\nID_FS_UUID="+id+"\n")
}

// volume makes a physical volume of it, whose group has the physical volumes ids.
func (m *machine) volume(name, id string, ids ...string) {
	m.signed(name, "LVM2_member", id)
	text := "vg {\nid = \"VGVGVG-vgvg-vgvg-vgvg-vgvg-vgvg-VGVGVG\"\nphysical_volumes {\n"
	for i, id := range ids {
		text += fmt.Sprintf("\n\t\tpv%d {\n\t\t\tid = %q\n\t\t\tdevice = \"/dev/sdx\"\t# Hint only\n\t\t}\n", i, id)
	}
	m.write("dev/"+filepath.Base(name), strings.Repeat("\x00", 512)+"LABELONE"+strings.Repeat("\x00\xff", 2000)+text+"\x00"+strings.Repeat("\x00", 100000))
}

// TestSharedDisk: what was granted is one disk. An array or a volume group that
// is on others too would be taken apart there as well.
func TestSharedDisk(t *testing.T) {
	const pvA, pvB, pvC = "AAAAAA-aaaa-aaaa-aaaa-aaaa-aaaa-AAAAAA", "BBBBBB-bbbb-bbbb-bbbb-bbbb-bbbb-BBBBBB", "CCCCCC-cccc-cccc-cccc-cccc-cccc-CCCCCC"
	const raidA, raidB = "0a0a0a0a-0000-0000-0000-00000000000a", "0b0b0b0b-0000-0000-0000-00000000000b"
	for _, c := range []struct {
		name string
		edit func(*machine)
		want string // the disk chosen, or the end of the refusal
	}{
		{"an array and a group of its own", func(m *machine) {
			m.signed("sda/sda1", "linux_raid_member", raidA)
			m.signed("sda/sda2", "linux_raid_member", raidA)
			m.holds("md0", "sda/sda1", "sda/sda2")
			m.volume("md0", pvA, pvA)
			m.holds("dm-0", "md0")
			m.signed("sdb/sdb1", "linux_raid_member", raidB)
			m.holds("md1", "sdb/sdb1")
			m.volume("md1", pvB, pvB)
			m.holds("dm-1", "md1")
		}, "/dev/sda"},
		{"a group of its own on two partitions", func(m *machine) {
			m.volume("sda/sda1", pvA, pvA, pvB)
			m.volume("sda/sda2", pvB, pvA, pvB)
			m.volume("sdb", pvC, pvC)
		}, "/dev/sda"},
		{"a new volume over an old text", func(m *machine) { m.volume("sda/sda1", pvA, pvC) }, "/dev/sda"},
		{"the same file system on both", func(m *machine) { m.signed("sda/sda1", "ext4", raidA); m.signed("sdb/sdb1", "ext4", raidA) }, "/dev/sda"},
		{"others share among themselves", func(m *machine) {
			m.signed("sdb/sdb1", "linux_raid_member", raidA)
			m.signed("sdc/sdc1", "linux_raid_member", raidA)
			m.holds("md0", "sdb/sdb1", "sdc/sdc1")
			m.volume("md0", pvA, pvA, pvB)
			m.volume("sdd", pvB, pvA, pvB)
			m.holds("dm-0", "md0", "sdd")
		}, "/dev/sda"},

		{"array of partitions", func(m *machine) { m.holds("md0", "sda/sda1", "sdb/sdb1") }, "sdb"},
		{"array of whole disks", func(m *machine) { m.holds("md0", "sda", "sdb") }, "sdb"},
		{"array with NVMe behind multipath", func(m *machine) { m.holds("md0", "sda/sda1", "nvme0n1/nvme0n1p1") }, "nvme0n1"},
		{"group over two arrays", func(m *machine) {
			m.holds("md0", "sda/sda1")
			m.holds("md1", "sdb/sdb1")
			m.holds("dm-0", "md0", "md1")
		}, "md1,sdb"},
		{"group on a partition of an array", func(m *machine) { m.holds("md0", "sda"); m.holds("dm-0", "md0/md0p1", "sdb/sdb1") }, "sdb"},
		{"an array of sixty", func(m *machine) {
			for i := range 60 {
				m.holds("md0", fmt.Sprintf("sdc%c%c", 'a'+i/26, 'a'+i%26))
			}
			m.holds("md0", "sda")
		}, "sdcaa,sdcab"},

		{"array not assembled", func(m *machine) {
			m.signed("sda/sda1", "linux_raid_member", raidA)
			m.signed("sdb/sdb2", "linux_raid_member", raidA)
		}, "sdb2"},
		{"array of whole disks not assembled", func(m *machine) {
			m.signed("sda", "linux_raid_member", raidA)
			m.signed("sdb", "linux_raid_member", raidA)
		}, "sdb"},
		{"array upon an array not assembled", func(m *machine) {
			m.holds("md0", "sda/sda1")
			m.signed("md0", "linux_raid_member", raidA)
			m.signed("sdb/sdb1", "linux_raid_member", raidA)
		}, "sdb1"},
		{"array of the firmware", func(m *machine) { m.signed("sda", "isw_raid_member", ""); m.signed("sdb", "isw_raid_member", "") }, "sdb"},

		{"group not active", func(m *machine) {
			m.volume("sda/sda3", pvA, pvA, pvB)
			m.volume("sdb/sdb1", pvB, pvA, pvB)
		}, "sdb1"},
		{"group, and a logical volume on this disk only", func(m *machine) {
			m.volume("sda/sda3", pvB, pvA, pvB)
			m.holds("dm-0", "sda/sda3")
			m.volume("sdb", pvA, pvA, pvB)
		}, "sdb"},
		{"a volume without a group, and another's group", func(m *machine) { m.volume("sda/sda1", pvA); m.volume("sdb", pvB, pvB, pvC) }, "/dev/sda"},
		{"a volume without metadata of its own", func(m *machine) {
			m.signed("sda/sda3", "LVM2_member", pvA)
			m.write("dev/sda3", "")
			m.volume("sdb/sdb1", pvB, pvA, pvB)
		}, "sdb1"},
		{"a volume with metadata that is out of date", func(m *machine) {
			m.volume("sda/sda3", pvA, pvA)
			m.volume("sdb/sdb1", pvB, pvA, pvB)
		}, "sdb1"},
		{"a text beyond the first MiB", func(m *machine) {
			m.volume("sda/sda3", pvA, pvA, pvB)
			m.write("dev/sda3", strings.Repeat("\x00", 2<<20)+m.read("dev/sda3"))
			m.volume("sdb/sdb1", pvB)
		}, "sdb1"},
		{"two volumes without a text", func(m *machine) {
			m.signed("sda/sda3", "LVM2_member", pvA)
			m.write("dev/sda3", "")
			m.signed("sdb/sdb1", "LVM2_member", pvB)
			m.write("dev/sdb1", "")
		}, "sdb1 (neither tells its group)"},
		{"a volume that cannot be read", func(m *machine) { m.signed("sda/sda3", "LVM2_member", pvA) }, "unknown ones (sda3 cannot be read)"},
		{"another's volume that cannot be read", func(m *machine) {
			m.volume("sda/sda3", pvA, pvA)
			m.signed("sdb/sdb1", "LVM2_member", pvB)
		}, "sdb1 (it cannot be read)"},

		{"group with a disk that is not there", func(m *machine) { m.volume("sda/sda3", pvA, pvA, pvB) }, "a missing disk"},
		{"group on two partitions and a disk that is not there", func(m *machine) {
			m.volume("sda/sda1", pvA, pvA, pvB, pvC)
			m.volume("sda/sda2", pvC, pvA, pvB, pvC)
		}, "a missing disk"},
		{"group upon an array of its own", func(m *machine) {
			m.signed("sda/sda1", "linux_raid_member", raidA)
			m.holds("md0", "sda/sda1")
			m.volume("md0", pvA, pvA, pvB)
			m.volume("sdb/sdb1", pvB, pvA, pvB)
		}, "sdb1"},
	} {
		for _, gate := range []struct{ seed, document string }{{lane.SeedPreseed, "partman.sh"}, {lane.SeedNoCloud, "gate.sh"}} {
			t.Run(c.name+"/"+gate.document, func(t *testing.T) {
				t.Parallel()
				m, want := newMachine(t), c.want
				c.edit(m)
				m.write("autoinstall.yaml", "a: \"@DISK0@\"\n")
				if !strings.HasPrefix(want, "/") {
					want = "or wipe sda on purpose (wipefs -a on its partitions, then on itself). The others: " + want
				}
				diskGate(t, m, document(t, full(gate.seed), gate.document), want)
				reports := m.reports()
				if last := reports[len(reports)-1].Get(lane.ReportMessage); !strings.HasPrefix(want, "/") && !strings.HasSuffix(last, want) && len(last) < 500 {
					t.Errorf("it names more: %s", last)
				}
			})
		}
	}
}

// TestWholeDisks: the gate and the agent mean the same by a disk. The agent's
// pattern is read from its source, since nothing here may import it.
func TestWholeDisks(t *testing.T) {
	source, err := os.ReadFile("../agent/hardware.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?m)^var wholeDisk = regexp.MustCompile\\(`(.*)`\\)$").FindSubmatch(source)
	if found == nil {
		t.Fatal("the agent has no pattern wholeDisk any more")
	}
	agent := regexp.MustCompile(string(found[1]))
	m, in := newMachine(t), full(lane.SeedPreseed)
	in.Host.Run.Disk = lane.DiskSelector{Serial: "nobody's"}
	var want []string
	for _, name := range []string{"dm-0", "fd0", "hda", "loop0", "md127", "mmcblk0", "mmcblk0boot0", "mmcblk0boot1", "mmcblk0gp0", "mmcblk0rpmb", "mmcblk10", "nbd0",
		"nvme0c0n1", "nvme0n1", "nvme10n2", "ram0", "sda", "sdb", "sdaa", "sr0", "vda", "vda1", "xsda", "xvdb", "zram0"} {
		m.disk(name, map[string]string{"size": "1"})
		if agent.MatchString(name) {
			want = append(want, name)
		}
	}
	m.run(document(t, in, "partman.sh"))
	reports := m.reports()
	_, seen, _ := strings.Cut(reports[len(reports)-1].Get(lane.ReportMessage), "; seen: ")
	got := strings.Fields(seen)
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 5 || !slices.Equal(got, want) {
		t.Errorf("the gate sees %v, the agent %v", got, want)
	}
}

// shelf puts 300 more disks into the machine.
func shelf(m *machine) {
	n := 0
	for a := 'a'; a <= 'z' && n < 300; a++ {
		for b := 'a'; b <= 'z' && n < 300; b++ {
			n++
			m.disk(fmt.Sprintf("sd%c%c", a, b), map[string]string{"size": "937500000", "serial": fmt.Sprintf("D%d", n), "ro": "0", "removable": "0"})
		}
	}
	m.disk("sdzz", map[string]string{"size": "937500000", "serial": "D301", "ro": "0", "removable": "0"})
}

func diskGate(t *testing.T, m *machine, script, want string) {
	t.Helper()
	status, console := m.run(script)
	reports := m.reports()
	last := reports[len(reports)-1]
	log, auto, told := m.read("log"), m.read("autoinstall.yaml"), m.told()
	if !strings.HasPrefix(want, "/dev/") {
		if status != 99 || told || said(last) != "installer 1 failed" || !strings.Contains(last.Get(lane.ReportMessage), "disk gate: ") || !strings.Contains(last.Get(lane.ReportMessage), want) {
			t.Errorf("exit %d, told %v, report %s: %s\nwant %s\n%s", status, told, said(last), last.Get(lane.ReportMessage), want, console)
		}
		return
	}
	name := strings.TrimPrefix(want, "/dev/")
	if status != 0 || m.poweredOff() || said(last) != "installer 1 ok" || !strings.Contains(last.Get(lane.ReportMessage), " "+name+" is ") {
		t.Errorf("exit %d, report %s: %s\n%s", status, said(last), last.Get(lane.ReportMessage), console)
	}
	if strings.Contains(script, "/tmp/bootlane-tell") {
		for _, set := range []string{"debconf partman-auto/disk " + want + "\n", "debconf grub-installer/bootdev " + want + "\n"} {
			if !strings.Contains(log, set) {
				t.Errorf("no %q in\n%s", set, log)
			}
		}
		return
	}
	if strings.Contains(script, "Flatcar") {
		if got := m.read("tmp/bootlane-disk"); got != name+"\n" {
			t.Errorf("the disk is told as %q", got)
		}
		return
	}
	if strings.Contains(script, "bootlane-disk") {
		checkDiskLines(t, m.read("tmp/bootlane-disk"), name, "part /boot/efi --fstype=efi --size=600")
		return
	}
	if auto != "a: \""+want+"\"\n" {
		t.Errorf("autoinstall.yaml is %q", auto)
	}
}

func TestDiskGateFailures(t *testing.T) {
	t.Run("identity again", func(t *testing.T) {
		m := newMachine(t)
		m.write("sys/class/dmi/id/product_serial", "SN-B\n")
		m.expect(document(t, full(lane.SeedPreseed), "partman.sh"), false, "installer 1 failed: identity gate: serial")
	})
	t.Run("debconf refuses", func(t *testing.T) {
		m := newMachine(t)
		m.write("no-debconf", "")
		m.expect(document(t, full(lane.SeedPreseed), "partman.sh"), false, "installer 1 ok", "installer 2 failed: the installer takes no answer to partman-auto/disk")
	})
	t.Run("no recipe", func(t *testing.T) {
		m := newMachine(t)
		m.remove("tmp")
		m.expect(document(t, full(lane.SeedPreseed), "partman.sh"), false, "installer 1 ok", "installer 2 failed: the partition recipe")
	})
	t.Run("no autoinstall.yaml", func(t *testing.T) {
		m := newMachine(t)
		m.expect(document(t, full(lane.SeedNoCloud), "gate.sh"), false, "kernel 1 ok", "installer 1 ok", "installer 2 failed: the disk cannot be told")
	})
	t.Run("a marker stays", func(t *testing.T) {
		m := newMachine(t)
		m.write("autoinstall.yaml", "a: \"@DISK0@\"\nb: \"@DISK1@\"\n")
		m.expect(document(t, full(lane.SeedNoCloud), "gate.sh"), false, "kernel 1 ok", "installer 1 ok", "installer 2 failed: the disk cannot be told")
	})
}

// TestUbuntuFirmware: GRUB goes where the firmware that started the machine looks for it, and nowhere
// else. Some releases write the configuration anew before the gate sees it.
func TestUbuntuFirmware(t *testing.T) {
	type action struct {
		Type, ID, Path, Device, Flag string
		Grub                         any `yaml:"grub_device"`
	}
	var given, anew struct {
		Autoinstall struct{ Storage struct{ Config []action } }
	}
	arm := full(lane.SeedNoCloud)
	arm.Bundle.Arch = lane.ARM64
	for name, in := range map[string]Input{"one disk": full(lane.SeedNoCloud), "two": mirrored(lane.SeedNoCloud), "arm64": arm} {
		text := document(t, in, "user-data")
		if err := yaml.Unmarshal([]byte(text), &given); err != nil {
			t.Fatal(err)
		}
		written, err := yaml.Marshal(given)
		if err != nil {
			t.Fatal(err)
		}
		for _, auto := range []string{text, string(written), text + "  # sed -i s/@HOSTNAME@/x/ a@@b\n"} {
			for _, uefi := range []bool{true, false} {
				m := machineFor(t, lane.SeedNoCloud)
				m.write("autoinstall.yaml", auto)
				if !uefi {
					m.remove("sys/firmware/efi")
				}
				m.expect(document(t, in, "gate.sh"), true, "kernel 1 ok", "installer 1 ok")
				if err := yaml.Unmarshal([]byte(m.read("autoinstall.yaml")), &anew); err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, a := range anew.Autoinstall.Storage.Config {
					if a.Grub != nil || a.Flag == "bios_grub" {
						got = append(got, fmt.Sprint(a.ID, a.Path, " ", a.Flag, a.Grub))
					}
				}
				want := map[string]string{"one disk": "[disk0/dev/sda %v grub bios_grub<nil> esp boot%v]", "two": "[disk0/dev/sda %[1]v disk1/dev/sdb %[1]v grub bios_grub<nil> grub1 bios_grub<nil> esp boot%[2]v esp1 boot%[2]v]", "arm64": "[disk0/dev/sda %v esp boot%v]"}[name]
				if want = fmt.Sprintf(want, !uefi, uefi); fmt.Sprint(got) != want {
					t.Errorf("%s, UEFI %v: %v, want %s", name, uefi, got, want)
				}
			}
		}
	}
}

// TestPartitionRecipe: no swap, and the boot loader's place for the firmware at hand.
func TestPartitionRecipe(t *testing.T) {
	for firmware, want := range map[string]string{"uefi": "method{ efi }", "bios": "method{ biosgrub }"} {
		m := newMachine(t)
		if firmware == "bios" {
			m.remove("sys/firmware")
		}
		if status, console := m.run(document(t, full(lane.SeedPreseed), "partman.sh")); status != 0 {
			t.Fatalf("%s: exit %d\n%s", firmware, status, console)
		}
		recipe := m.read("tmp/bootlane-recipe")
		if !strings.HasPrefix(recipe, "bootlane ::\n") || !strings.Contains(recipe, want) || strings.Count(recipe, "$iflabel{ gpt }") != 1 || strings.Contains(recipe, "swap") ||
			!strings.Contains(recipe, "mountpoint{ /boot }") || !strings.Contains(recipe, "mountpoint{ / }") || strings.Count(recipe, "$lvmok{ }") != 1 {
			t.Errorf("%s:\n%s", firmware, recipe)
		}
		for _, partition := range strings.Split(strings.TrimSpace(strings.TrimPrefix(recipe, "bootlane ::\n")), " .\n") {
			f := strings.Fields(partition) // MIN PRIORITY MAX FS, then its properties
			if len(f) < 6 || strings.Trim(f[0]+f[1], "0123456789") != "" || strings.Count(partition, "{") != strings.Count(partition, "}") {
				t.Errorf("%s: the partition %q", firmware, partition)
			}
		}
	}
}

func TestLate(t *testing.T) {
	const fstab = "# swap was on none swap here\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n/swapfile\tnone\tswap\tsw\t0\t0\n"
	for _, c := range []struct{ seed, system, root string }{{lane.SeedPreseed, "Debian", "target"}, {lane.SeedNoCloud, "Ubuntu", "target"}, {lane.SeedKickstart, "rhel 9.6", "mnt/sysroot"}} {
		served := func(t *testing.T) *machine {
			m := machineFor(t, c.seed)
			m.write("served/firstboot.sh", "the script")
			m.write("served/firstboot.service", "the unit")
			m.write(c.root+"/etc/fstab", fstab)
			return m
		}
		script := document(t, full(c.seed), "late.sh")
		t.Run(c.system, func(t *testing.T) {
			m := served(t)
			m.expect(script, true, "disk-written 1 ok: "+c.system+" installed, first boot in place")
			checkTarget(t, m, c.seed, c.root+"/")
			// The report is the last thing that is done.
			if log := strings.TrimSpace(m.read("log")); !strings.HasPrefix(log[strings.LastIndex(log, "\n")+1:], "POST ") {
				t.Errorf("after the report:\n%s", log)
			}
		})
		t.Run(c.system+" without first boot", func(t *testing.T) {
			m := served(t)
			m.remove("served/firstboot.service")
			m.expect(script, false, "disk-written 1 failed: the installation is not complete")
		})
		t.Run(c.system+" on a full disk", func(t *testing.T) {
			m := served(t)
			m.write(c.root+"/usr", "a file where a directory should be")
			m.expect(script, false, "disk-written 1 failed")
		})
		t.Run(c.system+" twice", func(t *testing.T) {
			m := served(t)
			m.run(script)
			before := m.read(c.root + "/home/admin1/.ssh/authorized_keys")
			if status, console := m.run(script); status != 0 || m.read(c.root+"/home/admin1/.ssh/authorized_keys") != before || m.read(c.root+"/etc/fstab") == fstab {
				t.Errorf("exit %d\n%s", status, console)
			}
		})
	}
	t.Run("Debian without a user", func(t *testing.T) {
		m := newMachine(t)
		m.write("served/firstboot.sh", "")
		m.write("served/firstboot.service", "")
		m.write("no-in-target", "")
		m.expect(document(t, full(lane.SeedPreseed), "late.sh"), false, "disk-written 1 failed")
	})
}

func checkTarget(t *testing.T, m *machine, seed, root string) {
	t.Helper()
	modes := map[string]fs.FileMode{root + "usr/local/lib/bootlane/firstboot": 0o700, root + "etc/sudoers.d/90-bootlane": 0o440}
	if seed != lane.SeedNoCloud {
		modes[root+"home/admin1/.ssh"], modes[root+"home/admin1/.ssh/authorized_keys"] = 0o700, 0o600
		if got, want := m.read(root+"home/admin1/.ssh/authorized_keys"), strings.Join(full(seed).Site.SSHKeys, "\n")+"\n"; got != want {
			t.Errorf("keys %q, want %q", got, want)
		}
	}
	if seed == lane.SeedPreseed {
		if !strings.Contains(m.read("log"), "in-target chown -R admin1:admin1 /home/admin1/.ssh\n") {
			t.Error("the keys do not belong to their user")
		}
	}
	for name, mode := range modes {
		if st, err := os.Stat(m.path(name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if m.read(root+"usr/local/lib/bootlane/firstboot") != "the script" || m.read(root+"etc/systemd/system/bootlane-firstboot.service") != "the unit" {
		t.Error("first boot is not in place")
	}
	if link, err := os.Readlink(m.path(root + "etc/systemd/system/multi-user.target.wants/bootlane-firstboot.service")); err != nil || link != "/etc/systemd/system/bootlane-firstboot.service" {
		t.Errorf("first boot is not enabled: %s, %v", link, err)
	}
	if got := m.read(root + "etc/sudoers.d/90-bootlane"); got != "admin1 ALL=(ALL) NOPASSWD:ALL\n" {
		t.Errorf("sudoers %q", got)
	}
	if got, want := m.read(root+"etc/fstab"), "# swap was on none swap here\nUUID=1 / ext4 defaults 0 1\n#UUID=2 none swap sw 0 0\n#/swapfile\tnone\tswap\tsw\t0\t0\n"; got != want {
		t.Errorf("fstab:\n%s", got)
	}
}

// TestHostileValues: whatever the inventory and the firmware say, a real shell
// reads it as text.
func TestHostileValues(t *testing.T) {
	// FuzzQuotes tries the rest; a shell process costs a thousand times as much.
	for _, s := range []string{"a'b", `a"b`, "$(touch /pwned)", "`touch /pwned`", "';touch /pwned;'", `\\"`, "${HOME}", "a b  c", "*", "-n", "%s%n", "A+B=C&D%20;E#F", "&& touch /pwned", "Ünïcödé 測試", "END-OF-KEYS"} {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			m, in := newMachine(t), full(lane.SeedPreseed)
			in.Host.Identity.Serial, in.Host.Run.Disk = s, lane.DiskSelector{Serial: s}
			in.Site.SSHKeys = []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA " + s}
			m.write("sys/class/dmi/id/product_serial", s+"\n")
			m.disk("vda", map[string]string{"size": "1", "serial": s})
			m.write("served/firstboot.sh", "")
			m.write("served/firstboot.service", "")
			placeholder := lane.PlaceholderText(s)
			for _, name := range []string{"early.sh", "partman.sh", "late.sh"} {
				if status, console := m.run(document(t, in, name)); status != 0 {
					t.Errorf("%s: exit %d\n%s", name, status, console)
				}
			}
			if got, want := m.read("target/home/admin1/.ssh/authorized_keys"), in.Site.SSHKeys[0]+"\n"; got != want {
				t.Errorf("the key %q was written as %q", want, got)
			}
			if !strings.Contains(m.read("log"), "debconf partman-auto/disk /dev/vda\n") {
				t.Error("the disk was not recognised")
			}
			if _, err := os.Stat(m.path("pwned")); err == nil {
				t.Error("the value was executed")
			}
			m.write("sys/class/dmi/id/product_serial", "another\n")
			if status, _ := m.run(document(t, in, "early.sh")); (status != 99) != placeholder {
				t.Errorf("another serial number: exit %d", status)
			}
			for i, v := range m.reports() {
				if seen := v.Get(lane.ReportSerial); len(v) != 7 || seen != s && i < 3 {
					t.Errorf("the serial number arrives as %q, in %v", seen, v)
				}
			}
		})
	}
}
