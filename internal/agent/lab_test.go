package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bootlane/internal/lane"

	"github.com/google/go-tpm/tpmutil"
	"github.com/klauspost/compress/zstd"
)

// clock is time that passes only when somebody sleeps.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.mu.Lock()
	c.off += d
	c.mu.Unlock()
	time.Sleep(time.Millisecond) // lets the others work; no test waits for it
	return ctx.Err()
}

// fakeMachine is a machine with one disk, a file.
type fakeMachine struct {
	cmdline string
	hw      lane.Hardware
	disk    *fakeDisk
	clock   time.Time
	opened  int
	looked  int       // heads of disks that were read
	other   []byte    // what is on the disk that is not to be written
	second  *fakeDisk // vdb, where a test has it opened
	connect error
	tpm     string // the socket of one of software, or a file; empty: there is none
}

func (m *fakeMachine) Prepare(log *Log) error       { log.Step("fake machine"); return nil }
func (m *fakeMachine) CommandLine() (string, error) { return m.cmdline, nil }
func (m *fakeMachine) Connect(context.Context, Params, *Log) (lane.MAC, error) {
	return "52:54:00:12:34:56", m.connect
}
func (m *fakeMachine) Hardware() (lane.Hardware, error) { return m.hw, nil }
func (m *fakeMachine) SetClock(t time.Time) error       { m.clock = t; return nil }
func (m *fakeMachine) OpenTPM() (io.ReadWriteCloser, error) {
	if m.tpm == "" {
		return nil, errors.New("there is none")
	}
	return tpmutil.OpenTPM(m.tpm)
}
func (m *fakeMachine) ReadHead(d lane.Disk, n int) ([]byte, error) {
	m.looked++
	if m.other == nil {
		return nil, errors.New("no medium")
	}
	return m.other[:n], nil
}
func (m *fakeMachine) OpenDisk(d lane.Disk) (Target, error) {
	m.opened++
	if d.Name == "vdb" && m.second != nil {
		return m.second, m.second.busy
	}
	if m.disk.busy != nil {
		return nil, m.disk.busy
	}
	return m.disk, nil
}

// fakeDisk is a disk in memory that can misbehave.
type fakeDisk struct {
	data     []byte
	root     string // where Mount "mounts"
	mountErr error
	busy     error
	span     [2]int64
	spans    [][2]int64 // of every mount
	mounted  bool
	lie      int64                                 // a byte offset that reads back wrong; 0: none
	fail     int64                                 // writes at or above this offset fail; 0: none
	onWrite  func(off int64, before, after []byte) // sees the whole disk around each write
	writes   int
	holes    int64 // bytes that were told, and not written
	parts    [][2]int64
	trimmed  bool
	sticky   int64 // a byte offset that no write changes; 0: none
}

func (d *fakeDisk) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, d.data[off:])
	if d.lie > 0 && off <= d.lie && d.lie < off+int64(n) {
		b[d.lie-off] ^= 1
	}
	return n, nil
}

func (d *fakeDisk) WriteAt(b []byte, off int64) (int, error) {
	d.writes++
	if d.fail > 0 && off+int64(len(b)) > d.fail && off < int64(len(d.data))-2*headBytes && off > 0 {
		return 0, errors.New("medium error")
	}
	if off+int64(len(b)) > int64(len(d.data)) {
		return 0, errors.New("past the end")
	}
	kept := d.data[d.sticky]
	copy(d.data[off:], b)
	if d.sticky > 0 {
		d.data[d.sticky] = kept
	}
	if d.onWrite != nil {
		d.onWrite(off, nil, d.data)
	}
	return len(b), nil
}

func (d *fakeDisk) Zero(off, n int64) error {
	d.holes += n
	_, err := d.WriteAt(make([]byte, n), off)
	return err
}

func (d *fakeDisk) Partitions() [][2]int64 { return d.parts }

func (d *fakeDisk) Discard() error {
	d.trimmed = true
	return nil
}

