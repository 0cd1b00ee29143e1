package iso

import (
	"encoding/binary"
	"fmt"
	"io"

	"bootlane/internal/lane"
)

// BootImage is what firmware boots from a CD: El Torito, 2.0.
type BootImage struct {
	Platform string // bios or efi
	Offset   int64  // in the ISO image, in bytes
	Size     int64  // in bytes

	im *Image
}

// BootImages lists the images of the boot catalog; an ISO image without one has none.
func (im *Image) BootImages() ([]BootImage, error) {
	if im.catalog == 0 {
		return nil, nil
	}
	b, err := im.read(im.catalog*sector, sector)
	if err != nil {
		return nil, err
	}
	total := uint16(0)
	for i := 0; i < 32; i += 2 {
		total += binary.LittleEndian.Uint16(b[i:])
	}
	if b[0] != 1 || b[30] != 0x55 || b[31] != 0xaa || total != 0 {
		return nil, lane.Errorf(lane.Invalid, "the boot catalog of the ISO image is damaged: its checksum is wrong")
	}
	platform := b[1]
	var out []BootImage
	for at := 32; at+32 <= len(b); at += 32 {
		e := b[at : at+32]
		switch e[0] {
		case 0x90, 0x91: // the header of a section
			platform = e[1]
		case 0x88: // something bootable
			i, err := im.bootImage(platform, e)
			if err != nil {
				return nil, err
			}
			out = append(out, i)
		}
	}
	return out, nil
}

// bootImage reads an entry. Its sector count has 16 bits, and many tools write 0 or 1 for
// an EFI image: then its file system knows how large it is.
func (im *Image) bootImage(platform byte, e []byte) (BootImage, error) {
	i := BootImage{Platform: "bios", Offset: int64(binary.LittleEndian.Uint32(e[8:])) * sector, Size: int64(binary.LittleEndian.Uint16(e[6:])) * 512, im: im}
	if platform == 0xef {
		i.Platform = "efi"
		head, err := im.read(i.Offset, 512)
		if err != nil {
			return i, fmt.Errorf("the EFI boot image: %w", err)
		}
		if p, err := parseBPB(head); err == nil {
			i.Size = max(i.Size, p.total)
		}
	}
	if _, err := im.read(i.Offset, 0); err != nil || i.Size > im.size-i.Offset {
		return i, lane.Errorf(lane.Invalid, "the %s boot image of %d bytes does not fit into the ISO image: it is cut short or damaged", i.Platform, i.Size)
	}
	return i, nil
}

// Files returns the file system of an EFI boot image.
func (i BootImage) Files() (*FAT, error) {
	return OpenFAT(io.NewSectionReader(i.im.r, i.Offset, i.Size), i.Size)
}
