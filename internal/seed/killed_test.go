package seed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"bootlane/internal/lane"
)

// breakable is a system on which first boot has everything to do, and on which the power fails
// before the command that changes something for the nth time. Never, where n is 0.
func breakable(t *testing.T, shell []string, n int) (*installed, Input) {
	t.Helper()
	s, in := newInstalled(t), kubernetes(full(lane.SeedImage))
	s.shell = shell
	in.Scripts = []Script{{"one.sh", []byte("#!/bin/sh\nmv --version > " + s.root + "/one\n")}, {"two.sh", []byte("#!/bin/sh\ntouch " + s.root + "/two\n")}}
	s.write("proc/swaps", "Filename\n/dev/sda9 partition 1 0 -2\n")
	s.write("etc/fstab", "/dev/sda9 none swap sw 0 0\n")
	s.write("kernel/overlay", "")
	s.write("state/count", "0\n")
	s.write("state/at", strconv.Itoa(n)+"\n")
	for _, name := range []string{"mv", "mkdir", "sync", "curl", "useradd", "usermod", "modprobe", "swapoff", "ssh-keygen"} {
		real := filepath.Join(s.root, "real", name)
		if body := s.read("bin/" + name); body != "" {
			s.write("real/"+name, body)
		} else if path, err := exec.LookPath(name); err == nil {
			real = path
		} else {
			t.Fatal(err)
		}
		s.program(name, fmt.Sprintf(`here=$(dirname "$0")/../state
read n < "$here/count"
n=$((n + 1))
echo $n > "$here/count"
read at < "$here/at"
[ $n != $at ] || kill -9 0
exec %s "$@"`, real))
	}
	return s, in
}

// attempt runs first boot in a process group of its own, and says whether the power failed.
func (s *installed) attempt(in Input) (failed bool) {
	s.t.Helper()
	s.place(in)
	cmd := s.command()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return true
	}
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// TestFirstBootCutShort: wherever the power fails, the next boot ends as if it had not; and once
// it is done, it stays so.
func TestFirstBootCutShort(t *testing.T) {
	shells := [][]string{{"dash"}, {tool(t, "busybox", "busybox-static"), "sh"}}
	var want string
	var points int
	for _, shell := range shells {
		s, in := breakable(t, shell, 0)
		if s.attempt(in) {
			t.Fatal("it was cut short")
		}
		s.ready(in)
		if want != "" && s.everything() != want {
			t.Errorf("%v leaves another system", shell)
		}
		want = s.everything()
		n, err := strconv.Atoi(strings.TrimSpace(s.read("state/count")))
		if err != nil || n < 30 {
			t.Fatalf("%d commands change something, %v", n, err)
		}
		points = max(points, n)
		if reports := len(s.reports(in)); s.attempt(in) || len(s.reports(in)) != reports || s.everything() != want {
			t.Errorf("%v: once it is done, it does something again", shell)
		}
	}
	for n := 1; n <= points; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			s, in := breakable(t, shells[n%2], n)
			if failed := s.attempt(in); !failed && n < points-2 { // the shells differ a little in what they start
				t.Error("it was not cut short")
			}
			s.write("state/at", "0\n")
			s.reboot()
			if s.attempt(in) {
				t.Error("it was cut short again")
			}
			s.ready(in)
			if got := s.everything(); got != want {
				t.Errorf("it leaves\n%s\nand uninterrupted\n%s", got, want)
			}
		})
	}
}

// reboot makes the kernel forget what it was told.
func (s *installed) reboot() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.root, "sys/module")); err != nil {
		s.t.Fatal(err)
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		s.write("proc/sys/"+key, "0\n")
	}
	if !strings.HasPrefix(s.read("etc/fstab"), "#") {
		s.write("proc/swaps", "Filename\n/dev/sda9 partition 1 0 -2\n")
	}
}

// ready expects that first boot has come to its end, everything done once.
func (s *installed) ready(in Input) {
	s.t.Helper()
	reports := s.reports(in)
	if len(reports) == 0 || said(reports[len(reports)-1]) != "ready 1 ok" || s.read("var/lib/bootlane/done") == "" {
		s.t.Errorf("done %q, reports %v", s.read("var/lib/bootlane/done"), reports)
	}
	log := s.read("state/log")
	if n := strings.Count(log, "useradd -m"); n != 1 {
		s.t.Errorf("the administrator was made %d times", n)
	}
	for _, name := range []string{"script-one.sh", "script-two.sh", "account", "ssh", "modules", "sysctls", "swap", "time-servers"} {
		if got := s.read("var/lib/bootlane/steps/" + name); got != in.Host.Run.BundleName+"\n" {
			s.t.Errorf("the stamp of %s is %q", name, got)
		}
	}
	if s.read("one") == "" || !strings.HasPrefix(s.read("etc/fstab"), "#") {
		s.t.Error("something was not done")
	}
}

// TestFirstBootOfAnotherVersion: a stamp counts for the version of the bundle that it names.
func TestFirstBootOfAnotherVersion(t *testing.T) {
	s, in := newInstalled(t), full(lane.SeedImage)
	in.Scripts = []Script{{"x.sh", []byte("#!/bin/sh\necho x >> " + s.root + "/state/ran\n")}}
	for _, version := range []string{"debian-12-1", "debian-12-1", "debian-12-2"} {
		in.Host.Run.BundleName = version
		if status, reports := s.boot(in); status != 0 || said(reports[len(reports)-1]) != "ready 1 ok" {
			t.Fatalf("exit %d, %v", status, reports)
		}
		s.forget("var/lib/bootlane/done")
		s.forget("var/lib/bootlane/ready")
	}
	if got := s.read("state/ran"); got != "x\nx\n" {
		t.Errorf("%q", got)
	}
}
