package seed

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// tool returns the path of a program that a test cannot do without. It fails,
// and never skips: a document that nobody checked is not checked.
func tool(t *testing.T, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: apt-get install %s", name, debianPackage)
	}
	return path
}

// unfold writes all documents of a seed into a directory.
func unfold(t *testing.T, in Input) (dir string, docs []Document) {
	t.Helper()
	dir = t.TempDir()
	docs = documents(t, in)
	for _, d := range docs {
		if err := os.WriteFile(filepath.Join(dir, d.Name), d.Body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, docs
}

// inputs returns everything that documents are made of in these tests.
func inputs() map[string]Input {
	out := map[string]Input{}
	for _, seed := range lane.Seeds() {
		out["full/"+seed], out["minimal/"+seed] = full(seed), minimal(seed)
		nasty := full(seed)
		nasty.Host.Identity.Serial, nasty.Host.Run.Disk.Serial, nasty.Site.SSHKeys[0] = `a'"$(x)`+"`y`", `\'"; x`, `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA '"$(x)`+"`y`"
		out["nasty/"+seed], out["layers/"+seed], out["kubernetes/"+seed] = nasty, layered(seed), clustered(seed)
		if slices.Contains(mirroring, seed) {
			out["mirrored/"+seed] = mirrored(seed)
		}
		if slices.Contains(encrypting, seed) {
			out["encrypted/"+seed] = encrypted(seed)
			if !(lane.Bundle{Seed: seed}).SUSEInstaller() { // it refuses Tang
				out["encrypted by Tang/"+seed] = encrypted(seed, "http://a.example.org:7500/tang#"+thumbprint, "http://[fd00::1]#"+thumbprint)
			}
		}
		out["wired/"+seed], out["laid/"+seed] = wired(seed), laid(seed)
		if !(lane.Bundle{Seed: seed}).SUSEInstaller() { // it refuses NICs without a name
			out["plain/"+seed], out["aggregated/"+seed] = plain(seed), aggregated(seed)
		}
	}
	for _, name := range []string{"full", "minimal", "nasty", "kubernetes", "wired"} {
		out[name+"/cloud-init"] = clouded(out[name+"/"+lane.SeedImage])
	}
	ignites := ignited(full(lane.SeedImage))
	out["ignites/"+lane.SeedImage] = ignites
	joins := full(lane.SeedImage) // first boot is every seed's
	joins.Host.Run.Cluster = "prod"
	out["joins/"+lane.SeedImage] = joins
	return out
}

func TestShellSyntax(t *testing.T) {
	dash, bash, busybox, shellcheck := tool(t, "dash", "dash"), tool(t, "bash", "bash"), tool(t, "busybox", "busybox-static"), tool(t, "shellcheck", "shellcheck")
	for name, in := range inputs() {
		t.Run(name, func(t *testing.T) {
			dir, docs := unfold(t, in)
			var scripts []string
			for _, d := range docs {
				if d.Type != typeShell {
					continue
				}
				path := filepath.Join(dir, d.Name)
				scripts = append(scripts, path)
				for _, check := range [][]string{{dash, "-n", path}, {bash, "-n", path}, {busybox, "sh", "-n", path}} {
					if out, err := exec.Command(check[0], check[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
						t.Errorf("%v: %v\n%s", check, err, out)
					}
				}
			}
			if len(scripts) == 0 && in.Bundle.Seed == lane.SeedTalos {
				return
			}
			severity := "style"
			if strings.HasPrefix(name, "nasty/") {
				severity = "warning" // it notes, rightly, that dollars and quotes stand within single quotes
			}
			if out, err := exec.Command(shellcheck, append([]string{"--norc", "--shell=sh", "--format=gcc", "--severity=" + severity}, scripts...)...).CombinedOutput(); err != nil {
				t.Errorf("shellcheck: %v\n%s", err, out)
			}
		})
	}
}

// TestPreseedIsAccepted: debconf's own reader says nothing about a sound file; an
// unknown type is only a warning to it.
func TestPreseedIsAccepted(t *testing.T) {
	debconf := tool(t, "debconf-set-selections", "debconf")
	for _, input := range []func(string) Input{full, minimal} {
		dir, _ := unfold(t, input(lane.SeedPreseed))
		path := filepath.Join(dir, "preseed.cfg")
		if out, err := exec.Command(debconf, "-c", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v\n%s", err, out)
		}
		bad := filepath.Join(dir, "bad.cfg")
		if err := os.WriteFile(bad, []byte("d-i a/b flag x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, _ := exec.Command(debconf, "-c", bad).CombinedOutput(); len(out) == 0 {
			t.Error("debconf-set-selections accepts anything: this test proves nothing")
		}
	}
}

// TestPreseedLines holds every line against the format, which has no quoting: a
// second blank before the value would be part of it.
func TestPreseedLines(t *testing.T) {
	values := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(document(t, full(lane.SeedPreseed), "preseed.cfg"), "\n"), "\n")
	if lines[0] != "#_preseed_V1" {
		t.Errorf("the first line is %q", lines[0])
	}
	for _, l := range lines {
		if strings.HasPrefix(l, "#") {
			continue
		}
		f := strings.SplitN(l, " ", 4)
		if len(f) < 3 || strings.TrimSpace(l) != l || len(f) == 4 && (f[3] == "" || f[3][0] == ' ') || !strings.Contains("string boolean select multiselect password note", f[2]) {
			t.Errorf("the line %q", l)
			continue
		}
		if _, twice := values[f[1]]; twice {
			t.Errorf("%s is answered twice", f[1])
		}
		values[f[1]] = strings.Join(f[3:], "")
	}
	in := full(lane.SeedPreseed)
	for question, want := range map[string]string{
		"passwd/user-password-crypted":                 in.Site.PasswordHash,
		"passwd/root-login":                            "false",
		"netcfg/hostname":                              "node-a",
		"netcfg/get_domain":                            "example.org",
		"mirror/http/hostname":                         "mirror.example.org",
		"mirror/http/directory":                        "/debian/20261101T000000Z",
		"mirror/suite":                                 "bookworm",
		"apt-setup/services-select":                    "",
		"apt-setup/local0/repository":                  "[check-valid-until=no] http://mirror.example.org:8081/debian-security bookworm-security main non-free-firmware",
		"partman-auto/disk":                            "/dev/bootlane-unresolved",
		"partman-auto/expert_recipe_file":              "/tmp/bootlane-recipe",
		"partman-basicfilesystems/no_swap":             "false",
		"pkgsel/upgrade":                               "none",
		"pkgsel/update-policy":                         "none",
		"partman/confirm":                              "true",
		"partman/confirm_nooverwrite":                  "true",
		"partman-lvm/confirm":                          "true",
		"partman-lvm/confirm_nooverwrite":              "true",
		"partman-lvm/device_remove_lvm":                "true",
		"partman-md/device_remove_md":                  "true",
		"partman-md/confirm":                           "true",
		"partman-efi/non_efi_system":                   "true",
		"partman-partitioning/choose_label":            "gpt",
		"popularity-contest/participate":               "false",
		"partman/choose_partition":                     "finish",
		"partman-partitioning/confirm_write_new_label": "true",
	} {
		if got, ok := values[question]; !ok || got != want {
			t.Errorf("%s is answered %q, want %q", question, got, want)
		}
	}
	for _, never := range []string{"passwd/user-password", "passwd/root-password", "partman-crypto/passphrase", "debian-installer/allow_unauthenticated"} {
		if _, ok := values[never]; ok {
			t.Errorf("%s is answered", never)
		}
	}
	for _, hook := range []string{"preseed/early_command", "partman/early_command", "preseed/late_command"} {
		// A hook that fails is shown and passed over: each one ends the machine itself.
		if v := values[hook]; !strings.HasPrefix(v, "wget -q -T 20 -O /tmp/bootlane-") || !strings.HasSuffix(v, " || poweroff -f") {
			t.Errorf("%s is %q", hook, v)
		}
	}
}

func TestUserDataIsAccepted(t *testing.T) {
	cloudInit := tool(t, "cloud-init", "cloud-init")
	check := func(name, text string) ([]byte, error) {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return exec.Command(cloudInit, "schema", "-c", path).CombinedOutput()
	}
	for _, input := range []func(string) Input{full, minimal} {
		if out, err := check("user-data", document(t, input(lane.SeedNoCloud), "user-data")); err != nil || !bytes.Contains(out, []byte("Valid")) {
			t.Errorf("%v\n%s", err, out)
		}
	}
	if out, err := check("bad", "#cloud-config\nruncmd: 5\n"); err == nil {
		t.Errorf("cloud-init accepts anything: this test proves nothing\n%s", out)
	}
}

// TestCloudInitReads has the real cloud-init find the seed by our command line and over HTTP, in
// namespaces of its own: the host's name is applied, and what the installer is to do arrives.
func TestCloudInitReads(t *testing.T) {
	tool(t, "cloud-init", "cloud-init")
	tool(t, "unshare", "util-linux")
	const path = "/run/abcdefghijklmnopqrstuvwxyz234567"
	for name, in := range map[string]Input{"full": full(lane.SeedNoCloud), "minimal": minimal(lane.SeedNoCloud), "wired": wired(lane.SeedNoCloud)} {
		t.Run(name, func(t *testing.T) {
			in.Base = "http://127.0.0.1:8080" + path
			dir, _ := unfold(t, in)
			root := t.TempDir()
			if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir, filepath.Join(root, path, "seed")); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "unshare", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "testdata/cloud-init.sh", root)
			cmd.Env = append(os.Environ(), "DEBUG_PROC_CMDLINE="+KernelArgs(in, "52:54:00:00:00:a1"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			short, _ := in.names()
			got := strings.SplitN(string(out), "\n", 4)
			if len(got) != 4 || got[0] != short || got[1] != short || got[2] != string(in.Host.Run.ID) || got[3] != document(t, in, "user-data") {
				t.Errorf("cloud-init has names, instance and user-data\n%s", out)
			}
		})
	}
}

// TestUnitFits has systemd itself judge the unit, among its own and cloud-init's units, as it
// would stand on a system: no word of complaint, and no cycle in what comes after what.
func TestUnitFits(t *testing.T) {
	tool(t, "cloud-init", "cloud-init")
	analyze := tool(t, "systemd-analyze", "systemd")
	verify := func(unit string) string {
		root := t.TempDir()
		units := filepath.Join(root, "etc/systemd/system")
		for _, dir := range []string{filepath.Join(units, "multi-user.target.wants"), filepath.Join(root, "usr/local/lib/bootlane"), filepath.Join(root, "usr/local/bin"), filepath.Join(root, "opt/bootlane"), filepath.Join(root, "lib/systemd")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err := errors.Join(os.WriteFile(filepath.Join(units, "bootlane-firstboot.service"), []byte(unit), 0o644), os.WriteFile(filepath.Join(root, "usr/local/lib/bootlane/firstboot"), []byte("#!/bin/sh\n"), 0o755),
			os.WriteFile(filepath.Join(root, "usr/local/bin/bootlane-firstboot"), []byte("#!/bin/sh\n"), 0o755), os.WriteFile(filepath.Join(root, "opt/bootlane/firstboot"), []byte("#!/bin/sh\n"), 0o755))
		if err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{"bootlane-firstboot.service": "/etc/systemd/system/bootlane-firstboot.service", "cloud-init.target": "/lib/systemd/system/cloud-init.target"} {
			if err := os.Symlink(to, filepath.Join(units, "multi-user.target.wants", link)); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command("cp", "-a", "/lib/systemd/system", filepath.Join(root, "lib/systemd/system")).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", "--root="+root, "bootlane-firstboot.service", "multi-user.target").CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Error(err)
		}
		return string(out)
	}
	seen := map[string]bool{}
	for name, in := range inputs() {
		if in.Bundle.Seed == lane.SeedTalos {
			continue
		}
		unit := document(t, in, "firstboot.service")
		if seen[unit] {
			continue
		}
		seen[unit] = true
		if out := verify(unit); out != "" {
			t.Errorf("%s:\n%s", name, out)
		}
	}
	cycle := strings.Replace(document(t, full(lane.SeedImage), "firstboot.service"), "After=", "After=cloud-init.target ", 1)
	if out := verify(cycle); !strings.Contains(out, "cycle") {
		t.Errorf("systemd-analyze finds no cycle anywhere: this test proves nothing\n%s", out)
	}
}

func TestUnitIsAccepted(t *testing.T) {
	for name, in := range inputs() {
		if in.Bundle.Seed == lane.SeedTalos {
			continue
		}
		unit := document(t, in, "firstboot.service")
		for _, want := range []string{"ConditionPathExists=!/var/lib/bootlane/done\n", "ExecStart=" + in.FirstBootPath() + "\n", "Type=oneshot\n", "WantedBy=multi-user.target\n", "StartLimitIntervalSec=0\n"} {
			if !strings.Contains(unit, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		// Ordered behind cloud-init, and wanted by multi-user.target, it would be a cycle.
		if strings.Contains(unit, "cloud-") {
			t.Errorf("%s: %s", name, unit)
		}
	}
}
