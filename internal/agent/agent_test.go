package agent

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

func TestInstall(t *testing.T) {
	l := newLab(t)
	l.order.UnixTime = 2_000_000_000
	end := l.run()
	if end.Err != nil || !end.Reboot {
		t.Fatalf("ended with %+v\n%s", end, l.console.String())
	}
	if got, want := l.milestones(), []string{"kernel ok", "installer ok", "disk-written ok"}; !slices.Equal(got, want) {
		t.Errorf("reports %v, want %v", got, want)
	}
	disk := l.machine.disk
	if !bytes.Equal(disk.data[1024:testImageBytes-33*512], l.image[1024:testImageBytes-33*512]) {
		t.Error("the disk does not hold the image")
	}
	tableOf(t, disk.data)
	if b, err := os.ReadFile(filepath.Join(disk.root, "etc/hostname")); err != nil || string(b) != "node1\n" {
		t.Errorf("hostname %q, %v", b, err)
	}
	if disk.mounted || disk.span[0] != 2<<20 || disk.span[1] <= 0 || disk.span[0]+disk.span[1] > testImageBytes {
		t.Errorf("mounted %v at %v", disk.mounted, disk.span)
	}
	if l.machine.clock.Unix() != 2_000_000_000 {
		t.Errorf("the clock was set to %v", l.machine.clock)
	}
	if l.hw.BootMAC != "52:54:00:12:34:56" || l.hw.UUID != "11223344-5566-7788-99aa-bbccddeeff00" || len(l.hw.Disks) != 2 {
		t.Errorf("the server was told %+v", l.hw)
	}
	for _, r := range l.reports {
		if r["uuid"] != "11223344-5566-7788-99aa-bbccddeeff00" || r["mac"] != "52:54:00:12:34:56" || r["serial"] != "SN1" {
			t.Errorf("a report without identity: %v", r)
		}
	}
	if strings.Contains(l.console.String(), "/CAP") {
		t.Error("the console shows the run's capability")
	}
	if m := l.lastMessage(); !strings.Contains(m, string(digest(l.wire))) || !strings.Contains(m, string(digest(l.image))) {
		t.Errorf("the last report has no digests: %s", m)
	}
}

func TestInstallUncompressed(t *testing.T) {
	l := newLab(t)
	l.serve(l.image, "none")
	if end := l.run(); end.Err != nil || !end.Reboot {
		t.Fatalf("ended with %+v", end)
	}
	tableOf(t, l.machine.disk.data)
}

// The head of the disk comes last: whenever power fails before, nothing boots.
func TestPowerMayFailAtAnyWrite(t *testing.T) {
	l := newLab(t)
	disk := l.machine.disk
	first := true
	var boots []int64
	disk.onWrite = func(off int64, _, after []byte) {
		if first {
			first = false // clears the head; the old tail follows
			return
		}
		if bootable(after) != "" {
			boots = append(boots, off)
		}
	}
	if end := l.run(); end.Err != nil {
		t.Fatal(end.Err)
	}
	// The backup table at the very end, the head, its first sectors: by then all else is proven and in place.
	if want := []int64{disk.Size() - 33*512, 1024, 0}; !slices.Equal(boots, want) {
		t.Errorf("the disk was bootable after the writes at %v, want only %v", boots, want)
	}
}

func TestHeldAndLocalBoot(t *testing.T) {
	for _, tc := range []struct {
		action lane.Action
		reboot bool
	}{{lane.Hold, false}, {lane.LocalBoot, true}} {
		l := newLab(t)
		before := digest(l.machine.disk.data)
		l.order = lane.Order{Action: tc.action, Reason: lane.HostInstalled, Detail: "because\x1b[2J"}
		end := l.run()
		if end.Reboot != tc.reboot || end.After == 0 {
			t.Errorf("%v: ended with %+v", tc.action, end)
		}
		l.mustBeUntouched(before)
		if got := l.milestones(); !slices.Equal(got, []string{"kernel ok"}) {
			t.Errorf("%v: reports %v", tc.action, got)
		}
		if out := l.console.String(); !strings.Contains(out, "host-installed: because") || strings.Contains(out, "\x1b") {
			t.Errorf("%v: the console shows %q", tc.action, out)
		}
	}
}

