package app_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bootlane/internal/lane"
)

// installer is a made-up machine in a directory, in which hooks run as an installer runs them: by
// busybox, with its own wget, which reaches the real server. Nothing that it is told is written down
// anywhere but there.
type installer struct {
	*testing.T
	root string
}

func (m installer) write(name, text string) {
	m.Helper()
	path := filepath.Join(m.root, name)
	must(m.T, os.MkdirAll(filepath.Dir(path), 0o755))
	must(m.T, os.WriteFile(path, []byte(text), 0o755))
}

func (m installer) read(name string) string {
	b, err := os.ReadFile(filepath.Join(m.root, name))
	if err != nil {
		return ""
	}
	return string(b)
}

// outside stands in for the power supply and for what there is no time for. Functions come before
// busybox's own applets. Installers have GNU's wget, which takes -T; Debian's busybox dies of it.
const outside = `
poweroff() { echo "poweroff $*" >> /log; exit 1; }
sleep() { echo "sleep $*" >> /log; }
chroot() { echo "chroot $*" >> /log; }
wget() {
	left=$#
	while [ "$left" -gt 0 ]; do
		arg=$1 left=$((left - 1))
		shift
		if [ "$arg" = -T ]; then
			left=$((left - 1))
			shift
		else
			set -- "$@" "$arg"
		fi
	done
	busybox wget "$@"
}
timeout() { shift; "$@"; }
`

// newInstaller is the machine of node1's record, with the disk that it selects, and another one.
func newInstaller(t *testing.T) installer {
	t.Helper()
	m := installer{t, t.TempDir()}
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox is missing: apt-get install busybox-static")
	}
	busybox, err := os.ReadFile(path)
	must(t, err)
	m.write("bin/busybox", string(busybox))
	for _, applet := range strings.Fields("sh cat chmod cut dd echo grep head ln mkdir printf readlink rm sed seq sort tail timeout tr") {
		must(t, os.Symlink("busybox", filepath.Join(m.root, "bin", applet)))
	}
	m.write("world", outside)
	for _, made := range []string{"udevadm", "in-target", "curtin", "flatcar-install", "sync"} {
		m.write("bin/"+made, "#!/bin/sh\necho "+made+" \"$@\" >> /log\n")
	}
	for name, text := range map[string]string{
		"usr/share/debconf/confmodule": "db_set() { echo \"debconf $*\" >> /log; }\ndb_fset() { :; }\n",
		"dev/null":                     "", "tmp/.keep": "", "run/.keep": "", "sys/firmware/efi/.keep": "", "proc/sysrq-trigger": "", "autoinstall.yaml": "path: \"@DISK0@\"\n",
		"sys/class/dmi/id/product_uuid": strings.ToUpper(string(uuid)) + "\n", "sys/class/dmi/id/product_serial": "S1\n", "sys/class/net/eth0/address": string(mac) + "\n",
		"sys/block/vda/serial": "D1", "sys/block/vda/size": "1953125\n", "sys/block/vdb/serial": "D2", "sys/block/vdb/size": "1953125\n", "dev/vda": "", "dev/vdb": "", "dev/disk/by-id/.keep": "",
	} {
		m.write(name, text)
	}
	must(t, os.Symlink("../../vda", filepath.Join(m.root, "dev/disk/by-id/virtio-D1")))
	return m
}

// run runs a document of a run, and reports whether it passed with the machine still on.
func (m installer) run(base, document string) bool {
	m.Helper()
	res, script := ask(m.T, "GET", base+"/seed/"+document, "")
	if res.StatusCode != 200 {
		m.Fatalf("%s: %s %s", document, res.Status, script)
	}
	m.write("hook", script)
	cmd := exec.CommandContext(m.Context(), "/bin/sh", "-c", ". /world; . /hook")
	cmd.Dir, cmd.Env = "/", []string{"PATH=/bin"}
	// In a PID namespace of its own nothing that it does can switch this machine off.
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root, Cloneflags: syscall.CLONE_NEWPID}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "not found") {
		m.Fatalf("%s: the made-up machine lacks something:\n%s", document, out)
	}
	m.Logf("%s: %v\n%s", document, err, out)
	return err == nil && !strings.Contains(m.read("log"), "poweroff")
}

// hookTexts are each seed's hooks before and after the disk is written.
var hookTexts = map[string]struct{ gates, late []string }{
	lane.SeedPreseed:   {[]string{"early.sh", "partman.sh"}, []string{"late.sh"}},
	lane.SeedNoCloud:   {[]string{"gate.sh"}, []string{"late.sh"}},
	lane.SeedKickstart: {[]string{"gate.sh"}, []string{"late.sh"}},
	lane.SeedAutoYaST:  {[]string{"gate.sh"}, []string{"late.sh"}},
	lane.SeedAgama:     {[]string{"gate.sh"}, []string{"late.sh"}},
	lane.SeedIgnition:  {[]string{"gate.sh"}, []string{"install.sh"}},
}

