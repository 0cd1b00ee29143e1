package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

func TestWriteFiles(t *testing.T) {
	outside := t.TempDir()
	root := tree(t, map[string]string{
		"etc/resolv.conf": "-> ../run/stub",
		"etc/hostname":    "old name that is longer\n",
		"usr/lib/keep":    "kept",
		"lib":             "-> usr/lib",
		"run/stub":        "not to be written through",
	})
	err := writeFiles(root, []lane.File{
		{Path: "/etc/hostname", Mode: 0o644, Content: "node1\n"},
		{Path: "/etc/resolv.conf", Mode: 0o644, Content: "nameserver 9.9.9.9\n"},
		{Path: "/etc/a/b/secret", Mode: 0o600, Content: "s"},
		{Path: "/usr/local/bin/run", Mode: 0o755, Content: "#!"},
		{Path: "/lib/x", Mode: 0o644, Content: "through a link inside"},
		{Path: "/etc/wants/x.service", Link: "/etc/systemd/system/x.service"},
		{Path: "/etc/hostname", Mode: 0o444, Content: "node2\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode os.FileMode
		text string
	}{
		"etc/hostname": {0o444, "node2\n"}, "etc/resolv.conf": {0o644, "nameserver 9.9.9.9\n"}, "etc/a/b/secret": {0o600, "s"},
		"usr/local/bin/run": {0o755, "#!"}, "usr/lib/x": {0o644, "through a link inside"}, "run/stub": {0o644, "not to be written through"},
	} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.Mode() != want.mode {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want.mode)
		}
		if b, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(b) != want.text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "etc/a/b")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("a made directory: %v, %v", info, err)
	}
	if to, err := os.Readlink(filepath.Join(root, "etc/wants/x.service")); err != nil || to != "/etc/systemd/system/x.service" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if left := entries(outside); len(left) != 0 {
		t.Errorf("written outside: %q", left)
	}
}

func TestWriteFilesStaysInside(t *testing.T) {
	outside := t.TempDir()
	root := tree(t, map[string]string{
		"abs": "-> " + outside, "up": "-> ../../../../../../.." + outside, "dir/file": "", "plain": "",
	})
	for _, f := range []lane.File{
		{Path: "/abs/x"}, {Path: "/up/x"}, {Path: "/plain/x"}, {Path: "/dir"}, {Path: "/../x"}, {Path: "x"}, {Path: "/"}, {Path: ""}, {Path: "/a//b"},
		{Path: "/a/./b"}, {Path: "/a/"}, {Path: "/a\x00b"}, {Path: "/suid", Mode: 0o4755}, {Path: "/both", Link: "x", Content: "y"}, {Path: "/l", Link: "a\x00b"},
		{Path: "/abs/link", Link: "x"},
	} {
		if err := writeFiles(root, []lane.File{f}); err == nil {
			t.Errorf("%+v was placed", f)
		}
	}
	if left := entries(outside); len(left) != 0 {
		t.Errorf("written outside: %q", left)
	}
}

