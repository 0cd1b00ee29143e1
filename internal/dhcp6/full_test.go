package dhcp6

import (
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// TestFullIsTold: that a network is full is a matter of the log too, once a minute; that
// it has no range is not.
func TestFullIsTold(t *testing.T) {
	r := newRig(t)
	var log strings.Builder
	r.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	told := func(want int) {
		t.Helper()
		if n := strings.Count(log.String(), "no address is free"); n != want {
			t.Errorf("it is told %d times, want %d: %s", n, want, log.String())
		}
	}
	n := r.scopes[0]
	size := 0
	for a := n.First; a.Compare(n.Last) <= 0; a = a.Next() {
		size++
	}
	for i := range size {
		r.say(nth(byte(i+1)).build(solicit, na(1)), nth(byte(i+1)).from)
	}
	told(0)
	for range 3 {
		r.expect(nth(100), nth(100).build(solicit, na(1)), "ADVERTISE NoAddrsAvail")
	}
	told(1)
	r.now = r.now.Add(time.Minute)
	for i := range size { // their offers still stand, or are made again
		r.say(nth(byte(i+1)).build(solicit, na(1)), nth(byte(i+1)).from)
	}
	r.expect(nth(101), nth(101).build(solicit, na(1)), "ADVERTISE NoAddrsAvail")
	told(2)
	r.now = r.now.Add(time.Minute)
	for i := range size {
		r.say(nth(byte(i+1)).build(solicit, na(1)), nth(byte(i+1)).from)
	}
	r.expect(nth(103), nth(103).build(renew, na(1)), "REPLY NoAddrsAvail")
	told(3)
	r.networks[0].First, r.networks[0].Last = netip.Addr{}, netip.Addr{}
	r.restart()
	r.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	r.expect(nth(102), nth(102).build(solicit, na(1)), "ADVERTISE NoAddrsAvail")
	told(3)
}

// TestUnopened: what may not be opened has another cause than what is taken.
func TestUnopened(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{syscall.EPERM: "CAP_NET_RAW", syscall.EACCES: "CAP_NET_BIND_SERVICE", syscall.EADDRINUSE: "another DHCPv6 server"} {
		if err := unopened("eth0", os.NewSyscallError("bind", errno)); !strings.Contains(err.Error(), want) || lane.CodeOf(err) != lane.Unavailable {
			t.Errorf("%s: %v", errno, err)
		}
	}
}
