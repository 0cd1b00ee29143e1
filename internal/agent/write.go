package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"bootlane/internal/lane"
)

const (
	// The head of the disk: boot code, partition table, and on every layout in
	// use the start of the first partition. Without it no firmware boots the disk.
	headBytes = 1 << 20
	minImage  = 2 * headBytes
	chunk     = 4 << 20
	tick      = 2 * time.Second
)

// written is how long writing, reading back and encrypting took.
type written struct{ write, verify, encrypt time.Duration }

// job is one image on its way to one disk.
type job struct {
	*agent
	t     Target
	disk  lane.Disk
	disks []lane.Disk // all of the machine
	wipe  []cleared
	order lane.Order
	seal  *seal // nil: the disk is not encrypted
	wire  *ahead
	raw   io.Reader
	head  []byte // the image's first MiB, held back
	table *gpt
	fit   relocated
	times written
}

// writeDisk puts the image and the order's files on the disk and proves by
// reading that they are there.
//
// The head of the disk is written last, when everything behind it is proven and
// in place: from the first changed byte until then, power may fail at any moment
// and the machine finds nothing it could boot. The tail is cleared together with
// the head, because UEFI restores a missing partition table from its backup copy
// in the last sectors.
//
// Where the disk is to be encrypted, the root file system is so as the last before that, with its
// files in it: it stands plain on the disk until then, and is cleared where that fails.
func (j *job) writeDisk(ctx context.Context) error {
	wire, err := j.api.openAhead(ctx, *j.order.Image)
	if err != nil {
		return err
	}
	raw, err := decompress(wire, j.order.Image.Compression)
	if err != nil {
		wire.Close()
		return err
	}
	defer func() {
		wire.Close() // first: what unpacks may wait for it
		_ = raw.Close()
	}()
	j.wire, j.raw = wire, raw
	if err := j.begin(); err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	if err := j.overwrite(ctx); err != nil {
		// The machine's old system is gone and the new one is not proven.
		if werr := j.wipePlain(); werr != nil {
			err = fmt.Errorf("%w (and what was to be encrypted stays on the disk in plain: %w)", err, werr)
		}
		if werr := wipeEnds(j.t); werr != nil {
			return fmt.Errorf("%w (and the unfinished disk could not be made unbootable: %w)", err, werr)
		}
		return fmt.Errorf("%w (the unfinished disk was made unbootable)", err)
	}
	return nil
}

// begin reads the head of the image and judges everything that can be judged
// before the first byte of the disk changes.
func (j *job) begin() error {
	img := j.order.Image
	if j.t.Size() < img.RawBytes {
		return fmt.Errorf("the disk has %d bytes, the image %d", j.t.Size(), img.RawBytes)
	}
	j.head = make([]byte, headBytes)
	_, err := io.ReadFull(j.raw, j.head)
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	if j.table, err = parseGPT(j.head, j.t.SectorSize(), img.RawBytes); err != nil {
		return fmt.Errorf("read the image's partition table: %w", err)
	}
	for _, label := range labels(j.order) {
		if _, err = j.table.byName(label); err != nil {
			return err
		}
	}
	if j.seal != nil {
		if err = j.seal.fits(j.table, img.RootLabel, j.t.Size()); err != nil {
			return err
		}
	}
	if j.fit, err = j.table.relocate(j.t.Size()); err != nil {
		return err
	}
	return j.refuseTwins()
}

// refuseTwins looks for the same image on another disk of the machine. Both would
// have the same partition UUIDs, and chance would choose which root is mounted.
func (j *job) refuseTwins() error {
	for _, d := range j.disks {
		if d.Name == j.disk.Name || slices.ContainsFunc(j.wipe, func(c cleared) bool { return c.disk.Name == d.Name }) {
			continue
		}
		head, err := j.cfg.Machine.ReadHead(d, headBytes)
		if err != nil {
			j.log.Step("disk %s: %v; not looked at", d.Name, err) // an empty slot, a dying disk
			continue
		}
		if j.table.twin(head) {
			return fmt.Errorf("the disk %s (serial %s) already carries this very image, with the same partition UUIDs: the machine could boot from either; clear that disk first", d.Name, orDash(d.Serial))
		}
	}
	return nil
}

