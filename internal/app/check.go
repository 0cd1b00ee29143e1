package app

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"bootlane/internal/lane"
)

// Check looks for what would keep a server with this configuration from
// starting, without opening a port or the database. All findings are returned.
func (c Config) Check() error {
	out := &lane.Error{Code: lane.Invalid, Message: "this configuration would not serve"}
	bad := func(format string, args ...any) { out.Problems = append(out.Problems, fmt.Sprintf(format, args...)) }
	ifi, err := net.InterfaceByName(c.DHCP.Interface)
	if err != nil {
		bad("dhcp.interface: %q does not exist; `ip -br link` shows those that do", c.DHCP.Interface)
	} else if addrs, err := ifi.Addrs(); err != nil || !slices.ContainsFunc(addrs, func(a net.Addr) bool {
		ip, _, err := net.ParseCIDR(a.String())
		return err == nil && ip.String() == c.DHCP.Server
	}) {
		bad("dhcp.server: %s is not an address of %s; it has %v: `ip address add %s dev %s`", c.DHCP.Server, c.DHCP.Interface, addrs, c.DHCP.Server, c.DHCP.Interface)
	}
	if st, err := os.Stat(c.Data); err == nil && !st.IsDir() {
		bad("data: %s is not a directory", c.Data)
	}
	if st, err := os.Stat(filepath.Join(c.Data, TokenFile)); err == nil && st.Mode().Perm()&0o077 != 0 {
		bad("data: %s can be read by others: chmod 600", filepath.Join(c.Data, TokenFile))
	}
	if len(out.Problems) > 0 {
		return out
	}
	return nil
}
