package bundle

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

const kernelVersion = "6.1.0-1-test"

// modulesDir makes a small lib/modules/VERSION.
func modulesDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), kernelVersion)
	deps := map[string]string{
		"kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko": "kernel/drivers/pps/pps_core.ko",
		"kernel/drivers/pps/pps_core.ko":                     "",
		"kernel/drivers/net/wireguard/wireguard.ko":          "",
		"kernel/drivers/nvme/host/nvme.ko":                   "kernel/drivers/nvme/host/nvme-core.ko",
		"kernel/drivers/nvme/host/nvme-core.ko":              "",
		"kernel/drivers/nvme/host/nvme-tcp.ko":               "kernel/drivers/nvme/host/nvme-core.ko",
		"kernel/drivers/scsi/sd_mod.ko":                      "kernel/drivers/scsi/scsi_mod.ko",
		"kernel/drivers/scsi/scsi_mod.ko":                    "",
		"kernel/drivers/scsi/sr_mod.ko":                      "",
		"kernel/drivers/scsi/qla2xxx/qla2xxx.ko":             "",
		"kernel/drivers/md/md-mod.ko":                        "",
		"kernel/drivers/char/tpm/tpm_tis.ko":                 "kernel/drivers/char/tpm/tpm_tis_core.ko",
		"kernel/drivers/char/tpm/tpm_tis_core.ko":            "",
		"kernel/drivers/char/tpm/tpm_infineon.ko":            "",
		"kernel/fs/ext4/ext4.ko":                             "",
		"kernel/crypto/crc32c_soft.ko":                       "",
		"kernel/sound/snd.ko":                                "",
	}
	var dep strings.Builder
	for _, file := range slices.Sorted(maps.Keys(deps)) {
		dep.WriteString(strings.TrimSpace(file+": "+deps[file]) + "\n")
		writeTestFile(t, filepath.Join(dir, file), "module "+file)
	}
	writeTestFile(t, filepath.Join(dir, "modules.dep"), dep.String())
	writeTestFile(t, filepath.Join(dir, "modules.alias"), "# comment\nalias pci:v1d* e1000e\nalias snd:* snd\nalias crypto-crc32c crc32c_soft\n")
	writeTestFile(t, filepath.Join(dir, "modules.softdep"), "softdep ext4 pre: crypto-crc32c\nsoftdep snd pre: wireguard\n")
	return dir
}

func writeTestFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// unpackInitramfs unpacks with the tools that everybody has, not with our own code.
func unpackInitramfs(t *testing.T, packed []byte) string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Fatal("this test needs cpio: apt-get install cpio")
	}
	dir := t.TempDir()
	// Device nodes need root; the golden bytes have one.
	cmd := exec.Command(cpio, "--extract", "--make-directories", "--quiet", "--nonmatching", "dev/*")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(plain)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	return dir
}

func TestPackInitramfs(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "bootlane-agent")
	writeTestFile(t, agent, "the agent")
	cfg := InitramfsConfig{Agent: agent, ModulesDir: modulesDir(t), ExtraFiles: map[string]string{"lib/firmware/x.fw": agent}}
	var first, second bytes.Buffer
	if err := PackInitramfs(&first, cfg); err != nil {
		t.Fatal(err)
	}
	dir := unpackInitramfs(t, first.Bytes())
	var files []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(p, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const base = "lib/modules/" + kernelVersion + "/"
	want := []string{
		"init", "lib/firmware/x.fw",
		base + "kernel/crypto/crc32c_soft.ko", // by softdep and alias
		base + "kernel/drivers/char/tpm/tpm_tis.ko",
		base + "kernel/drivers/char/tpm/tpm_tis_core.ko",
		base + "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko",
		base + "kernel/drivers/nvme/host/nvme-core.ko",
		base + "kernel/drivers/nvme/host/nvme.ko",
		base + "kernel/drivers/pps/pps_core.ko", // by modules.dep
		base + "kernel/drivers/scsi/scsi_mod.ko",
		base + "kernel/drivers/scsi/sd_mod.ko",
		base + "kernel/fs/ext4/ext4.ko",
		base + "modules.alias", base + "modules.dep", base + "modules.softdep",
	}
	if !slices.Equal(files, want) {
		t.Errorf("packed\n%s\nwant\n%s", strings.Join(files, "\n"), strings.Join(want, "\n"))
	}
	for name, text := range map[string]string{
		base + "modules.alias":   "alias pci:v1d* e1000e\nalias crypto-crc32c crc32c_soft\n",
		base + "modules.softdep": "softdep ext4 pre: crypto-crc32c\n",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "init")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("init: %v, %v", info, err)
	}
	for _, mountPoint := range []string{"etc", "proc", "run", "sys", "tmp"} {
		if info, err := os.Stat(filepath.Join(dir, mountPoint)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", mountPoint, err)
		}
	}
	// Another time, from a copy with other time stamps: the same bytes.
	cfg.ModulesDir = modulesDir(t)
	if err := PackInitramfs(&second, cfg); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same input gave different bytes")
	}
}

func TestPackInitramfsRefuses(t *testing.T) {
	agent := filepath.Join(t.TempDir(), "bootlane-agent")
	writeTestFile(t, agent, "the agent")
	empty := filepath.Join(t.TempDir(), "empty")
	writeTestFile(t, filepath.Join(empty, "modules.dep"), "kernel/sound/snd.ko:\n")
	missing := modulesDir(t)
	if err := os.Remove(filepath.Join(missing, "kernel/fs/ext4/ext4.ko")); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]InitramfsConfig{
		"pack the agent":   {Agent: agent + "x", ModulesDir: modulesDir(t)},
		"is not a file":    {Agent: filepath.Dir(agent), ModulesDir: modulesDir(t)},
		"modules.dep":      {Agent: agent, ModulesDir: t.TempDir()},
		"none of them":     {Agent: agent, ModulesDir: empty},
		"ext4.ko":          {Agent: agent, ModulesDir: missing},
		"clean path":       {Agent: agent, ModulesDir: modulesDir(t), ExtraFiles: map[string]string{"../x": agent}},
		"extra file x":     {Agent: agent, ModulesDir: modulesDir(t), ExtraFiles: map[string]string{"x": agent + "x"}},
		"init comes twice": {Agent: agent, ModulesDir: modulesDir(t), ExtraFiles: map[string]string{"init": agent}},
	} {
		if err := PackInitramfs(io.Discard, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
