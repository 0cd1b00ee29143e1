package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// faults is a first-boot script that does what it must for every node, and then damage on
// those whose name asks for it.
const faults = `#!/bin/sh
set -e
mkdir -p /etc/containerd
containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' > /etc/containerd/config.toml
systemctl restart containerd
case $(cat /etc/hostname) in
*-renamed) echo somebody > /proc/sys/kernel/hostname ;;
*-late) date -s '1 hour ago' ;;
*-stopped) systemctl stop containerd ;;
esac
`

// readiness installs nodes for Kubernetes: a sound one is ready, and each of the others is failed
// by the one check that it must not pass.
func readiness(ctx context.Context, l *Lab) error {
	dir, err := l.faulty(ctx)
	if err != nil {
		return err
	}
	var machines []*Machine
	broken := map[string]string{"node-z-renamed": lane.CheckHostname, "node-z-late": lane.CheckTime, "node-z-modules": lane.CheckModules, "node-z-stopped": lane.CheckRuntime}
	for n, name := range []string{"node-z", "node-z-renamed", "node-z-late", "node-z-modules", "node-z-stopped"} {
		m := l.machine(name, lane.UEFI, Disk{Serial: fmt.Sprint("SYSTEM-Z", n), Bytes: 2 * gigabyte})
		m.Install.Purpose = new(lane.PurposeKubernetes)
		if broken[name] == lane.CheckModules {
			m.Install.Modules = []string{"overlay", "br_netfilter", "of_no_kernel"}
		}
		machines = append(machines, m)
	}
	if err := l.ready(ctx, dir, machines...); err != nil {
		return err
	}
	// They wait for two minutes each before they give up, and need no processor for that.
	for some := range slices.Chunk(machines, 3) {
		for _, m := range some {
			if err := l.provision(ctx, m, lane.Provisioning{}); err != nil {
				return err
			}
			if err := m.start(ctx); err != nil {
				return err
			}
		}
		for _, m := range some {
			if err := l.proves(ctx, m, broken[m.Name]); err != nil {
				return err
			}
			m.stop()
		}
	}
	return nil
}

// proves waits for the end of a machine's run, and expects that this check failed it; none
// where the machine is sound.
func (l *Lab) proves(ctx context.Context, m *Machine, check string) error {
	want := lane.StateInstalled
	if check != "" {
		want = lane.StateFailed
	}
	if err := l.state(ctx, m.Name, want, 2*patience); err != nil { // three share the processors
		return err
	}
	f, err := l.client.FirstBoot(ctx, m.Name)
	if err != nil {
		return err
	}
	var failed []string
	for _, c := range f.Checks {
		if c.Status == lane.CheckFailed {
			failed = append(failed, c.Name)
			l.say("  %s: %s", m.Name, c)
		}
	}
	if check == "" {
		asked := slices.ContainsFunc(f.Checks, func(c lane.Check) bool { return c.Name == lane.CheckRuntime && c.Status == lane.CheckOK })
		l.expect(len(f.Checks) > 10 && len(failed) == 0 && asked, "%s passed its %d checks, the container runtime's among them", m.Name, len(f.Checks))
		return nil
	}
	l.expect(slices.Equal(failed, []string{check}), "%s failed by its check %s alone: %v", m.Name, check, failed)
	v, err := l.client.Why(ctx, m.Name)
	if err != nil {
		return err
	}
	l.expect(v.Rule == "checks-failed" && strings.Contains(v.Because, check+": expected ") && strings.Contains(v.Next, lane.MendOf(check)), "why %s: %s", m.Name, v.Because)
	return l.screen(ctx, m, "bootlane: ready failed: first boot: "+check, time.Minute)
}

// faulty makes a bundle of the image with containerd, and the script that does damage.
func (l *Lab) faulty(ctx context.Context) (string, error) {
	if l.cfg.Kubernetes == "" {
		return "", errors.New("this scenario installs an image with containerd: give its bundle with --kubernetes; `make lab-full` builds one")
	}
	dir := filepath.Join(l.dir, "faulty")
	if err := os.CopyFS(dir, os.DirFS(l.cfg.Kubernetes)); err != nil {
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	manifest := filepath.Join(dir, "bundle.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		return "", fmt.Errorf("read the bundle's manifest: %w", err)
	}
	own := strings.Replace(string(text), "name: debian-12-kubernetes\n", "name: faulty\n", 1) + "firstBoot: [faults.sh]\n"
	if err := errors.Join(os.WriteFile(manifest, []byte(own), 0o644), os.WriteFile(filepath.Join(dir, "faults.sh"), []byte(faults), 0o644)); err != nil {
		return "", fmt.Errorf("make a bundle: %w", err)
	}
	return dir, l.seal(ctx, dir)
}
