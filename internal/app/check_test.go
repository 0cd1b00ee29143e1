package app_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"bootlane/internal/app"
	"bootlane/internal/nettest"
)

// TestServerAddress: an address without a way back to the machines is no server's; a
// service address beside one that has it, is.
func TestServerAddress(t *testing.T) {
	link, err := netlink.LinkByName(nettest.ServerInterface)
	must(t, err)
	config := func() app.Config {
		return app.Config{Data: t.TempDir(), Networks: []app.Network{{Interface: nettest.ServerInterface, Server: "10.9.9.1", Subnet: "10.9.9.0/24"}}}
	}
	give := func(text string) {
		a, err := netlink.ParseAddr(text)
		must(t, err)
		must(t, netlink.AddrAdd(link, a))
		t.Cleanup(func() { must(t, netlink.AddrDel(link, a)) })
	}
	problem := func(want string) {
		t.Helper()
		if err := config().Check(); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	problem("10.9.9.1 is not an address of " + nettest.ServerInterface)
	give("10.9.9.1/32")
	problem("10.9.9.1 stands on " + nettest.ServerInterface + " with /32")
	give("10.9.9.2/24")
	if err := config().Check(); err != nil {
		t.Errorf("a service address beside the interface's own: %v", err)
	}
}
