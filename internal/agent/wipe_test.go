package agent

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// wiping is a lab whose order also clears vdb, which has two partitions and the old image.
func wiping(t *testing.T) *lab {
	l := newLab(t)
	l.order.Wipe = []lane.DiskSelector{{Serial: "OTHER"}}
	data := bytes.Repeat([]byte("old data "), testImageBytes*2/9)
	data = data[:len(data)/512*512]
	copy(data, l.image[:headBytes]) // the same image once more: it is no twin, for it goes
	l.machine.other = data
	l.machine.second = &fakeDisk{data: data, parts: [][2]int64{{1 << 20, 2 << 20}, {4 << 20, int64(len(data)) - 4<<20}}}
	return l
}

func TestWipe(t *testing.T) {
	l := wiping(t)
	end := l.run()
	if end.Err != nil || !end.Reboot {
		t.Fatalf("ended with %+v", end)
	}
	d := l.machine.second
	zero := make([]byte, headBytes)
	for _, at := range []int64{0, 1 << 20, 2 << 20, 4 << 20, d.Size() - headBytes} {
		if !bytes.Equal(d.data[at:at+headBytes], zero) {
			t.Errorf("the MiB at %d is not clear", at)
		}
	}
	if !d.trimmed || bytes.Equal(d.data[3<<20:4<<20], zero) {
		t.Errorf("discarded %v; between the partitions nothing was to be written", d.trimmed)
	}
	tableOf(t, l.machine.disk.data)
	if m := l.lastMessage(); !strings.Contains(m, "disk vdb cleared") {
		t.Errorf("the last report: %s", m)
	}
}

// TestWipeRefuses: what stands against a disk to clear ends it all before the first byte of any disk.
func TestWipeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *lab)
		want   string
	}{
		"in use":          {func(l *lab) { l.machine.second.busy = errors.New("it is in use") }, "open the disk vdb, which is to be cleared: it is in use"},
		"no such disk":    {func(l *lab) { l.order.Wipe[0].Serial = "GONE" }, "wipe[0]: no disk matches"},
		"the root itself": {func(l *lab) { l.order.Wipe[0] = lane.DiskSelector{ByID: "virtio-RIGHT"} }, "is the disk that is installed to"},
		"twice":           {func(l *lab) { l.order.Wipe = append(l.order.Wipe, l.order.Wipe[0]) }, "are the same disk"},
		"kernel name":     {func(l *lab) { l.order.Wipe[0] = lane.DiskSelector{ByID: "vdb"} }, "kernel name"},
		"no selector":     {func(l *lab) { l.order.Wipe[0] = lane.DiskSelector{} }, "a disk to clear is selected by none"},
		"read-only":       {func(l *lab) { l.machine.hw.Disks[1].ReadOnly = true }, "read-only"},
		"too small":       {func(l *lab) { l.machine.second.data = l.machine.second.data[:512] }, "512 bytes only"},
		"image too large": {func(l *lab) { l.machine.disk.data = l.machine.disk.data[:testImageBytes/2] }, "nothing was written"},
	} {
		t.Run(name, func(t *testing.T) {
			l := wiping(t)
			c.change(l)
			before, second := digest(l.machine.disk.data), digest(l.machine.second.data)
			l.mustFail(c.want)
			l.mustBeUntouched(before)
			if digest(l.machine.second.data) != second || l.machine.second.trimmed {
				t.Error("the disk to clear was changed")
			}
		})
	}
}

// TestWipeIsProven: a disk that keeps its signature in spite of all is a failure, and nothing boots.
func TestWipeIsProven(t *testing.T) {
	l := wiping(t)
	l.machine.second.sticky = 510
	l.mustFail("clear the disk vdb: it does not give back zeros at byte 0")
	l.mustNotBoot()
}

// TestWithoutWipe: a disk that nobody lists is not even opened.
func TestWithoutWipe(t *testing.T) {
	l := wiping(t)
	l.order.Wipe, l.machine.other = nil, nil
	before := digest(l.machine.second.data)
	if end := l.run(); end.Err != nil || l.machine.opened != 1 || digest(l.machine.second.data) != before {
		t.Errorf("ended with %+v, %d disks opened", end, l.machine.opened)
	}
}

func TestPartitions(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/block/sda/sda1/partition": "1\n", "sys/block/sda/sda1/start": "2048\n", "sys/block/sda/sda1/size": "4096\n",
		"sys/block/sda/sda2/partition": "2\n", "sys/block/sda/sda2/start": "x\n", "sys/block/sda/sda2/size": "1\n",
		"sys/block/sda/queue/start": "1\n", "sys/block/sda/size": "99999\n"})
	if got := partitions(root, "sda"); !slices.Equal(got, [][2]int64{{1 << 20, 2 << 20}}) {
		t.Errorf("%v", got)
	}
}