// TestPartition: a file goes into the partition that it names, and one for which there is no file is not mounted.
func TestPartition(t *testing.T) {
	l := newLab(t)
	l.order.Files = []lane.File{{Path: "/ignition/config.ign", Mode: 0o600, Content: "{}", PartLabel: "esp"}}
	if end := l.run(); end.Err != nil {
		t.Fatal(end.Err)
	}
	disk := l.machine.disk
	if want := [2]int64{2048 * 512, 1 << 20}; len(disk.spans) != 1 || disk.spans[0] != want || disk.mounted {
		t.Errorf("mounted %v, want %v alone", disk.spans, want)
	}
	if b, err := os.ReadFile(filepath.Join(disk.root, "ignition/config.ign")); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	both := newLab(t)
	both.order.Files = append(both.order.Files, lane.File{Path: "/x", Mode: 0o644, PartLabel: "esp"}, lane.File{Path: "/y", Mode: 0o644})
	if end := both.run(); end.Err != nil || len(both.machine.disk.spans) != 2 {
		t.Errorf("%v, mounted %v", end.Err, both.machine.disk.spans)
	}
}

// Everything here must stop before the first byte is written.
func TestNothingIsWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(l *lab)
		want   string
	}{
		"wrong serial":          {func(l *lab) { l.order.Disk.Serial = "WRONG" }, "no disk matches"},
		"two disks":             {func(l *lab) { l.machine.hw.Disks[1].Serial = "RIGHT" }, "2 disks match"},
		"wrong size":            {func(l *lab) { l.order.Disk.SizeGB = 500 }, "wrong size"},
		"read-only":             {func(l *lab) { l.machine.hw.Disks[0].ReadOnly = true }, "read-only"},
		"removable":             {func(l *lab) { l.machine.hw.Disks[0].Removable = true }, "removable"},
		"image on another disk": {func(l *lab) { l.machine.other = l.image }, "vdb (serial OTHER) already carries this very image"},
		"disk in use":           {func(l *lab) { l.machine.disk.busy = errors.New("it is in use") }, "in use"},
		"no selector":           {func(l *lab) { l.order.Disk = lane.DiskSelector{} }, "no disk"},
		"kernel name":           {func(l *lab) { l.order.Disk = lane.DiskSelector{ByID: "sda"} }, "kernel name"},
		"no image":              {func(l *lab) { l.order.Image = nil }, "no image"},
		"disk too small":        {func(l *lab) { l.machine.disk.data = l.machine.disk.data[:testImageBytes-512] }, "the disk has"},
		"another server":        {func(l *lab) { l.order.Image.Path = "//evil.example/x" }, "not an absolute path"},
		"absolute URL":          {func(l *lab) { l.order.Image.Path = "http://evil.example/x" }, "not an absolute path"},
		"escaping file":         {func(l *lab) { l.order.Files[0].Path = "/../etc/x" }, "shortest form"},
		"image missing":         {func(l *lab) { l.order.Image.Path = "/nowhere" }, "404"},
		"wrong wire size":       {func(l *lab) { l.order.Image.SizeBytes++ }, "where the order says"},
		"partition missing":     {func(l *lab) { l.order.Files[0].PartLabel = "boot" }, "0 partitions"},
		"root label missing":    {func(l *lab) { l.order.Image.RootLabel = "rootfs" }, "0 partitions"},
		"not zstd":              {func(l *lab) { l.serve(bytes.Clone(l.image), "zstd") }, "read the image"},
		"no partition table":    {func(l *lab) { clear(l.image[:headBytes]); l.serve(compress(l.t, l.image), "zstd") }, "no GUID partition table"},
		"table beyond image":    {func(l *lab) { l.order.Image.RawBytes = 2 << 20 }, "does not describe"},
		"order is a refusal":    {func(l *lab) { l.onOrder = answer(409, "the host is held\n") }, "409 Conflict: the host is held"},
		"order is a redirect":   {func(l *lab) { l.onOrder = answer(302, "elsewhere") }, "302"},
		"order is no JSON":      {func(l *lab) { l.onOrder = answer(200, "<html>") }, "not an order"},
		"unknown action":        {func(l *lab) { l.onOrder = answer(200, `{"action":"wipe"}`) }, "unknown action"},
		"endless order":         {func(l *lab) { l.onOrder = answer(200, strings.Repeat(" ", orderBytes+2)) }, "more than"},
		"image is a redirect":   {func(l *lab) { l.onImage = answer(302, "") }, "302"},
		"zstd window of 1 GiB": {func(l *lab) {
			// A frame header that asks for a 1 GiB window: exponent 20, mantissa 0.
			l.serve(append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3}, make([]byte, 64)...), "zstd")
		}, "window"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			tc.change(l)
			before := digest(l.machine.disk.data)
			l.mustFail(tc.want)
			l.mustBeUntouched(before)
		})
	}
}