// overwrite changes the disk.
func (j *job) overwrite(ctx context.Context) error {
	if err := wipeEnds(j.t); err != nil {
		return err
	}
	for _, c := range j.wipe {
		if err := c.wipe(); err != nil {
			return fmt.Errorf("clear the disk %s: %w", c.disk.Name, err)
		}
		j.log.Step("cleared: %s", c.disk.Name)
	}
	if err := j.fill(ctx); err != nil {
		return err
	}
	if err := j.prove(ctx); err != nil {
		return err
	}
	if err := j.placeFiles(j.t, j.table, j.order); err != nil {
		return err
	}
	if j.seal != nil {
		if err := j.encrypt(ctx); err != nil {
			return err
		}
	}
	return j.finish()
}

// fill writes everything behind the head.
func (j *job) fill(ctx context.Context) error {
	img, start := j.order.Image, j.cfg.Now()
	m := &meter{job: j, total: img.RawBytes}
	stop := m.run(ctx, "writing")
	err := copyBody(j.t, j.raw, img.RawBytes, m)
	stop()
	if err != nil {
		return err
	}
	if err := j.wire.verify(); err != nil {
		return err
	}
	if err := flush(j.t); err != nil {
		return err
	}
	j.times.write = j.cfg.Now().Sub(start).Round(100 * time.Millisecond)
	j.log.Step("written: %s in %s, wire digest right; reading back", size(img.RawBytes), j.times.write)
	return nil
}

// prove reads it back.
func (j *job) prove(ctx context.Context) error {
	img, start := j.order.Image, j.cfg.Now()
	m := &meter{job: j, total: img.RawBytes}
	stop := m.run(ctx, "verifying")
	got, err := readBack(j.t, j.head, img.RawBytes, m)
	stop()
	if err != nil {
		return err
	}
	if got != img.RawDigest {
		return fmt.Errorf("the disk gives back %s, the image is %s", got, img.RawDigest)
	}
	j.times.verify = j.cfg.Now().Sub(start).Round(100 * time.Millisecond)
	j.log.Step("verified: the disk gives back every byte, in %s", j.times.verify)
	return nil
}

// finish makes the disk bootable: the backup partition table, the head, and as
// the very last thing its first sectors, without which the rest counts for nothing.
func (j *job) finish() error {
	head := append(bytes.Clone(j.fit.start), j.head[len(j.fit.start):]...)
	copy(head[j.fit.at:], j.fit.table)
	cut := int64(len(j.fit.start))
	for _, part := range []struct {
		at   int64
		data []byte
	}{{j.fit.tailAt, j.fit.tail}, {cut, head[cut:]}, {0, head[:cut]}} {
		if _, err := j.t.WriteAt(part.data, part.at); err != nil {
			return fmt.Errorf("write the head of the disk at byte %d: %w", part.at, err)
		}
		if err := flush(j.t); err != nil {
			return err
		}
		got := make([]byte, len(part.data))
		if _, err := j.t.ReadAt(got, part.at); err != nil {
			return fmt.Errorf("read back the head of the disk: %w", err)
		}
		if !bytes.Equal(got, part.data) {
			return fmt.Errorf("the disk does not give back what was written at byte %d", part.at)
		}
	}
	return nil
}

// wipeEnds clears the first and the last MiB.
func wipeEnds(t Target) error {
	zero := make([]byte, headBytes)
	for _, at := range []int64{0, t.Size() - headBytes} {
		if _, err := t.WriteAt(zero, at); err != nil {
			return fmt.Errorf("clear the disk at byte %d: %w", at, err)
		}
	}
	if err := t.Sync(); err != nil {
		return fmt.Errorf("clear the ends of the disk: %w", err)
	}
	return nil
}

// copyBody writes what follows the head.
func copyBody(t Target, raw io.Reader, size int64, m *meter) error {
	off, zero := int64(headBytes), make([]byte, holeBytes)
	err := pump(raw, func(b []byte) error {
		if off+int64(len(b)) > size {
			return fmt.Errorf("the image unpacks to more than the %d bytes that the order says", size)
		}
		if err := writeSparsely(t, b, off, zero); err != nil {
			return fmt.Errorf("write at byte %d: %w", off, err)
		}
		off += int64(len(b))
		m.done.Store(off)
		return nil
	})
	if err != nil {
		return fmt.Errorf("copy the image: %w", err)
	}
	if off != size {
		return fmt.Errorf("the image unpacks to %d bytes, the order says %d", off, size)
	}
	return nil
}

// holeBytes is what at least must be zero to be told, and not written.
const holeBytes = 1 << 20

