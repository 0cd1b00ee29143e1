package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bootlane/internal/httpboot"
	"bootlane/internal/lane"
	"bootlane/internal/seed"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// benchBytes is the image's size: enough that a disk shows what it can.
const benchBytes = 1 << 30

// benchDisk is a file that is written as a disk is.
type benchDisk struct{ *diskTarget }

// Forget: BLKFLSBUF is for block devices.
func (d benchDisk) Forget() error {
	return unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// onlyFiles is a server's one image, whoever asks.
type onlyFiles struct {
	path string
	file lane.BundleFile
}

func (o onlyFiles) File(context.Context, lane.RunPath, lane.Facts) (lane.BundleFile, error) {
	return o.file, nil
}
func (o onlyFiles) Open(lane.BundleFile) (*os.File, error) { return os.Open(o.path) }
func (onlyFiles) Tree(context.Context, lane.RunPath, lane.Facts) (lane.BundleFile, error) {
	return lane.BundleFile{}, errors.ErrUnsupported
}
func (onlyFiles) Seed(context.Context, lane.RunPath, lane.Facts) (seed.Document, error) {
	return seed.Document{}, errors.ErrUnsupported
}
func (onlyFiles) Report(context.Context, string, lane.Report) error { return nil }
func (onlyFiles) Order(context.Context, string, lane.Hardware, lane.Facts) (lane.Order, error) {
	return lane.Order{}, errors.ErrUnsupported
}
func (onlyFiles) Join(context.Context, lane.RunPath, lane.Facts) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// BenchmarkWrite writes an image of a gigabyte, incompressible, from the machines' own HTTP
// server to a file, as the agent writes it to a disk until all is on the medium. It tells
// the rates of what bounds it as well: the link alone, to nowhere, and the disk alone, the
// same bytes from RAM. The quotient is of the lesser of the two, each time; the disk alone is asked
// before and after, for disks of virtual machines swing. All are medians.
func BenchmarkWrite(b *testing.B) {
	image := filepath.Join(b.TempDir(), "image")
	raw := benchImage(b, image)
	packed := filepath.Join(b.TempDir(), "image.zst")
	wire := pack(b, image, packed)
	for _, c := range []struct {
		name, path string
		digest     lane.Digest
	}{{lane.CompressionNone, image, raw}, {lane.CompressionZstd, packed, wire}} {
		b.Run(c.name, func(b *testing.B) {
			st, err := os.Stat(c.path)
			if err != nil {
				b.Fatal(err)
			}
			img := lane.Image{Path: lane.RunPath{Capability: strings.Repeat("a", 32), Asset: lane.AssetFile, Digest: c.digest, Name: "image"}.String(), Digest: c.digest, SizeBytes: st.Size(),
				Compression: c.name, RawDigest: raw, RawBytes: benchBytes, RootLabel: "root"}
			base := serveBench(b, onlyFiles{c.path, lane.BundleFile{Digest: c.digest, SizeBytes: st.Size()}})
			var writes, links, disks, shares []float64
			rate := func(d time.Duration) float64 { return benchBytes / 1e6 / d.Seconds() }
			for b.Loop() {
				link, before := rate(benchLink(b, base+img.Path)), benchAlone(b, image)
				write := rate(benchWrite(b, base, img))
				disk := rate((before + benchAlone(b, image)) / 2)
				writes, links, disks, shares = append(writes, write), append(links, link), append(disks, disk), append(shares, write/min(link, disk))
			}
			for unit, all := range map[string][]float64{"write-MB/s": writes, "link-MB/s": links, "disk-MB/s": disks, "of-min": shares} {
				slices.Sort(all)
				b.ReportMetric(all[len(all)/2], unit)
			}
			b.ReportMetric(shares[0], "least-of-min")
			b.ReportMetric(shares[len(shares)-1], "most-of-min")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// benchImage writes a disk image and returns its digest.
func benchImage(b *testing.B, path string) lane.Digest {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	block, random := make([]byte, chunk), rand.NewChaCha8([32]byte{1})
	for range benchBytes / chunk {
		_, _ = random.Read(block) // never fails
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	for _, at := range []int64{0, benchBytes - 33*512} {
		if _, err := f.WriteAt(make([]byte, 33*512), at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	run(b, "sgdisk", "gdisk", "-n", "1:2048:0", "-c", "1:root", path)
	return fileDigest(b, path)
}

func fileDigest(b *testing.B, path string) lane.Digest {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		b.Fatal(err)
	}
	return lane.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

func pack(b *testing.B, from, to string) lane.Digest {
	in, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	z, err := zstd.NewWriter(out)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		b.Fatal(err)
	}
	return fileDigest(b, to)
}

func serveBench(b *testing.B, files onlyFiles) (base string) {
	s, err := httpboot.New(b.Context(), httpboot.Config{Listeners: []httpboot.Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "" }}}, Runs: files, Reports: files, Files: files, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return "http://" + s.Addr()
}

func benchLink(b *testing.B, url string) time.Duration {
	began := time.Now()
	res, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
		b.Fatal(res.Status, err)
	}
	return time.Since(began)
}

// blankDisk is a file as large as the image, without any of its blocks.
func blankDisk(b *testing.B) benchDisk {
	path := filepath.Join(b.TempDir(), "disk")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(benchBytes)
	}
	if err != nil {
		b.Fatal(err)
	}
	unix.Sync() // what others left to write is not ours
	direct, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		b.Fatal(err)
	}
	return benchDisk{&diskTarget{File: f, direct: direct, path: path, size: benchBytes, sector: 512}}
}

// giveBack closes a disk and gives its room back.
func giveBack(b *testing.B, d benchDisk) {
	if err := errors.Join(d.Close(), os.Remove(d.path)); err != nil {
		b.Fatal(err)
	}
}

func benchAlone(b *testing.B, image string) time.Duration {
	data, err := os.ReadFile(image)
	if err != nil {
		b.Fatal(err)
	}
	d := blankDisk(b)
	defer giveBack(b, d)
	began := time.Now()
	for off := 0; off < len(data); off += chunk {
		if _, err := d.WriteAt(data[off:off+chunk], int64(off)); err != nil {
			b.Fatal(err)
		}
	}
	if err := flush(d); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

func benchWrite(b *testing.B, base string, img lane.Image) time.Duration {
	d := blankDisk(b)
	defer giveBack(b, d)
	u, err := url.Parse(base + lane.RunBase(strings.Repeat("a", 32)))
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{Now: time.Now, Sleep: func(ctx context.Context, d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}}
	log := NewLog(io.Discard, time.Now)
	a := &agent{cfg: cfg, log: log, api: newClient(u, lane.Hardware{}, cfg, log)}
	began := time.Now()
	j := &job{agent: a, t: d, disk: lane.Disk{Name: "disk"}, order: lane.Order{Image: &img}}
	if j.wire, err = a.api.openAhead(b.Context(), img); err != nil {
		b.Fatal(err)
	}
	defer j.wire.Close()
	unpacked, err := decompress(j.wire, img.Compression)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = unpacked.Close() }()
	j.raw = unpacked
	if err := errors.Join(j.begin(), j.fill(b.Context())); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}