func answer(status int, body string) func(http.ResponseWriter, *http.Request, int) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		if status == http.StatusFound {
			w.Header().Set("Location", "http://127.0.0.1:1/")
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		return true
	}
}

// Everything here fails after the first byte was written: the disk must not boot.
func TestUnfinishedDiskDoesNotBoot(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(l *lab)
		want   string
	}{
		"wire digest":           {func(l *lab) { l.order.Image.Digest = digest(nil) }, "on the wire is"},
		"raw digest":            {func(l *lab) { l.order.Image.RawDigest = digest(nil) }, "the disk gives back"},
		"disk forgets":          {func(l *lab) { l.machine.disk.lie = 3<<20 + 5 }, "the disk gives back"},
		"disk forgets the end":  {func(l *lab) { l.machine.disk.lie = testImageBytes - 1 }, "the disk gives back"},
		"disk forgets the head": {func(l *lab) { l.machine.disk.lie = 100 }, "does not give back what was written at byte 0"},
		"medium error":          {func(l *lab) { l.machine.disk.fail = 3 << 20 }, "medium error"},
		"longer than ordered": {func(l *lab) {
			l.serve(compress(l.t, append(bytes.Clone(l.image), make([]byte, 16<<20)...)), "zstd")
		}, "more than the"},
		"shorter than ordered": {func(l *lab) { l.serve(compress(l.t, l.image[:testImageBytes-512]), "zstd") }, "unpacks to 4193792"},
		"cut frame":            {func(l *lab) { l.serve(l.wire[:len(l.wire)-100], "zstd") }, "unpacks to"},
		"broken frame": {func(l *lab) {
			l.wire[len(l.wire)/2] ^= 0x55
			l.serve(l.wire, "zstd")
		}, "copy the image: "},
		"mount":      {func(l *lab) { l.machine.disk.mountErr = errors.New("bad superblock") }, "bad superblock"},
		"place":      {func(l *lab) { l.block("etc") }, "place /etc/hostname"},
		"gone":       {func(l *lab) { l.cutAfter(len(l.wire)*3/4, answer(410, "the run was cancelled")) }, "410 Gone: the run was cancelled"},
		"dead":       {func(l *lab) { l.cutAfter(len(l.wire)*3/4, drop) }, "gave up after"},
		"other file": {func(l *lab) { l.cutAfter(len(l.wire)*3/4, wrongRange) }, "range"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			tc.change(l)
			l.mustFail(tc.want)
			if l.machine.disk.writes == 0 {
				t.Error("nothing was written at all: this case belongs to TestNothingIsWritten")
			}
			l.mustNotBoot()
			if m := l.lastMessage(); !strings.Contains(m, "made unbootable") {
				t.Errorf("the report does not say what became of the disk: %s", m)
			}
		})
	}
}

