package control

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

// Reserved returns the address that the inventory reserves for a NIC's host, or
// the zero Addr, and all NICs of that host.
func (c *Control) Reserved(ctx context.Context, m lane.MAC) (netip.Addr, []lane.MAC, error) {
	hosts, err := c.Store.Claimants(ctx, []string{"mac:" + string(m)})
	if err != nil {
		return netip.Addr{}, nil, err
	}
	hosts = slices.DeleteFunc(hosts, func(h lane.Host) bool { return h.State == lane.StateRetired })
	if len(hosts) != 1 {
		return netip.Addr{}, nil, nil // nobody's, or disputed: no reservation
	}
	return hosts[0].Network.Address, hosts[0].Identity.MACs, nil
}

// Holder reports whether the inventory reserves an address for any host.
func (c *Control) Holder(ctx context.Context, a netip.Addr) (bool, error) {
	hosts, err := c.Store.Claimants(ctx, []string{"address:" + a.String()})
	return slices.ContainsFunc(hosts, func(h lane.Host) bool { return h.State != lane.StateRetired }), err
}

// Reserved6 returns the IPv6 address that the inventory reserves for a machine, or the
// zero Addr, and all NICs of its host. The NIC that asks says who it is; where that is
// not known, the machine's UUID does.
func (c *Control) Reserved6(ctx context.Context, f lane.Facts) (netip.Addr, []lane.MAC, error) {
	hosts, err := c.speaker(ctx, f)
	if err != nil || len(hosts) != 1 {
		return netip.Addr{}, nil, err
	}
	return hosts[0].Network.Address6, hosts[0].Identity.MACs, nil
}

// speaker returns the records of whoever asks for an address: of the NIC, or where that
// is not known, of the machine's UUID.
func (c *Control) speaker(ctx context.Context, f lane.Facts) ([]lane.Host, error) {
	claim := lane.Facts{MAC: f.MAC}
	if f.MAC == "" {
		claim.UUID = f.UUID
	}
	hosts, err := c.Store.Claimants(ctx, claim.Keys())
	return slices.DeleteFunc(hosts, func(h lane.Host) bool { return h.State == lane.StateRetired }), err
}

// Holder6 reports whether the inventory reserves an IPv6 address for any host.
func (c *Control) Holder6(ctx context.Context, a netip.Addr) (bool, error) {
	hosts, err := c.Store.Claimants(ctx, []string{"address6:" + a.String()})
	return slices.ContainsFunc(hosts, func(h lane.Host) bool { return h.State != lane.StateRetired }), err
}

// Lease puts on record what became of an address, under the host that owns the
// NIC, or under the NIC itself.
func (c *Control) Lease(f lane.Facts, message, text string) {
	c.Store.Record(lane.Event{Subject: c.owner(f), At: c.Now(), Kind: lane.KindLease, By: "dhcp", Surface: f.Surface, Speaker: f.Speaker,
		Name: message, Message: text, Facts: &f})
}

// NoLease puts on record why a machine is left without an address.
func (c *Control) NoLease(f lane.Facts, message, text string) {
	c.Store.Record(lane.Event{Subject: c.owner(f), At: c.Now(), Kind: lane.KindRefused, By: "dhcp", Surface: f.Surface, Speaker: f.Speaker,
		Name: message, Message: text, Facts: &f})
}

// owner returns whose evidence this is: a host's, or the NIC's own. A store that does
// not answer makes it the NIC's: the line is not lost for that.
func (c *Control) owner(f lane.Facts) string {
	hosts, err := c.speaker(context.Background(), f)
	if err == nil && len(hosts) == 1 {
		return string(hosts[0].ID)
	}
	return lane.UnknownSubject(f.MAC)
}

// Leases returns up to limit leases of IPv4 and IPv6 behind an address as text, with the
// records of their machines.
func (c *Control) Leases(ctx context.Context, after string, limit int) ([]lane.LeaseOf, error) {
	list, err := c.Store.LeasesAfter(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	for i, l := range list {
		f := lane.Facts{MAC: l.MAC}
		if uuid, found := strings.CutPrefix(string(l.Client), "uuid:"); found {
			f.UUID = lane.UUID(uuid)
		}
		if owner := c.owner(f); !strings.HasPrefix(owner, "mac:") {
			list[i].Host = lane.HostID(owner)
		}
	}
	return list, nil
}

// Released puts on record that an operator took an address back.
func (c *Control) Released(ctx context.Context, l lane.Lease, by, why string) error {
	text := "released " + l.Address.String() + " for the machine"
	if why != "" {
		text += ": " + why
	}
	return c.Store.Witness(ctx, lane.Event{Subject: c.owner(lane.Facts{MAC: l.MAC}), At: c.Now(), Kind: lane.KindLease, By: by, Surface: lane.SurfaceAPI, Message: text, Facts: &lane.Facts{MAC: l.MAC}})
}
