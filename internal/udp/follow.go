package udp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// followEvery is how often an interface is looked at.
const followEvery = 2 * time.Second

// Follow keeps a socket tied to the interface that has the name, until ctx ends. The
// kernel ties it to an index, and an interface that is deleted and made anew, as those of
// containers, VLANs and bridges are, has another one: the socket hears nothing any more,
// and no error tells. index is the one that it is tied to, and tie ties it to another.
func Follow(ctx context.Context, socket syscall.Conn, name string, index int, log *slog.Logger, tie func(fd, index int) error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return // closed
	}
	t := time.NewTicker(followEvery)
	defer t.Stop()
	there, told := true, ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now, tied := 0, false
		closed := raw.Control(func(fd uintptr) {
			now = indexOf(int(fd), name)
			if tied = now != 0 && (now != index || !there); tied {
				err = tie(int(fd), now)
			}
		})
		switch {
		case closed != nil:
			return
		case now == 0 && there:
			there = false
			log.Warn("the interface is gone: nothing is heard until it is back", "interface", name)
		case tied && err == nil:
			index, there, told = now, true, ""
			log.Warn("the interface was made anew: it is listened to again", "interface", name)
		case tied && err.Error() != told:
			told = err.Error()
			log.Error("the interface was made anew, and cannot be listened to: bootlane needs root or CAP_NET_RAW; else start it again", "interface", name, "err", err)
		}
	}
}

// indexOf returns the index of an interface in the network namespace of a socket, which
// need not be that of the thread; 0 when there is none of the name.
func indexOf(fd int, name string) int {
	r, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r) != nil {
		return 0
	}
	return int(r.Uint32())
}

// follow is Follow for a socket of ours.
func (c *Conn) follow(ctx context.Context) {
	if c.options.Device == "" {
		return
	}
	Follow(ctx, c, c.options.Device, c.index, c.options.Log, func(fd, index int) error {
		err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, c.options.Device)
		for i := range c.groups {
			g := &c.groups[i]
			_ = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, g) // of an interface that is gone
			g.Interface = uint32(index)
			err = errors.Join(err, unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, g))
		}
		return err
	})
}

// TieFrames ties a packet socket to an interface, and returns the interface's address.
func TieFrames(fd, index, protocol int) (net.HardwareAddr, error) {
	network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, uint16(protocol)))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: index}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	link, ok := at.(*unix.SockaddrLinklayer)
	if !ok {
		return nil, errors.New("no packet socket")
	}
	return link.Addr[:min(int(link.Halen), len(link.Addr))], nil
}

// SendFrame sends a whole frame by the interface that a packet socket is tied to now.
func SendFrame(socket syscall.Conn, frame []byte) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		_, sent = unix.Write(int(fd), frame)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}
