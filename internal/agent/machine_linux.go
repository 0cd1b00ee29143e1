package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bootlane/internal/lane"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// machine is the real one, below a process that is pid 1 of an initramfs.
type machine struct {
	now   func() time.Time
	sleep func(context.Context, time.Duration) error
	debug bool
}

// NewMachine returns the machine that the agent runs on.
func NewMachine(now func() time.Time, sleep func(context.Context, time.Duration) error) Machine {
	return &machine{now: now, sleep: sleep}
}

// mounts that every program on Linux takes for granted; an initramfs has none.
var mounts = []struct{ kind, at, data string }{
	{"proc", "/proc", ""},
	{"sysfs", "/sys", ""},
	{"devtmpfs", "/dev", "mode=0755"},
	{"tmpfs", "/run", "mode=0755"},
	{"tmpfs", "/tmp", "mode=1777"},
}

// mountAll mounts /proc, /sys, /dev, /run and /tmp. It comes before anything else:
// without /dev there is no console to say anything on.
func mountAll() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", m.at, err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return nil
}

// needed are the modules no device asks for in its modalias file: file systems,
// the upper halves of disks, and mmc_block, whose alias is in uevents only.
var needed = []string{"ext4", "crc32c", "sd_mod", "mmc_block", "nvme", "virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net"}

// settle is how long devices may take to appear after their drivers were loaded:
// disks behind a SAS expander need tens of seconds to spin up.
const (
	settleQuiet   = time.Second
	settleUsual   = 10 * time.Second
	settleMissing = 60 * time.Second
)

// Prepare loads the drivers and waits until disks and NICs have appeared.
func (m *machine) Prepare(log *Log) error {
	line, err := m.CommandLine()
	if err != nil {
		return err
	}
	m.debug = debugWanted(line)
	if !m.debug {
		// Drivers talk; their lines would tear ours apart. Errors still come through.
		_ = os.WriteFile("/proc/sys/kernel/printk", []byte("3"), 0o644) // a matter of looks
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	release := unix.ByteSliceToString(uts.Release[:])
	index, err := readModules(filepath.Join("/lib/modules", release))
	if err != nil {
		return err
	}
	drivers := &drivers{index: index, root: "/", load: loadModule, asked: map[string]bool{}, done: map[string]bool{}}
	drivers.coldplug()
	wanted := slices.Clone(needed)
	if p, err := ParseCommandLine(line); err == nil && p.VLAN != 0 { // what is wrong with it is said later
		wanted = append(wanted, "8021q")
	}
	_, noEFI := os.Stat("/sys/firmware/efi")
	if noEFI == nil {
		wanted = append(wanted, "efivarfs") // to read SecureBoot
	}
	drivers.byName(wanted)
	if noEFI == nil {
		_ = unix.Mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "") // unread, SecureBoot is left out
	}
	m.settle(drivers)
	log.Step("kernel %s: %d drivers loaded", release, len(drivers.loaded))
	if m.debug {
		log.Step("drivers: %s", strings.Join(drivers.loaded, " "))
	}
	for _, err := range drivers.errs {
		log.Step("driver: %v", err) // a device less; whether it matters shows later
	}
	return nil
}

// loadModule hands one module to the kernel. Debian 12 ships them plain, Debian
// 13 as xz, which the kernel unpacks itself; zstd is unpacked here.
func loadModule(file string) error {
	var err error
	switch filepath.Ext(file) {
	case ".zst":
		err = loadZstd(file)
	case ".xz", ".gz":
		err = finitModule(file, unix.MODULE_INIT_COMPRESSED_FILE)
	default:
		err = finitModule(file, 0)
	}
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) && isOptional(file) {
		return nil
	}
	return err
}

// isOptional: an accelerated variant refuses to load on a CPU without the
// instructions it uses, and the plain one then serves.
func isOptional(file string) bool { return strings.Contains(file, "/arch/") }

func finitModule(file string, flags int) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.FinitModule(int(f.Fd()), "", flags)
}