func TestCheckOrder(t *testing.T) {
	good := func() lane.Order {
		return lane.Order{Action: lane.Install, Disk: lane.DiskSelector{Serial: "x"}, Image: &lane.Image{Path: "/blobs/x", Compression: "zstd",
			Digest: digest(nil), RawDigest: digest(nil), SizeBytes: 1, RawBytes: 4 << 20, RootLabel: "root"}}
	}
	if err := checkOrder(good()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*lane.Order){
		"digest":             func(o *lane.Order) { o.Image.Digest = "md5:1" },
		"raw digest":         func(o *lane.Order) { o.Image.RawDigest = "" },
		"size is 0":          func(o *lane.Order) { o.Image.SizeBytes = 0 },
		"no disk image":      func(o *lane.Order) { o.Image.RawBytes = 1 << 20 },
		"whole number":       func(o *lane.Order) { o.Image.RawBytes++ },
		"compression":        func(o *lane.Order) { o.Image.Compression = "lz4" },
		"is not compressed":  func(o *lane.Order) { o.Image.Compression = "none" },
		"no root partition":  func(o *lane.Order) { o.Image.RootLabel = "" },
		"no disk by id":      func(o *lane.Order) { o.Disk = lane.DiskSelector{SizeGB: 5} },
		"not an absolute":    func(o *lane.Order) { o.Image.Path = "blobs/x" },
		"more than permissi": func(o *lane.Order) { o.Files = []lane.File{{Path: "/x", Mode: 0o2755}} },
	} {
		o := good()
		change(&o)
		if err := checkOrder(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestImageURL(t *testing.T) {
	base := &url.URL{Scheme: "http", Host: "10.0.0.1:8080", Path: "/run/CAP"}
	for p, want := range map[string]string{"/blobs/x": "http://10.0.0.1:8080/blobs/x", "/b?x=1": "http://10.0.0.1:8080/b?x=1",
		"//evil/x": "", "http://evil/x": "", "x": "", "": "", "/x#f": "", "/%zz": ""} {
		got, err := imageURL(base, p)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", p, got, err)
		}
	}
}

// A terminal obeys escape sequences; what the network says must not reach it as such.
func TestLogIsOneCleanLine(t *testing.T) {
	var out bytes.Buffer
	l := NewLog(&out, time.Now)
	l.Step("reason: %s", "a\x1b]0;x\x07\r\nFAILED: fake\u202e")
	if got := out.String(); strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\x1b\x07\u202e") || !strings.HasPrefix(got, "[   0.0s] reason: a") {
		t.Errorf("%q", got)
	}
}

func TestStalledConnectionEnds(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	c := &stallConn{Conn: a, now: time.Now, limit: 20 * time.Millisecond}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("write: %v", err)
	}
}

func TestRetryGivesUp(t *testing.T) {
	tick := &clock{}
	var out bytes.Buffer
	c := &client{now: tick.now, sleep: tick.sleep, log: NewLog(&out, tick.now)}
	began, tries := tick.now(), 0
	err := c.retry(context.Background(), "order", serverPatient, func() error { tries++; return io.ErrUnexpectedEOF })
	if spent := tick.now().Sub(began); err == nil || spent > serverPatient || spent < serverPatient-2*lastBackoff || tries < 30 {
		t.Errorf("%v after %s and %d tries", err, spent, tries)
	}
	if lines := strings.Count(out.String(), "\n"); lines != tries-1 {
		t.Errorf("%d lines for %d tries", lines, tries)
	}
	tries = 0
	err = c.retry(context.Background(), "order", serverPatient, func() error { tries++; return &refusal{http.StatusForbidden, "no"} })
	if err == nil || tries != 1 {
		t.Errorf("a refusal: %v after %d tries", err, tries)
	}
}

func TestInitRunsAsPid1Only(t *testing.T) {
	if err := Init("test", nil, time.Now, nil); err == nil || !strings.Contains(err.Error(), "pid 1 only") {
		t.Errorf("got %v", err)
	}
}

// A console that takes nothing loses lines and holds nothing up.
func TestConsolesNeverBlock(t *testing.T) {
	stuck, free := make(chan []byte, 1), make(chan []byte, 100)
	c := consoles{stuck, free}
	line := []byte("x")
	for range 50 {
		if n, err := c.Write(line); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		line[0]++ // the queue must hold its own copy
	}
	if len(free) != 50 || string(<-free) != "x" {
		t.Errorf("%d lines reached the free console", len(free))
	}
}

func TestPartitionNode(t *testing.T) {
	for disk, want := range map[string]string{"/dev/sda": "/dev/sda100", "/dev/nvme0n1": "/dev/nvme0n1p100", "/dev/mmcblk0": "/dev/mmcblk0p100"} {
		if got := partitionNode(disk, 100); got != want {
			t.Errorf("%s: %s", disk, got)
		}
	}
}

func TestBootNICComesFirst(t *testing.T) {
	nics := order([]lane.NIC{{Name: "eth2", MAC: "c"}, {Name: "eth0", MAC: "a"}, {Name: "eth1", MAC: "b"}}, "b")
	if nics[0].Name != "eth1" || nics[1].Name != "eth0" || nics[2].Name != "eth2" {
		t.Errorf("%v", nics)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 5e6: "5 MB", 481296384: "481 MB", 8589934592: "8.6 GB", 4e12: "4.00 TB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