func (d *fakeDisk) Size() int64     { return int64(len(d.data)) }
func (d *fakeDisk) SectorSize() int { return 512 }
func (d *fakeDisk) Sync() error     { return nil }
func (d *fakeDisk) Forget() error   { return nil }
func (d *fakeDisk) Close() error    { return nil }

func (d *fakeDisk) Mount(at, size int64) (string, error) {
	d.span, d.mounted = [2]int64{at, size}, true
	d.spans = append(d.spans, d.span)
	return d.root, d.mountErr
}

func (d *fakeDisk) Unmount() error { d.mounted = false; return nil }

// lab is a server, a machine, and the order the one gives the other.
type lab struct {
	t       *testing.T
	server  *httptest.Server
	machine *fakeMachine
	clock   *clock
	image   []byte // raw
	wire    []byte
	order   lane.Order
	console bytes.Buffer
	random  io.Reader

	mu      sync.Mutex
	reports []map[string]string
	hw      lane.Hardware
	ranges  []string // of the image requests
	// faults, tried before the normal answer; true: the request is answered
	onReport, onOrder, onImage func(w http.ResponseWriter, r *http.Request, n int) bool
	asked                      map[string]int
}

func digest(b []byte) lane.Digest {
	sum := sha256.Sum256(b)
	return lane.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func compress(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, clock: &clock{}, random: rand.Reader, image: bytes.Clone(sharedImage(t)), asked: map[string]int{}}
	l.server = httptest.NewServer(l)
	t.Cleanup(l.server.Close)
	disk := &fakeDisk{data: bytes.Repeat([]byte("old system "), testImageBytes*2/11), root: t.TempDir()}
	disk.data = disk.data[:len(disk.data)/512*512]
	l.machine = &fakeMachine{cmdline: "quiet bootlane.url=" + l.server.URL + "/run/CAP", disk: disk,
		hw: lane.Hardware{UUID: "11223344-5566-7788-99aa-bbccddeeff00", Serial: "SN1", Firmware: "uefi", Disks: []lane.Disk{
			{Name: "vda", SizeBytes: int64(len(disk.data)), Serial: "RIGHT", ByID: []string{"virtio-RIGHT"}},
			{Name: "vdb", SizeBytes: int64(len(disk.data)), Serial: "OTHER"},
		}}}
	l.order = lane.Order{Action: lane.Install, Reason: lane.Granted, Host: "node1", Run: "run1", Disk: lane.DiskSelector{Serial: "RIGHT"},
		Files: []lane.File{{Path: "/etc/hostname", Mode: 0o644, Content: "node1\n"}}}
	l.serve(compress(t, l.image), "zstd")
	return l
}

// serve sets what the server sends as the image, and orders exactly that.
func (l *lab) serve(wire []byte, compression string) {
	l.wire = wire
	l.order.Image = &lane.Image{Path: "/blobs/image", Digest: digest(wire), SizeBytes: int64(len(wire)), Compression: compression,
		RawDigest: digest(l.image), RawBytes: int64(len(l.image)), RootLabel: "root"}
}

func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.asked[r.URL.Path]++
	n := l.asked[r.URL.Path]
	l.mu.Unlock()
	switch r.URL.Path {
	case "/run/CAP/report":
		if l.onReport != nil && l.onReport(w, r, n) {
			return
		}
		l.takeReport(r)
	case "/run/CAP/order":
		if l.onOrder != nil && l.onOrder(w, r, n) {
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&l.hw); err != nil || r.Header.Get("Content-Type") != "application/json" {
			l.t.Errorf("order: %v, %s", err, r.Header.Get("Content-Type"))
		}
		_ = json.NewEncoder(w).Encode(l.order)
	case "/blobs/image":
		l.mu.Lock()
		l.ranges = append(l.ranges, r.Header.Get("Range"))
		l.mu.Unlock()
		if l.onImage != nil && l.onImage(w, r, n) {
			return
		}
		w.Header().Set("ETag", `"`+string(digest(l.wire))+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.wire))
	default:
		http.NotFound(w, r)
	}
}

