package udp

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhole: a socket for both protocols makes fragments of neither.
func TestWhole(t *testing.T) {
	for _, tt := range []struct {
		addr      string
		whole     bool
		four, six int // what the kernel is to do; -1: the socket does not speak it
	}{
		{"127.0.0.1:0", true, unix.IP_PMTUDISC_DO, -1},
		{"[::1]:0", true, unix.IP_PMTUDISC_DO, unix.IPV6_PMTUDISC_DO},
		{":0", true, unix.IP_PMTUDISC_DO, unix.IPV6_PMTUDISC_DO},
		{":0", false, unix.IP_PMTUDISC_WANT, unix.IPV6_PMTUDISC_WANT},
	} {
		c, err := Listen(context.Background(), "udp", tt.addr, Options{Whole: tt.whole})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		four, six := -1, -1
		err = raw.Control(func(fd uintptr) {
			four, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
			if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER); err == nil {
				six = v
			}
		})
		if err != nil || four != tt.four || six != tt.six {
			t.Errorf("%s, %v: %d and %d, %v", tt.addr, tt.whole, four, six, err)
		}
	}
}
