package seed

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// clouded is a host whose image is set up by its cloud-init.
func clouded(in Input) Input {
	in.Bundle.Image = &lane.BundleImage{Config: lane.ConfigCloudInit}
	return in
}

func TestImageCloudInitGolden(t *testing.T) {
	sections := clouded(full(lane.SeedImage))
	sections.Sections = own(sections.Bundle)
	for name, in := range map[string]Input{"full": clouded(full(lane.SeedImage)), "minimal": clouded(minimal(lane.SeedImage)), "network": clouded(wired(lane.SeedImage)), "sections": sections} {
		for _, d := range documents(t, in) {
			if d.Type == typeYAML {
				golden(t, filepath.Join("testdata", "cloud-init", name, d.Name), d.Body)
				linted(t, name, d)
			}
		}
	}
}

// TestImageCloudInitFiles: what cloud-init reads takes the place of the files of the network, and
// of first boot's account, which is looked for all the same.
func TestImageCloudInitFiles(t *testing.T) {
	for name, c := range map[string]struct {
		in   Input
		want []string
	}{
		"full":    {clouded(full(lane.SeedImage)), []string{"/etc/cloud/cloud.cfg.d/99-bootlane.cfg", cloudSeed + "meta-data", cloudSeed + "user-data"}},
		"network": {clouded(wired(lane.SeedImage)), []string{"/etc/cloud/cloud.cfg.d/99-bootlane.cfg", cloudSeed + "meta-data", cloudSeed + "network-config", cloudSeed + "user-data"}},
	} {
		files, err := AgentFiles(c.in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			if strings.Contains(f.Path, "cloud") || strings.Contains(f.Path, "network/") {
				got = append(got, f.Path)
			}
			if strings.HasPrefix(f.Path, cloudSeed) && f.Mode != 0o600 {
				t.Errorf("%s: %s may be read by others: mode %o", name, f.Path, f.Mode)
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		script := document(t, c.in, "firstboot.sh")
		if strings.Contains(script, "useradd") || !strings.Contains(script, "check account") {
			t.Errorf("%s: first boot makes an account, or does not look for it", name)
		}
	}
}

// TestImageCloudInitReads has the real cloud-init of an image find what the agent places, as at a
// first boot and in namespaces of its own: name, account, time zone and network are the record's.
func TestImageCloudInitReads(t *testing.T) {
	tool(t, "cloud-init", "cloud-init")
	tool(t, "netplan", "netplan.io")
	tool(t, "unshare", "util-linux")
	routed := full(lane.SeedImage) // of bonds and VLANs cloud-init 22.4 tells networkd nothing
	routed.Host.Network.Interfaces = []lane.Interface{{MAC: "52:54:00:00:00:a1", Name: "lan0", MTU: 9000, Addresses: []string{"10.0.0.21/24", "fd00:20::21/64"}, Gateways: []string{"10.0.0.1", "fd00:20::1"}, Nameservers: []string{"10.0.0.2"}, Search: []string{"example.net"}}}
	for renderer, in := range map[string]Input{"netplan": wired(lane.SeedImage), "networkd": routed} {
		t.Run(renderer, func(t *testing.T) {
			in = clouded(in)
			in.Sections = own(in.Bundle)
			root := t.TempDir()
			placed(t, root, in)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			args := []string{"--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "testdata/cloud-init-image.sh", root, renderer}
			for _, m := range in.Host.Identity.MACs {
				args = append(args, string(m))
			}
			out, err := exec.CommandContext(ctx, "unshare", args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			golden(t, filepath.Join("testdata", "cloud-init", "read-"+renderer), out)
		})
	}
}

// placed writes what the agent would place, below root.
func placed(t *testing.T, root string, in Input) {
	t.Helper()
	files, err := AgentFiles(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(root, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if f.Link == "" {
			err = os.WriteFile(path, []byte(f.Content), os.FileMode(f.Mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
