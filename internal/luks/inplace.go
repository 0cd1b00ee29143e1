package luks

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// blockBytes are moved at once. It is less than HeaderBytes: what a block is written over was moved before.
const blockBytes = 4 << 20

// Disk is where a container comes to lie.
type Disk interface {
	io.ReaderAt
	io.WriterAt
}

// Sum is the digest of a content, by which it is known again.
type Sum [sha256.Size]byte

// Encrypt makes size bytes of a disk from at on the content of the container, which then has the
// place from at to at+HeaderBytes+size. It begins at the end, each block HeaderBytes further up,
// and writes the header last: over the place where the plain content began, and of it the beginning
// last, which makes it one. done is told how far it has come. Whatever stops it leaves nothing that
// could be opened.
func (c *Container) Encrypt(d Disk, at, size int64, done func(int64)) (Sum, error) {
	sum := sha256.New()
	err := blocks(size, func(b []byte, off int64) error {
		if _, err := d.ReadAt(b, at+off); err != nil {
			return fmt.Errorf("read byte %d: %w", at+off, err)
		}
		sum.Write(b)
		parallel(b, uint64(off/sectorBytes), c.cipher.Encrypt)
		if _, err := d.WriteAt(b, at+HeaderBytes+off); err != nil {
			return fmt.Errorf("write at byte %d: %w", at+HeaderBytes+off, err)
		}
		done(size - off)
		return nil
	})
	if err != nil {
		return Sum{}, err
	}
	for off := HeaderBytes - blockBytes; off >= 0; off -= blockBytes {
		if _, err := d.WriteAt(c.header[off:off+blockBytes], at+int64(off)); err != nil {
			return Sum{}, fmt.Errorf("write the header at byte %d: %w", at+int64(off), err)
		}
	}
	return Sum(sum.Sum(nil)), nil
}

// Verify reads all of it back, and decrypts it: it is what Encrypt was given.
func (c *Container) Verify(d Disk, at, size int64, want Sum, done func(int64)) error {
	header := make([]byte, HeaderBytes)
	if _, err := d.ReadAt(header, at); err != nil {
		return fmt.Errorf("read the header back: %w", err)
	}
	if !c.sameHeader(header) {
		return errors.New("the disk does not give back the header of the container")
	}
	sum := sha256.New()
	err := blocks(size, func(b []byte, off int64) error {
		if _, err := d.ReadAt(b, at+HeaderBytes+off); err != nil {
			return fmt.Errorf("read byte %d: %w", at+HeaderBytes+off, err)
		}
		parallel(b, uint64(off/sectorBytes), c.cipher.Decrypt)
		sum.Write(b)
		done(size - off)
		return nil
	})
	if err != nil {
		return err
	}
	if Sum(sum.Sum(nil)) != want {
		return errors.New("what the disk gives back does not decrypt to what was on it")
	}
	return nil
}

// blocks calls each with a buffer for every block, from the last to the first.
func blocks(size int64, each func(b []byte, off int64) error) error {
	if size <= 0 || size%sectorBytes != 0 {
		return fmt.Errorf("%d bytes are no whole number of sectors", size)
	}
	buf := make([]byte, blockBytes)
	for end := size; end > 0; {
		off := (end - 1) / blockBytes * blockBytes
		if err := each(buf[:end-off], off); err != nil {
			return err
		}
		end = off
	}
	return nil
}

// parallel has every processor do its part of the sectors of b, in place.
func parallel(b []byte, first uint64, crypt func(dst, src []byte, sector uint64)) {
	sectors := len(b) / sectorBytes
	each := max(1, (sectors+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for from := 0; from < sectors; from += each {
		wg.Go(func() {
			for n := from; n < min(sectors, from+each); n++ {
				s := b[n*sectorBytes:][:sectorBytes]
				crypt(s, s, first+uint64(n))
			}
		})
	}
	wg.Wait()
}
