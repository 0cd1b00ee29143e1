// Package pcap reads captures of network boots, and says what happened in them:
// who asked, who answered with what, which answer the firmware takes, where the
// boot stopped, why, and what to check next.
//
// It is pure: bytes go in, a [Report] comes out. Whatever the bytes are, it returns.
package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bootlane/internal/lane"
)

// Capture is what could be read of a capture file.
type Capture struct {
	Frames  int      // in the file, whatever they carry
	Cut     int      // of these, frames of which only the beginning was captured
	Packets []Packet // the frames that may belong to a network boot
	From    time.Time
	To      time.Time
	// Damage says why reading stopped before the end of the file; a capture that was
	// interrupted is still worth reading.
	Damage string
}

const ngMagic = 0x0a0d0d0a // a pcapng section header, the same in either byte order

// Read reads a pcap or pcapng file. An error means that it is neither, or that
// nothing in it can be read.
func Read(file []byte) (Capture, error) {
	next, err := open(file)
	if err != nil {
		return Capture{}, lane.Errorf(lane.Invalid, "this is not a capture that can be read (pcap or pcapng, as tcpdump -w and Wireshark write them): %v", err)
	}
	var c Capture
	for {
		link, data, info, err := next()
		if errors.Is(err, io.EOF) && info.CaptureLength == 0 { // else it ends within a frame
			return c, nil
		}
		if err != nil {
			c.Damage = fmt.Sprintf("after frame %d: %v", c.Frames, err)
			return c, nil
		}
		c.add(link, data, info)
	}
}

func (c *Capture) add(link layers.LinkType, data []byte, info gopacket.CaptureInfo) {
	c.Frames++
	if c.From.IsZero() || info.Timestamp.Before(c.From) {
		c.From = info.Timestamp
	}
	if info.Timestamp.After(c.To) {
		c.To = info.Timestamp
	}
	p, cut, ok := decode(link, data)
	p.Cut = cut || info.CaptureLength < info.Length
	if p.Cut {
		c.Cut++
	}
	if ok {
		p.Number, p.At = c.Frames, info.Timestamp.UTC()
		c.Packets = append(c.Packets, p)
	}
}

type source func() (layers.LinkType, []byte, gopacket.CaptureInfo, error)

func open(file []byte) (source, error) {
	if len(file) < 4 {
		return nil, fmt.Errorf("it has %d bytes", len(file))
	}
	r := bytes.NewReader(file)
	if binary.BigEndian.Uint32(file) != ngMagic {
		pr, err := pcapgo.NewReader(r)
		if err != nil {
			return nil, err
		}
		return func() (layers.LinkType, []byte, gopacket.CaptureInfo, error) {
			data, info, err := pr.ReadPacketData()
			return pr.LinkType(), data, info, err
		}, nil
	}
	nr, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return nil, err
	}
	return func() (layers.LinkType, []byte, gopacket.CaptureInfo, error) {
		data, info, err := nr.ReadPacketData()
		link := layers.LinkTypeNull
		if len(info.AncillaryData) > 0 {
			link, _ = info.AncillaryData[0].(layers.LinkType)
		}
		return link, data, info, err
	}, nil
}

// Record is one frame to be written to a capture file.
type Record struct {
	At    time.Time
	Frame []byte
	Size  int // of the frame on the wire: more than len(Frame) when it was cut
}

// Source is what one interface recorded.
type Source struct {
	Interface string
	Records   []Record
}

// Write writes Ethernet frames as pcapng: one interface of the file for each source.
func Write(w io.Writer, sources []Source) error {
	var out *pcapgo.NgWriter
	for i, s := range sources {
		face := pcapgo.NgInterface{Name: s.Interface, LinkType: layers.LinkTypeEthernet, SnapLength: MaxFrame, TimestampResolution: 9}
		var err error
		if i == 0 {
			out, err = pcapgo.NewNgWriterInterface(w, face, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "bootlane"}})
		} else {
			_, err = out.AddInterface(face)
		}
		if err != nil {
			return fmt.Errorf("write the capture: %w", err)
		}
		for _, r := range s.Records {
			info := gopacket.CaptureInfo{Timestamp: r.At, CaptureLength: len(r.Frame), Length: max(r.Size, len(r.Frame)), InterfaceIndex: i}
			if err := out.WritePacket(info, r.Frame); err != nil {
				return fmt.Errorf("write the capture: %w", err)
			}
		}
	}
	if out == nil {
		return lane.Errorf(lane.NotFound, "no interface is observed: there is nothing to write")
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the capture: %w", err)
	}
	return nil
}

// MaxFrame is how much of a frame is worth keeping: a whole one of Ethernet, tagged.
const MaxFrame = 2048