// writeSparsely writes what is not zero. An image is mostly empty space. zero is a hole, to compare with.
func writeSparsely(t Target, b []byte, off int64, zero []byte) error {
	hole := func(at int) bool { return at+holeBytes <= len(b) && bytes.Equal(b[at:at+holeBytes], zero) }
	for at := 0; at < len(b); {
		end, empty := at, hole(at)
		for end < len(b) && hole(end) == empty {
			end = min(end+holeBytes, len(b))
		}
		if empty {
			if err := t.Zero(off+int64(at), int64(end-at)); err != nil {
				return err
			}
		} else if _, err := t.WriteAt(b[at:end], off+int64(at)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// pump hands r to consume in chunks. Both work at the same time: one buffer is
// filled while the other is used.
func pump(r io.Reader, consume func([]byte) error) error {
	if w, ok := r.(whole); ok { // it is filled while it is used already
		return w.each(consume)
	}
	type block struct {
		data []byte
		err  error
	}
	full, free, quit, finished := make(chan block), make(chan []byte, 2), make(chan struct{}), make(chan struct{})
	free <- make([]byte, chunk)
	free <- make([]byte, chunk)
	go func() {
		defer close(finished)
		for err := error(nil); err == nil; {
			var b block
			select {
			case buf := <-free:
				n := 0
				n, err = safeRead(r, buf)
				b = block{buf[:n], err}
			case <-quit:
				return
			}
			select {
			case full <- b:
			case <-quit:
				return
			}
		}
	}()
	defer func() { close(quit); <-finished }()
	for {
		b := <-full
		if err := consume(b.data); err != nil {
			return err
		}
		switch {
		case b.err == nil:
			free <- b.data[:chunk]
		case b.err == io.EOF, b.err == io.ErrUnexpectedEOF: // io.ReadFull's own; a broken stream wraps them
			return nil
		default:
			return fmt.Errorf("read: %w", b.err)
		}
	}
}

// safeRead fills buf. Were the decompressor to panic on some image, in a
// goroutine of its own that would be the end of pid 1 and so of the kernel.
func safeRead(r io.Reader, buf []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err = 0, fmt.Errorf("the decompressor broke: %v", p)
		}
	}()
	return io.ReadFull(r, buf)
}

// flush brings what was written to the medium and forgets it, so that reading
// proves the medium and not the cache.
func flush(t Target) error {
	if err := t.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	if err := t.Forget(); err != nil {
		return fmt.Errorf("drop the disk's cache: %w", err)
	}
	return nil
}

// readBack returns the digest of head and of everything on the disk after it.
func readBack(t Target, head []byte, size int64, m *meter) (lane.Digest, error) {
	h, off := sha256.New(), int64(headBytes)
	h.Write(head)
	err := pump(io.NewSectionReader(t, headBytes, size-headBytes), func(b []byte) error {
		h.Write(b)
		off += int64(len(b))
		m.done.Store(off)
		return nil
	})
	if err == nil && off != size {
		err = fmt.Errorf("it ends at byte %d of %d", off, size)
	}
	if err != nil {
		return "", fmt.Errorf("read the disk back: %w", err)
	}
	return digestOf(h), nil
}

// meter shows how far a long step has come, on the console and to the server.
type meter struct {
	job   *job
	total int64
	done  atomic.Int64
}

// run starts showing; the function it returns ends it. The reports are best
// effort: they must never slow down or fail the work.
func (m *meter) run(ctx context.Context, what string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	finished := make(chan struct{})
	start := m.job.cfg.Now()
	m.done.Store(0)
	go func() {
		defer close(finished)
		lost := false
		for m.job.cfg.Sleep(ctx, tick) == nil {
			message := m.message(what, m.job.cfg.Now().Sub(start))
			m.job.log.Step("%s", message)
			err := m.job.api.progress(ctx, message, m.done.Load(), m.total)
			if err != nil && !lost && ctx.Err() == nil {
				m.job.log.Step("report progress: %v", err)
			}
			lost = err != nil
		}
	}()
	return func() { cancel(); <-finished }
}

func (m *meter) message(what string, spent time.Duration) string {
	done, total := m.done.Load(), m.total
	text := fmt.Sprintf("%s %s: %3d %%, %s of %s", what, m.job.disk.Name, done*100/total, size(done), size(total))
	if rate := float64(done) / spent.Seconds(); rate > 0 && done > 0 {
		left := time.Duration(float64(total-done) / rate * float64(time.Second))
		text += fmt.Sprintf(", %s/s, %s left", size(int64(rate)), left.Round(time.Second))
	}
	return text
}
