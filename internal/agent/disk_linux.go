package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unsafe"

	"bootlane/internal/lane"

	"golang.org/x/sys/unix"
)

const (
	mountPoint = "/run/target"
	// The kernel gives partition nodes numbers; this one is past those of every
	// partition table and only exists while the new root is mounted.
	partNumber = 100
)

// diskTarget is one block device, opened for nobody else.
type diskTarget struct {
	*os.File
	direct  *os.File // the same past the page cache; nil: it cannot be opened so
	m       *machine
	path    string
	size    int64
	sector  int
	mounted bool
}

// OpenDisk opens a disk with O_EXCL, which for a block device means: fail when
// the kernel mounts it, swaps on it or builds another device from it or any of
// its partitions.
func (m *machine) OpenDisk(d lane.Disk) (Target, error) {
	if users := inUse("/", d.Name); len(users) > 0 {
		return nil, fmt.Errorf("it is in use: %s", strings.Join(users, ", "))
	}
	t := &diskTarget{m: m, path: "/dev/" + d.Name}
	if err := t.open(unix.O_EXCL); err != nil {
		return nil, err
	}
	if t.size != d.SizeBytes {
		_ = t.Close()
		return nil, fmt.Errorf("its size changed from %d to %d bytes", d.SizeBytes, t.size)
	}
	return t, nil
}

// ReadHead reads the start of a disk that is not to be written.
func (m *machine) ReadHead(d lane.Disk, n int) ([]byte, error) {
	f, err := os.Open("/dev/" + d.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, min(int64(n), d.SizeBytes))
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, fmt.Errorf("read the head of %s: %w", d.Name, err)
	}
	return head, nil
}

func (t *diskTarget) open(flags int) error {
	fd, err := unix.Open(t.path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", t.path, err)
	}
	t.File = os.NewFile(uintptr(fd), t.path)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		_ = t.Close()
		return fmt.Errorf("%s is not a block device", t.path)
	}
	if t.size, err = t.Seek(0, 2); err == nil {
		t.sector, err = unix.IoctlGetInt(fd, unix.BLKSSZGET)
	}
	if err != nil {
		_ = t.Close()
		return fmt.Errorf("ask %s for its size: %w", t.path, err)
	}
	t.direct, _ = os.OpenFile(t.path, os.O_WRONLY|unix.O_DIRECT, 0)
	return nil
}

// Close gives the disk up.
func (t *diskTarget) Close() error {
	err := t.File.Close()
	if t.direct != nil {
		err = errors.Join(err, t.direct.Close())
		t.direct = nil
	}
	return err
}

func (t *diskTarget) Size() int64     { return t.size }
func (t *diskTarget) SectorSize() int { return t.sector }

// directAlign is what every disk takes past the page cache: sectors are of 4096 bytes at most.
const directAlign = 4096

// WriteAt writes what is large past the page cache, where every byte would be copied once more, and gigabytes
// pile up. Where that cannot be, it also starts the writing out: otherwise the progress shown is that of RAM.
func (t *diskTarget) WriteAt(b []byte, off int64) (int, error) {
	if t.direct != nil && len(b) >= chunk/4 && (uintptr(unsafe.Pointer(unsafe.SliceData(b)))|uintptr(off)|uintptr(len(b)))%directAlign == 0 {
		if n, err := t.direct.WriteAt(b, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	n, err := t.File.WriteAt(b, off)
	if err == nil && n >= chunk/4 {
		_ = unix.SyncFileRange(int(t.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE) // Sync judges
	}
	return n, err
}

// Zero tells the disk: one that keeps nothing for a hole (an SSD, a thin volume) then has room
// to spare, and none has a gigabyte of zeros to write. What came of it is read back like all else.
func (t *diskTarget) Zero(off, n int64) error {
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
		err := unix.Fallocate(int(t.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("zero %d bytes at byte %d of %s: %w", n, off, t.path, err)
		}
	}
	_, err := t.WriteAt(make([]byte, n), off)
	return err
}

// Partitions reads sysfs.
func (t *diskTarget) Partitions() [][2]int64 {
	return partitions("/", strings.TrimPrefix(t.path, "/dev/"))
}

// Discard is BLKDISCARD: also for disks that then give back anything. One that cannot is left as it is.
func (t *diskTarget) Discard() error {
	whole := [2]uint64{0, uint64(t.size)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, t.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&whole)))
	if errno != 0 && errno != unix.EOPNOTSUPP && errno != unix.ENOTTY && errno != unix.EINVAL {
		return fmt.Errorf("discard what is on %s: %w", t.path, errno)
	}
	return nil
}

// Forget drops the page cache of the whole disk.
func (t *diskTarget) Forget() error {
	if err := unix.IoctlSetInt(int(t.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("drop the cache of %s: %w", t.path, err)
	}
	return nil
}

// Mount makes a partition node out of a byte range (BLKPG, linux/blkpg.h) and
// mounts it. While the whole disk is held exclusively the kernel mounts none of
// its parts, so that hold is given up in between; nobody else runs here.
func (t *diskTarget) Mount(at, size int64) (string, error) {
	if err := t.Close(); err != nil {
		return "", fmt.Errorf("close %s: %w", t.path, err)
	}
	if err := t.open(0); err != nil {
		return "", err
	}
	// The old system's partitions are still known, though their table is gone.
	if err := unix.IoctlSetInt(int(t.Fd()), unix.BLKRRPART, 0); err != nil {
		return "", fmt.Errorf("make the kernel forget the old partitions: %w", err)
	}
	if err := t.partition(unix.BLKPG_ADD_PARTITION, at, size); err != nil {
		return "", fmt.Errorf("make a partition at byte %d: %w", at, err)
	}
	node := partitionNode(t.path, partNumber)
	if err := t.m.waitFor(node, 10*time.Second); err != nil {
		return "", err
	}
	if err := os.MkdirAll(mountPoint, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount(node, mountPoint, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "errors=remount-ro"); err != nil {
		return "", fmt.Errorf("mount %s: %w", node, err)
	}
	t.mounted = true
	return mountPoint, nil
}

// Unmount writes the file system out, and takes the node away again.
func (t *diskTarget) Unmount() error {
	if !t.mounted {
		return errors.New("nothing is mounted")
	}
	// umount writes out what is dirty and cannot say that it failed; syncfs can.
	fd, err := unix.Open(mountPoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", mountPoint, err)
	}
	err = unix.Syncfs(fd)
	_ = unix.Close(fd)
	if err != nil {
		return fmt.Errorf("sync the new root: %w", err)
	}
	if err := unix.Unmount(mountPoint, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", mountPoint, err)
	}
	t.mounted = false
	if err := t.partition(unix.BLKPG_DEL_PARTITION, 0, 0); err != nil {
		return fmt.Errorf("remove the partition node: %w", err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("close %s: %w", t.path, err)
	}
	return t.open(unix.O_EXCL)
}

func (t *diskTarget) partition(op int32, at, size int64) error {
	part := unix.BlkpgPartition{Start: at, Length: size, Pno: partNumber}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, t.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// partitionNode: a disk whose name ends in a digit gets a p in between.
func partitionNode(disk string, number int) string {
	if c := disk[len(disk)-1]; c >= '0' && c <= '9' {
		return fmt.Sprintf("%sp%d", disk, number)
	}
	return fmt.Sprintf("%s%d", disk, number)
}
