package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"

	"golang.org/x/sys/unix"
)

// tagging boots a machine whose switch port is a trunk: whoever leaves out the tag, on the
// way from firmware to agent, is not heard.
func tagging(ctx context.Context, l *Lab) error {
	m := l.machine("node-j", lane.UEFI, Disk{Serial: "SYSTEM-J", Bytes: 2 * gigabyte})
	m.Loader, m.VLAN = filepath.Base(efi64Loader), bootVLAN
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	if err := l.fetched(ctx, m, 7, efi64Loader); err != nil {
		return err
	}
	n, others := m.trunk.Tagged.Load(), m.trunk.Untagged.Load()
	l.expect(n > 0, "its switch port took %d frames with the tag of VLAN %d, and dropped %d others", n, m.VLAN, others)
	return nil
}

const (
	bootVLAN  = 120
	trunkPort = 9120 // of loopback, and the next one: the ends of the machine's cable
)

// vlanSetting is what OVMF's page "VLAN Configuration" of a NIC stores: 16 bits of tag for
// each VLAN, under the NIC's MAC, MdeModulePkg/Include/Guid/VlanConfigDxe and NetworkPkg/MnpDxe.
func vlanSetting(mac lane.MAC, vlan uint16) (uefi.Stored, error) {
	vendor, err := uefi.ParseGUID("9e23d768-d2f3-4366-9fc3-3a7aba864374") // gEfiVlanConfigProtocolGuid
	const nonVolatile, bootServices = 1, 2
	return uefi.Stored{Name: strings.ToUpper(strings.ReplaceAll(string(mac), ":", "")), Vendor: vendor, Attributes: nonVolatile | bootServices,
		Value: binary.LittleEndian.AppendUint16(nil, vlan)}, err
}

// trunk is a port of a switch whose machine tags its frames (IEEE 802.1Q): the tagged ones of
// one VLAN reach the lab's bridge without their tag, what comes from there is tagged, and all
// else is dropped. Kernels that make no VLAN interfaces, and take tags off before anybody can
// look, are why it is a program. The machine's end is the emulator's: a datagram a frame.
type trunk struct {
	vlan uint16

	machine *net.UDPConn
	bridge  *os.File // a TAP: the kernel fills in checksums before it hands frames to one

	Tagged, Untagged atomic.Int64 // frames of the machine: with the VLAN's tag, and with none or another one
}

const (
	macs     = 12 // bytes of destination and source, before the EtherType
	tagBytes = 4
	tagged   = 0x8100 // EtherType (IEEE 802.1Q)
	anyFrame = 65536
)

// join connects an emulator, which sends from one port of loopback to another, with a bridge.
func (t *trunk) join(ctx context.Context, name, bridge string, theirs, ours int) error {
	if err := run(ctx, nil, "ip", "tuntap", "add", name, "mode", "tap"); err != nil {
		return err
	}
	if err := run(ctx, nil, "ip", "link", "set", name, "master", bridge, "up"); err != nil {
		return err
	}
	var err error
	if t.bridge, err = openTAP(name); err != nil {
		return err
	}
	loopback := func(port int) *net.UDPAddr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	if t.machine, err = net.DialUDP("udp4", loopback(ours), loopback(theirs)); err != nil {
		return errors.Join(err, t.bridge.Close())
	}
	go t.up()
	go t.down()
	return nil
}

// openTAP attaches to a TAP interface: whoever reads gets the frames that it is to send.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// up passes the machine's frames on to the bridge.
func (t *trunk) up() {
	buf := make([]byte, anyFrame)
	for {
		n, err := t.machine.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // the machine is off: nobody listens there
			continue
		}
		frame, ok := untag(buf[:n], t.vlan)
		if !ok {
			t.Untagged.Add(1)
			continue
		}
		t.Tagged.Add(1)
		_, _ = t.bridge.Write(frame) // a frame that cannot be sent is lost, as on any cable
	}
}

// down passes frames from the bridge on to the machine.
func (t *trunk) down() {
	buf := make([]byte, anyFrame)
	for {
		n, err := t.bridge.Read(buf[tagBytes:])
		if err != nil {
			return
		}
		_, _ = t.machine.Write(tag(buf[:tagBytes+n], t.vlan)) // as above
	}
}

// close ends both directions. A cable that was never laid has none.
func (t *trunk) close() {
	if t != nil && t.machine != nil {
		_ = errors.Join(t.machine.Close(), t.bridge.Close())
	}
}

// tag puts a tag into a frame that stands behind as many bytes of room.
func tag(room []byte, vlan uint16) []byte {
	copy(room, room[tagBytes:tagBytes+macs])
	binary.BigEndian.PutUint16(room[macs:], tagged)
	binary.BigEndian.PutUint16(room[macs+2:], vlan)
	return room
}

// untag takes the tag of a VLAN out of a frame, in place. Other frames are none of its.
func untag(frame []byte, vlan uint16) ([]byte, bool) {
	const id = 0x0fff // the rest is the priority
	if len(frame) < macs+tagBytes+2 || binary.BigEndian.Uint16(frame[macs:]) != tagged || binary.BigEndian.Uint16(frame[macs+2:])&id != vlan {
		return nil, false
	}
	copy(frame[tagBytes:], frame[:macs])
	return frame[tagBytes:], true
}
