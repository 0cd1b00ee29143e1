// Package nettest runs tests in a network namespace of their own, so that they
// may own ports 67 and 69 and meet no other network. It is for tests only.
package nettest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// The network inside: a cable whose server end has an address, and whose client
// end belongs to whoever plays the machine.
const (
	ServerInterface = "srv0"
	ClientInterface = "cli0"
	Server          = "192.168.77.1"
	Server6         = "fd77::1"
)

const inside = "BOOTLANE_TEST_NETNS"

// testing.M, as far as Main needs it.
type runner interface{ Run() int }

// Main runs a test binary's tests in a new network namespace and returns the
// exit code: `func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }`.
func Main(m runner) int {
	if os.Getenv(inside) != "" {
		if err := network(); err != nil {
			fmt.Fprintln(os.Stderr, "nettest:", err)
			return 1
		}
		return m.Run()
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "nettest: a network namespace of its own needs root:", err)
		return 1
	}
	return 0
}

func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	// Nobody else is on the cable: no test waits for duplicate address detection.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644); err != nil {
		return fmt.Errorf("switch off duplicate address detection: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: ServerInterface}, PeerName: ClientInterface}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(veth)); err != nil {
		return fmt.Errorf("lay the cable: %w", err)
	}
	peer, err := netlink.LinkByName(ClientInterface)
	if err != nil {
		return fmt.Errorf("find the cable's other end: %w", err)
	}
	addr, err := netlink.ParseAddr(Server + "/24")
	if err != nil {
		return fmt.Errorf("parse the address: %w", err)
	}
	addr6, err := netlink.ParseAddr(Server6 + "/64")
	if err != nil {
		return fmt.Errorf("parse the address: %w", err)
	}
	// Both ends are ours, so each hears packets from an address of its own host.
	sysctl := os.WriteFile("/proc/sys/net/ipv4/conf/all/accept_local", []byte("1"), 0o644)
	filter := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0o644)
	return errors.Join(netlink.AddrAdd(veth, addr), netlink.AddrAdd(veth, addr6), netlink.LinkSetUp(veth), netlink.LinkSetUp(peer), sysctl, filter)
}

// Eventually waits until ok, for what the kernel or another process does without
// telling us. The bound is far above what a busy machine takes: only a failure
// ever waits for it.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 1500 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("not in time: %s", what)
}