// begin grants node1 a run of a seed, and returns the URL of the run.
func (w *world) begin(seed string) string {
	w.Helper()
	name, _, _ := strings.Cut(seed, "/")
	_, err := w.client.Provision(w.Context(), "node1", lane.Provisioning{Bundle: name + "-1"})
	must(w.T, err)
	_, body := ask(w.T, "GET", scriptURL(nil), "")
	m := argURL.FindStringSubmatch(body)
	if m == nil {
		w.Fatalf("no run in\n%s", body)
	}
	base, _, _ := strings.Cut(m[1], "/seed/")
	return base
}

func (w *world) node1() lane.Host {
	w.Helper()
	h, err := w.client.Host(w.Context(), "node1")
	must(w.T, err)
	return h
}

// TestHooksReport runs every installer's hooks against made-up disks, and has the real server hear
// them: the run moves as they say, or ends with what the gate found.
func TestHooksReport(t *testing.T) {
	w := newWorld(t, "policy: {bootRetry: 5m, askMirrors: false}\n")
	w.bundles()
	w.enrol("image-1")
	for seed, hooks := range hookTexts {
		t.Run(seed, func(t *testing.T) {
			w.T = t
			base, m := w.begin(seed), newInstaller(t)
			if seed == lane.SeedAutoYaST {
				_, text := ask(t, "GET", base+"/seed/autoinst.xml", "")
				m.write("tmp/profile/autoinst.xml", text)
			}
			for _, doc := range hooks.gates {
				if !m.run(base, doc) {
					t.Fatalf("%s refuses the right machine:\n%s", doc, m.read("log"))
				}
			}
			if h := w.node1(); h.Run.Stage != lane.StageInstaller {
				t.Errorf("after the gates the run is at %s", h.Run.Stage)
			}
			told := m.read("log") + m.read("autoinstall.yaml") + m.read("tmp/bootlane-disk") + m.read("tmp/profile/modified.xml")
			if seed != lane.SeedAgama && (!strings.Contains(told, "vda") || strings.Contains(told, "vdb")) {
				t.Errorf("the installer was told\n%s", told)
			}
			for _, doc := range hooks.late {
				if !m.run(base, doc) {
					t.Fatalf("%s:\n%s", doc, m.read("log"))
				}
			}
			if h := w.node1(); h.Run.Stage != lane.StageDiskWritten {
				t.Errorf("after the last hook the run is at %s", h.Run.Stage)
			}
			_, err := w.client.Act(t.Context(), "node1", "cancel", "next seed")
			must(t, err)
		})
		for what, wrong := range map[string]struct {
			edit func(installer)
			note string
		}{
			"another machine": {func(m installer) { m.write("sys/class/dmi/id/product_serial", "S9\n") }, "serial"},
			"another disk":    {func(m installer) { m.write("sys/block/vda/serial", "D9") }, "disk gate: no disk matches"},
			"no disk":         {func(m installer) { must(t, os.RemoveAll(filepath.Join(m.root, "sys/block"))) }, "disk gate: no disk matches"},
		} {
			t.Run(seed+", "+what, func(t *testing.T) {
				w.T = t
				base, m := w.begin(seed), newInstaller(t)
				m.write("tmp/profile/autoinst.xml", "<device>@DISK0@</device>\n")
				wrong.edit(m)
				passed := true
				for _, doc := range hooks.gates {
					passed = passed && m.run(base, doc)
				}
				told := m.read("autoinstall.yaml") + m.read("tmp/bootlane-disk") + m.read("tmp/profile/modified.xml")
				if passed || strings.Contains(told, "vda") || strings.Contains(m.read("log"), "debconf partman-auto/disk") {
					t.Errorf("passed %v, and the installer was told %q\n%s", passed, told, m.read("log"))
				}
				h := w.node1()
				if h.Run.Open && h.State != lane.StateQuarantine || !strings.Contains(h.Note, wrong.note) {
					t.Errorf("%s: %s", h.State, h.Note)
				}
				if h.State == lane.StateQuarantine {
					_, err := w.client.Act(t.Context(), "node1", "release", "it was another one")
					must(t, err)
					_, err = w.client.Act(t.Context(), "node1", "cancel", "next seed")
					must(t, err)
				}
			})
		}
	}
}