func loadZstd(file string) error {
	packed, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer d.Close()
	image, err := d.DecodeAll(packed, nil)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return unix.InitModule(image, "")
}

// settle waits until no device has appeared for a while, longer when there is no
// disk or no NIC at all, and loads the drivers of those that do appear.
func (m *machine) settle(d *drivers) {
	began, last, since := m.now(), "", m.now()
	for {
		d.coldplug()
		disks, nics := readDisks("/"), readNICs("/")
		state := fmt.Sprint(len(disks), len(nics), len(d.asked))
		if state != last {
			last, since = state, m.now()
		}
		limit := settleUsual
		if len(disks) == 0 || len(nics) == 0 {
			limit = settleMissing
		}
		quiet := m.now().Sub(since) >= settleQuiet && len(disks) > 0 && len(nics) > 0
		if quiet || m.now().Sub(began) > limit {
			return
		}
		_ = m.sleep(context.Background(), settleQuiet/5) // only a context's end could cut it short
	}
}

// CommandLine reads /proc/cmdline.
func (m *machine) CommandLine() (string, error) {
	b, err := os.ReadFile("/proc/cmdline")
	return string(b), err
}

// Hardware reads /sys and /proc.
func (m *machine) Hardware() (lane.Hardware, error) {
	hw := readHardware("/")
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return hw, fmt.Errorf("ask for the machine's architecture: %w", err)
	}
	hw.Wipes, hw.Parts, hw.Encrypts, hw.Models = true, true, true, true
	hw.Machine = unix.ByteSliceToString(uts.Machine[:])
	return hw, nil
}

// OpenTPM opens it with the kernel's resource manager, as Clevis does. A chip on a slow bus may
// need a moment after its driver.
func (m *machine) OpenTPM() (io.ReadWriteCloser, error) {
	const path = "/dev/tpmrm0"
	if err := m.waitFor(path, 5*time.Second); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// SetClock sets the system clock; the RTC is the new system's business.
func (m *machine) SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// inUse returns who uses a disk or a part of it, from sysfs, /proc/mounts and /proc/swaps below root.
func inUse(root, disk string) []string {
	var users []string
	at := filepath.Join(root, "sys/block", disk)
	names := []string{disk}
	for _, e := range entries(at) {
		if _, err := os.Stat(filepath.Join(at, e, "partition")); err == nil {
			names = append(names, e)
		}
	}
	for _, name := range names {
		dir := at
		if name != disk {
			dir = filepath.Join(at, name)
		}
		for _, h := range entries(filepath.Join(dir, "holders")) {
			users = append(users, h+" on "+name)
		}
	}
	for _, table := range []string{"proc/mounts", "proc/swaps"} {
		for line := range strings.Lines(string(readBytes(filepath.Join(root, table)))) {
			if w := strings.Fields(line); len(w) > 1 && slices.Contains(names, strings.TrimPrefix(w[0], "/dev/")) {
				users = append(users, w[0]+" in "+table)
			}
		}
	}
	return users
}

// partitions returns start and length in bytes of a disk's partitions, from sysfs below root,
// which counts in 512 bytes whatever the sector size.
func partitions(root, disk string) (out [][2]int64) {
	at := filepath.Join(root, "sys/block", disk)
	for _, e := range entries(at) {
		if _, err := os.Stat(filepath.Join(at, e, "partition")); err != nil {
			continue
		}
		start, err1 := strconv.ParseInt(readText(filepath.Join(at, e, "start")), 10, 64)
		length, err2 := strconv.ParseInt(readText(filepath.Join(at, e, "size")), 10, 64)
		if err1 == nil && err2 == nil {
			out = append(out, [2]int64{start * 512, length * 512})
		}
	}
	return out
}

// waitFor waits until a device node is there.
func (m *machine) waitFor(path string, limit time.Duration) error {
	for began := m.now(); ; {
		_, err := os.Stat(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if m.now().Sub(began) > limit {
			return fmt.Errorf("wait for %s: %w", path, err)
		}
		if err := m.sleep(context.Background(), 50*time.Millisecond); err != nil {
			return err
		}
	}
}