// block puts a file where a directory is needed.
func (l *lab) block(name string) {
	if err := os.WriteFile(filepath.Join(l.machine.disk.root, name), nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// cutAfter breaks the first image transfer after n bytes, and answers every later one with then.
func (l *lab) cutAfter(n int, then func(http.ResponseWriter, *http.Request, int) bool) {
	l.onImage = func(w http.ResponseWriter, r *http.Request, try int) bool {
		if try == 1 {
			cut(l, w, r, n)
			return true
		}
		return then(w, r, try)
	}
}

func drop(w http.ResponseWriter, _ *http.Request, _ int) bool { hangUp(w); return true }

func wrongRange(w http.ResponseWriter, _ *http.Request, _ int) bool {
	w.Header().Set("Content-Range", "bytes 0-9/10")
	w.WriteHeader(http.StatusPartialContent)
	return true
}

func TestServerMayDieAtAnyRequest(t *testing.T) {
	l := newLab(t)
	l.onReport = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n%2 == 1 {
			hangUp(w)
			return true
		}
		return false
	}
	l.onOrder = func(w http.ResponseWriter, r *http.Request, n int) bool {
		switch n {
		case 1:
			hangUp(w)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"action":`))
			hangUp(w)
		default:
			return false
		}
		return true
	}
	l.onImage = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 40 {
			return false
		}
		switch n % 4 {
		case 0:
			hangUp(w)
		case 1:
			w.WriteHeader(http.StatusBadGateway)
		default:
			cut(l, w, r, len(l.wire)/30)
		}
		return true
	}
	end := l.run()
	if end.Err != nil || !end.Reboot {
		t.Fatalf("ended with %+v\n%s", end, l.console.String())
	}
	tableOf(t, l.machine.disk.data)
	if strings.Contains(l.console.String(), "/CAP") {
		t.Error("the console shows the run's capability")
	}
	if len(l.ranges) < 20 || l.ranges[len(l.ranges)-1] == "" {
		t.Errorf("ranges asked for: %q", l.ranges)
	}
}

// A server that does not know Range sends all of it again: what was had is skipped.
func TestResumeWithoutRange(t *testing.T) {
	l := newLab(t)
	l.cutAfter(len(l.wire)/2, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		_, _ = w.Write(l.wire)
		return true
	})
	if end := l.run(); end.Err != nil {
		t.Fatal(end.Err)
	}
	tableOf(t, l.machine.disk.data)
}

func TestMoreBytesThanOrdered(t *testing.T) {
	l := newLab(t)
	l.onImage = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.(http.Flusher).Flush() // no Content-Length
		_, _ = w.Write(append(bytes.Clone(l.wire), "and more"...))
		return true
	}
	l.mustFail("more than the")
	l.mustNotBoot()
}

// Without the acknowledgement the server would install the machine again.
func TestNoRebootWithoutAcknowledgement(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, int) bool{"down": drop, "refused": answer(403, "no")} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.onReport = func(w http.ResponseWriter, r *http.Request, n int) bool {
				_ = r.ParseForm()
				return r.PostForm.Get("stage") == "disk-written" && fault(w, r, n)
			}
			end := l.run()
			if end.Reboot || !errors.Is(end.Err, errUnacknowledged) {
				t.Errorf("ended with %+v", end)
			}
			tableOf(t, l.machine.disk.data)
			if got := l.milestones(); !slices.Equal(got, []string{"kernel ok", "installer ok"}) {
				t.Errorf("reports %v", got)
			}
		})
	}
}

func TestNoNetwork(t *testing.T) {
	l := newLab(t)
	l.machine.connect = errors.New("no DHCP server offered an address")
	end := l.run()
	if end.Reboot || end.Err == nil || l.machine.opened != 0 || !strings.Contains(l.console.String(), "FAILED: get an address") {
		t.Errorf("ended with %+v\n%s", end, l.console.String())
	}
	l.machine.cmdline = "bootlane.debug"
	if end = l.run(); end.Err == nil || !strings.Contains(end.Err.Error(), "bootlane.url") {
		t.Errorf("ended with %+v", end)
	}
}

func TestAgentThatBreaksPowersOff(t *testing.T) {
	l := newLab(t)
	l.machine.disk.onWrite = func(int64, []byte, []byte) { panic("bug") }
	end := l.run()
	if end.Reboot || end.Err == nil || !strings.Contains(end.Err.Error(), "the agent itself broke: bug") {
		t.Errorf("ended with %+v", end)
	}
	if m := l.milestones(); m[len(m)-1] != "installer failed" {
		t.Errorf("reports %v", m)
	}
}

// Each report has its number once, whatever is lost; a repeat carries the same one.
func TestReportNumbers(t *testing.T) {
	l := newLab(t)
	seen := map[string]int{}
	l.onReport = func(w http.ResponseWriter, r *http.Request, n int) bool {
		_ = r.ParseForm()
		key := r.PostForm.Get("stage") + r.PostForm.Get("seq") + r.PostForm.Get("status") + r.PostForm.Get("message")
		l.mu.Lock()
		seen[key]++
		again := seen[key]
		l.mu.Unlock()
		if again == 1 && r.PostForm.Get("status") == "ok" {
			hangUp(w)
			return true
		}
		return false
	}
	if end := l.run(); end.Err != nil {
		t.Fatal(end.Err)
	}
	numbers := map[string]bool{}
	for _, r := range l.reports {
		id := r["stage"] + r["seq"]
		if numbers[id] {
			t.Errorf("%s came twice with different contents", id)
		}
		numbers[id] = true
		if r["status"] == "ok" && r["seq"] != "1" {
			t.Errorf("the milestone %s has number %s", r["stage"], r["seq"])
		}
	}
}

// TestCompressions: what the programs that people have pack is unpacked, and a cut one is no image.
func TestCompressions(t *testing.T) {
	for compression, pack := range map[string][]string{lane.CompressionGzip: {"gzip", "-1"}, lane.CompressionXZ: {"xz", "-1", "--threads=2", "--block-size=1MiB"}, lane.CompressionZstd: {"zstd", "-1", "-q"}} {
		l := newLab(t)
		cmd := exec.Command(pack[0], append(pack[1:], "-c")...)
		cmd.Stdin = bytes.NewReader(l.image)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v (packages gzip, xz-utils, zstd)", pack[0], err)
		}
		l.serve(packed, compression)
		if end := l.run(); end.Err != nil || !end.Reboot {
			t.Errorf("%s: %+v\n%s", compression, end, l.console.String())
			continue
		}
		tableOf(t, l.machine.disk.data)
		cut := newLab(t)
		cut.serve(packed[:len(packed)-64], compression)
		if end := cut.run(); end.Err == nil {
			t.Errorf("%s: a cut image was taken", compression)
		}
	}
}

// TestXZDictionary: what a file says of the memory that it takes is what the program that packed it says.
func TestXZDictionary(t *testing.T) {
	for options, want := range map[string]int64{"-0": 256 << 10, "-1": 1 << 20, "-6": 8 << 20, "-9": 64 << 20, "--lzma2=dict=1GiB": 1 << 30, "--lzma2=dict=96MiB": 96 << 20} {
		for _, threads := range []string{"-T1", "-T2"} { // with threads the header has sizes as well
			cmd := exec.Command("xz", options, threads, "-c")
			cmd.Stdin = strings.NewReader("an image")
			packed, err := cmd.Output()
			if err != nil {
				t.Fatalf("xz %s (package xz-utils): %v", options, err)
			}
			if got := xzDictionary(bufio.NewReader(bytes.NewReader(packed))); got != want {
				t.Errorf("%s %s: %d, want %d", options, threads, got, want)
			}
			if _, err := decompress(bytes.NewReader(packed), lane.CompressionXZ); (err == nil) != (want <= zstdWindow) {
				t.Errorf("%s: %v", options, err)
			}
		}
	}
	for _, text := range []string{"", "\xfd7zXZ", strings.Repeat("\xff", 2000)} {
		if got := xzDictionary(bufio.NewReader(strings.NewReader(text))); got != 0 {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestHoles: what is empty is told to the disk and not written, and reads as zeros where the old system was.
func TestHoles(t *testing.T) {
	l := newLab(t)
	clear(l.image[2*headBytes : 3*headBytes])
	l.serve(compress(t, l.image), "zstd")
	if end := l.run(); end.Err != nil {
		t.Fatal(end.Err)
	}
	disk := l.machine.disk
	if disk.holes < headBytes || !bytes.Equal(disk.data[2*headBytes:3*headBytes], make([]byte, headBytes)) {
		t.Errorf("%d bytes were told", disk.holes)
	}
	data := bytes.Repeat([]byte{1}, 5*holeBytes+512)
	clear(data[holeBytes : 3*holeBytes])
	clear(data[5*holeBytes:]) // less than a hole: it is written
	d := &fakeDisk{data: bytes.Repeat([]byte{7}, len(data))}
	if err := writeSparsely(d, data, 0, make([]byte, holeBytes)); err != nil || !bytes.Equal(d.data, data) || d.holes != 2*holeBytes || d.writes != 3 {
		t.Errorf("%v: %d bytes told, %d writes, right %v", err, d.holes, d.writes, bytes.Equal(d.data, data))
	}
}