func (l *lab) takeReport(r *http.Request) {
	if err := r.ParseForm(); err != nil {
		l.t.Error(err)
	}
	report := map[string]string{}
	for k := range r.PostForm {
		report[k] = r.PostForm.Get(k)
	}
	l.mu.Lock()
	l.reports = append(l.reports, report)
	l.mu.Unlock()
}

func (l *lab) run() Ending {
	end := Run(context.Background(), Config{Machine: l.machine, Console: &l.console, Version: "test", Random: l.random, Now: l.clock.now, Sleep: l.clock.sleep})
	if l.t.Failed() || testing.Verbose() {
		l.t.Logf("console:\n%s", l.console.String())
	}
	return end
}

// milestones returns the reports but progress, as "stage seq status".
func (l *lab) milestones() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, r := range l.reports {
		if r["status"] != "progress" {
			out = append(out, r["stage"]+" "+r["status"])
		}
	}
	return out
}

func (l *lab) lastMessage() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A progress report travels beside the others, and may arrive after the last.
	for i := len(l.reports) - 1; i >= 0; i-- {
		if l.reports[i]["status"] != "progress" {
			return l.reports[i]["message"]
		}
	}
	return ""
}

// mustFail runs the lab and checks that it ends in power-off with an error, a
// failed report that says why, and no disk that boots.
func (l *lab) mustFail(want string) {
	l.t.Helper()
	end := l.run()
	if end.Err == nil || !strings.Contains(end.Err.Error(), want) || end.Reboot {
		l.t.Fatalf("ended with %+v, want power-off and %q", end, want)
	}
	m := l.milestones()
	if len(m) == 0 || !strings.HasSuffix(m[len(m)-1], " failed") || !strings.Contains(l.lastMessage(), want) {
		l.t.Errorf("reports %v, the last one says %q", m, l.lastMessage())
	}
}

func (l *lab) mustBeUntouched(before lane.Digest) {
	l.t.Helper()
	if got := digest(l.machine.disk.data); got != before {
		l.t.Error("the disk was changed")
	}
	if l.machine.disk.writes != 0 {
		l.t.Errorf("%d writes to the disk", l.machine.disk.writes)
	}
}

func (l *lab) mustNotBoot() {
	l.t.Helper()
	if why := bootable(l.machine.disk.data); why != "" {
		l.t.Error("the unfinished disk still has " + why)
	}
}

// bootable returns what firmware could find on a disk: boot code or a partition
// table at its start, or the backup table at its end.
func bootable(disk []byte) string {
	switch {
	case disk[510] == 0x55 && disk[511] == 0xaa:
		return "a boot sector"
	case string(disk[512:520]) == "EFI PART":
		return "a partition table"
	case string(disk[len(disk)-512:][:8]) == "EFI PART":
		return "a backup partition table"
	}
	return ""
}

// tableOf reads the finished disk's table and checks both copies with sgdisk.
func tableOf(t *testing.T, disk []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "sgdisk", "gdisk", "-v", file); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
}

// cut answers an image request from its Range on, and breaks the connection
// after n bytes.
func cut(l *lab, w http.ResponseWriter, r *http.Request, n int) {
	from := 0
	if rng := r.Header.Get("Range"); rng != "" {
		from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rng, "bytes="), "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(l.wire)-1, len(l.wire)))
	}
	w.Header().Set("ETag", `"`+string(digest(l.wire))+`"`)
	w.Header().Set("Content-Length", strconv.Itoa(len(l.wire)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(l.wire[from:min(from+n, len(l.wire))])
	w.(http.Flusher).Flush()
	hangUp(w)
}

// hangUp closes the connection as a killed server does.
func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

var _ io.ReaderAt = (*fakeDisk)(nil)
