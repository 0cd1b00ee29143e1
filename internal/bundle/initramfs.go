package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// InitramfsConfig says what an agent initramfs is made of.
type InitramfsConfig struct {
	// Agent is the static bootlane-agent binary, built for the machine's architecture.
	Agent string
	// ModulesDir is lib/modules/VERSION of the kernel that will boot it.
	ModulesDir string
	// ExtraFiles maps a path in the initramfs to a file here, e.g. firmware that a
	// NIC's driver asks for: "lib/firmware/bnx2x/bnx2x-e2-7.13.21.0.fw".
	ExtraFiles map[string]string
}

// PackInitramfs writes the initramfs that boots a machine into bootlane-agent: a
// zstd-compressed cpio archive. The same input gives the same bytes.
//
// It holds the agent as /init, two device nodes and empty mount points, and from
// the kernel's modules what reaches a server's disks and its network: Ethernet
// drivers; NVMe, SATA, SAS, RAID, virtio, Xen, Hyper-V and VMware disks; USB
// storage and eMMC; ext4; TPM 2.0. With them comes what they need by modules.dep and
// modules.softdep, and the module indexes cut down to what is packed.
//
// It leaves out what could only do harm: md and device mapper, which would claim
// a disk that is to be overwritten; network block devices; USB network
// adapters, by which some management controllers pose as a NIC. There is no
// shell, no firmware (see ExtraFiles) and no key.
func PackInitramfs(w io.Writer, cfg InitramfsConfig) error {
	list, err := initramfsEntries(cfg)
	if err != nil {
		return err
	}
	// One goroutine: the output must not depend on how many CPUs there are. The
	// kernel unpacks windows up to 128 MiB; 8 MiB is the most this encoder needs.
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithWindowSize(8<<20))
	if err != nil {
		return fmt.Errorf("start zstd: %w", err)
	}
	if err := writeCPIO(z, list); err != nil {
		return errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

func initramfsEntries(cfg InitramfsConfig) ([]cpioEntry, error) {
	agent, err := diskEntry("init", cfg.Agent, 0o755)
	if err != nil {
		return nil, fmt.Errorf("pack the agent: %w", err)
	}
	list := []cpioEntry{
		agent,
		// The kernel opens /dev/console for init before init can mount /dev.
		{name: "dev/console", mode: cpioChar | 0o600, major: 5, minor: 1},
		{name: "dev/null", mode: cpioChar | 0o666, major: 1, minor: 3},
	}
	for _, dir := range []string{"etc", "proc", "run", "sys", "tmp"} {
		list = append(list, cpioEntry{name: dir, mode: cpioDir | 0o755})
	}
	modules, err := moduleEntries(cfg.ModulesDir)
	if err != nil {
		return nil, fmt.Errorf("pack the modules of %s: %w", cfg.ModulesDir, err)
	}
	list = append(list, modules...)
	for _, name := range slices.Sorted(maps.Keys(cfg.ExtraFiles)) {
		if path.Clean("/"+name) != "/"+name {
			return nil, fmt.Errorf("pack the extra file %q: its name must be a clean path without a slash in front", name)
		}
		e, err := diskEntry(name, cfg.ExtraFiles[name], 0o644)
		if err != nil {
			return nil, fmt.Errorf("pack the extra file %s: %w", name, err)
		}
		list = append(list, e)
	}
	return list, nil
}

func diskEntry(name, file string, mode uint32) (cpioEntry, error) {
	info, err := os.Stat(file)
	if err != nil {
		return cpioEntry{}, err
	}
	if !info.Mode().IsRegular() {
		return cpioEntry{}, fmt.Errorf("%s is not a file", file)
	}
	return cpioEntry{name: name, mode: cpioFile | mode, size: info.Size(),
		open: func() (io.ReadCloser, error) { return os.Open(file) }}, nil
}

func textEntry(name string, text []byte) cpioEntry {
	return cpioEntry{name: name, mode: cpioFile | 0o644, size: int64(len(text)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }}
}

// packed are the directories and files, below kernel/, that are packed whole.
// Kernels differ in what they build in: a name that is not there is no error.
var packed = []string{
	"drivers/net/ethernet/", "drivers/net/phy/", "drivers/net/mdio/", "drivers/net/pcs/", "drivers/net/virtio_net.ko",
	"drivers/net/vmxnet3/", "drivers/net/hyperv/", "drivers/net/xen-netfront.ko",
	"drivers/nvme/host/", "drivers/ata/", "drivers/scsi/", "drivers/message/fusion/", "drivers/virtio/",
	"drivers/block/virtio_blk.ko", "drivers/block/xen-blkfront.ko", "drivers/block/mtip32xx/",
	"drivers/hv/hv_vmbus.ko", "drivers/pci/controller/",
	"drivers/usb/host/", "drivers/usb/storage/", "drivers/usb/core/", "drivers/usb/common/",
	"drivers/mmc/core/", "drivers/mmc/host/",
	"drivers/char/tpm/tpm_tis.ko", "drivers/char/tpm/tpm_crb.ko", "drivers/char/tpm/tpm_tis_synquacer.ko", "drivers/char/tpm/tpm_tis_spi.ko", "drivers/char/tpm/tpm_ftpm_tee.ko",
	"fs/ext4/", "fs/efivarfs/", "net/packet/", "net/8021q/",
	"crypto/crc32c_generic.ko", "crypto/crct10dif_generic.ko", "arch/x86/crypto/crc32c-intel.ko", "arch/x86/crypto/crct10dif-pclmul.ko",
	"arch/arm64/crypto/crct10dif-ce.ko", "lib/libcrc32c.ko",
}

// unpacked are taken away again, unless something packed needs them: tapes,
// changers and CD drives; Fibre Channel, iSCSI and other disks on a network,
// which show one disk several times; drivers that only test the kernel.
var unpacked = []string{
	"drivers/scsi/scsi_debug.ko", "drivers/scsi/st.ko", "drivers/scsi/ch.ko", "drivers/scsi/sr_mod.ko", "drivers/scsi/sg.ko", "drivers/scsi/ses.ko",
	"drivers/scsi/iscsi_tcp.ko", "drivers/scsi/cxgbi/", "drivers/scsi/be2iscsi/", "drivers/scsi/bnx2i/", "drivers/scsi/qedi/", "drivers/scsi/qla4xxx/",
	"drivers/scsi/lpfc/", "drivers/scsi/qla2xxx/", "drivers/scsi/bfa/", "drivers/scsi/csiostor/", "drivers/scsi/fcoe/", "drivers/scsi/bnx2fc/", "drivers/scsi/qedf/", "drivers/scsi/fnic/", "drivers/scsi/snic/",
	"drivers/scsi/pcmcia/", "drivers/scsi/elx/",
	"drivers/nvme/host/nvme-tcp.ko", "drivers/nvme/host/nvme-rdma.ko", "drivers/nvme/host/nvme-fc.ko", "drivers/nvme/host/nvme-fabrics.ko",
	"drivers/virtio/virtio_balloon.ko", "drivers/virtio/virtio_input.ko", "drivers/virtio/virtio_mem.ko", "drivers/virtio/virtio_dma_buf.ko",
	"drivers/ata/pata_legacy.ko", "drivers/mmc/core/mmc_test.ko", "drivers/mmc/core/sdio_uart.ko", "drivers/usb/host/isp", "drivers/usb/host/sl811",
}

// moduleEntries picks the modules, and writes indexes for exactly those.
func moduleEntries(dir string) ([]cpioEntry, error) {
	index, err := readModuleIndex(dir)
	if err != nil {
		return nil, err
	}
	chosen := index.closure(index.pick())
	if len(chosen) == 0 {
		return nil, errors.New("none of them drives a disk or a NIC: is this lib/modules/VERSION of a kernel?")
	}
	base := "lib/modules/" + filepath.Base(dir) + "/"
	var list []cpioEntry
	for _, file := range slices.Sorted(maps.Keys(chosen)) {
		e, err := diskEntry(base+file, filepath.Join(dir, filepath.FromSlash(file)), 0o644)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	for _, name := range []string{"modules.dep", "modules.alias", "modules.softdep"} {
		list = append(list, textEntry(base+name, index.filter(name, chosen)))
	}
	return list, nil
}

// moduleIndex is what depmod wrote: the lines of its files, and what they say.
type moduleIndex struct {
	lines map[string][]string // file name -> its lines
	deps  map[string][]string // file -> files it needs
	file  map[string]string   // module name -> file
	alias map[string][]string // alias without a bus, like crypto-crc32c -> module names
}

func readModuleIndex(dir string) (*moduleIndex, error) {
	x := &moduleIndex{lines: map[string][]string{}, deps: map[string][]string{}, file: map[string]string{}, alias: map[string][]string{}}
	for _, name := range []string{"modules.dep", "modules.alias", "modules.softdep"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && (name == "modules.dep" || !errors.Is(err, os.ErrNotExist)) {
			return nil, fmt.Errorf("read the module index: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			x.lines[name] = append(x.lines[name], strings.TrimSpace(line))
		}
	}
	for _, line := range x.lines["modules.dep"] {
		file, deps, ok := strings.Cut(line, ":")
		if !ok || !filepath.IsLocal(file) {
			continue
		}
		x.file[moduleName(file)] = file
		x.deps[file] = strings.Fields(deps)
	}
	for _, line := range x.lines["modules.alias"] {
		if w := strings.Fields(line); len(w) == 3 && w[0] == "alias" && !strings.Contains(w[1], ":") {
			x.alias[moduleName(w[1])] = append(x.alias[moduleName(w[1])], moduleName(w[2]))
		}
	}
	return x, nil
}

// moduleName is the kernel's own name of a module file.
func moduleName(file string) string {
	name := path.Base(file)
	if i := strings.Index(name, ".ko"); i > 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(name, "-", "_")
}

func (x *moduleIndex) pick() []string {
	var out []string
	for file := range x.deps {
		rest, ok := strings.CutPrefix(file, "kernel/")
		has := func(prefix string) bool { return strings.HasPrefix(rest, prefix) }
		if ok && slices.ContainsFunc(packed, has) && !slices.ContainsFunc(unpacked, has) {
			out = append(out, file)
		}
	}
	return out
}

// closure adds what the files need, by modules.dep and, before them, by modules.softdep.
func (x *moduleIndex) closure(files []string) map[string]bool {
	soft := map[string][]string{}
	for _, line := range x.lines["modules.softdep"] {
		if w := strings.Fields(line); len(w) > 2 && w[0] == "softdep" {
			soft[moduleName(w[1])] = append(soft[moduleName(w[1])], w[2:]...)
		}
	}
	chosen := map[string]bool{}
	for todo := slices.Clone(files); len(todo) > 0; {
		file := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if chosen[file] {
			continue
		}
		chosen[file] = true
		todo = append(todo, x.deps[file]...)
		for _, name := range soft[moduleName(file)] {
			for _, m := range append([]string{moduleName(name)}, x.alias[moduleName(name)]...) {
				if f, ok := x.file[m]; ok {
					todo = append(todo, f)
				}
			}
		}
	}
	return chosen
}

// filter returns the lines of an index that speak of chosen files.
func (x *moduleIndex) filter(name string, chosen map[string]bool) []byte {
	kept := func(module string) bool { return chosen[x.file[moduleName(module)]] }
	var out bytes.Buffer
	for _, line := range x.lines[name] {
		w := strings.Fields(line)
		ok := false
		switch {
		case len(w) == 0:
		case name == "modules.dep":
			ok = chosen[strings.TrimSuffix(w[0], ":")]
		case w[0] == "alias" && len(w) == 3:
			ok = kept(w[2])
		case w[0] == "softdep" && len(w) > 2:
			ok = kept(w[1])
		}
		if ok {
			out.WriteString(line + "\n")
		}
	}
	return out.Bytes()
}
