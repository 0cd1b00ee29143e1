package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree writes files below a new directory; a value "-> x" makes a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		plant(t, root, name, text)
	}
	return root
}

func plant(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
		err = os.Symlink(target, file)
	} else if err == nil {
		err = os.WriteFile(file, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var indexFiles = map[string]string{
	"modules.dep": `kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/net/virtio_net.ko.zst: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/arch/x86/crypto/crc32c-intel.ko:
kernel/crypto/crc32c_generic.ko:
`,
	"modules.alias": `# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000001v* virtio_net
alias crc32c crc32c_intel
alias crypto-crc32c crc32c_generic
alias fs-ext4 ext4
`,
	"modules.softdep": "softdep ext4 pre: crc32c crypto-crc32c absent post: virtio_net\n",
}

func TestLoadOrder(t *testing.T) {
	m, err := readModules(tree(t, indexFiles))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"virtio-pci": {"kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_pci.ko"},
		"ext4":       {"kernel/arch/x86/crypto/crc32c-intel.ko", "kernel/crypto/crc32c_generic.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko"},
		"built_in":   nil,
	} {
		if got := m.loadOrder(name); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for alias, want := range map[string][]string{
		"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00": {"virtio_pci"},
		"pci:v00008086d00001000sv00001AF4sd00000001bc02sc00i00": nil,
		"crypto_crc32c": {"crc32c_generic"},
		"crc32c-intel":  {"crc32c_intel"},
		"ext4":          {"ext4"},
	} {
		if got := m.match(alias); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", alias, got, want)
		}
	}
}

// A bus driver brings a device that needs a driver of its own; a driver that
// fails is tried once and named.
func TestColdplugFollowsNewDevices(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/devices/pci0000:00/0000:00:02.0/modalias": "pci:v00001AF4d00001000sv0sd0bc02sc00i00\n",
		"sys/devices/platform/nothing/modalias":        "platform:nothing\n",
	})
	index, err := readModules(tree(t, indexFiles))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	d := &drivers{index: index, root: root, asked: map[string]bool{}, done: map[string]bool{}}
	d.load = func(file string) error {
		files = append(files, filepath.Base(file))
		switch filepath.Base(file) {
		case "virtio_pci.ko":
			plant(t, root, "sys/devices/pci0000:00/0000:00:02.0/virtio0/modalias", "virtio:d00000001v00001AF4\n")
		case "virtio_net.ko.zst":
			return errors.New("unknown symbol")
		}
		return nil
	}
	d.coldplug()
	d.coldplug()
	if want := []string{"virtio_ring.ko", "virtio.ko", "virtio_pci.ko", "virtio_net.ko.zst"}; !slices.Equal(files, want) {
		t.Errorf("loaded %q, want %q", files, want)
	}
	if len(d.errs) != 1 || !strings.Contains(d.errs[0].Error(), "load virtio_net: unknown symbol") {
		t.Errorf("errors: %v", d.errs)
	}
	if want := []string{"virtio_ring", "virtio", "virtio_pci"}; !slices.Equal(d.loaded, want) {
		t.Errorf("counted %q, want %q", d.loaded, want)
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "", false}, {"", "a", false},
		{"a*c", "abbbc", true}, {"a*c", "abbbd", false}, {"*a*b*", "xxaxxbxx", true}, {"*ab", "aab", true}, {"a**b", "ab", true},
		{"a?c", "a/c", true}, {"a*c", "a/b/c", true}, {"a?", "a", false},
		{"[0-4]x", "3x", true}, {"[0-4]x", "5x", false}, {"[abc]", "b", true}, {"[", "[", false}, {"*[0-9]", "ab7", true},
		{"usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", true},
		{strings.Repeat("*a", 60), strings.Repeat("a", 200) + "b", false}, // must not take for ever
	} {
		if got := glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("glob(%q, %q) = %v", tc.pattern, tc.s, got)
		}
	}
}

func TestReadModulesWithoutIndex(t *testing.T) {
	m, err := readModules(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.match("ext4"); got != nil {
		t.Errorf("matched %q", got)
	}
}
