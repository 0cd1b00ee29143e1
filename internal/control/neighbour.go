package control

import "bootlane/internal/lane"

// Foreign puts another server on record, under the network that it answers on.
func (c *Control) Foreign(r lane.Responder) {
	c.Store.Record(lane.Event{Subject: lane.NetSubject(r.Interface), At: c.Now(), Kind: lane.KindForeign, By: "observer", Surface: lane.SurfaceDHCP,
		Action: r.Finding(), Name: r.Server, Message: lane.Clean(r.String(), 1000)})
}

// Lost puts on record, under the machine itself, that it took another server's offer.
func (c *Control) Lost(m lane.MAC, iface, server string) {
	c.Store.Record(lane.Event{Subject: c.owner(lane.Facts{MAC: m}), At: c.Now(), Kind: lane.KindForeign, By: "observer", Surface: lane.SurfaceDHCP, Name: server,
		Message: "it took the offer of another DHCP server, " + lane.Clean(server, 100) + ", on " + iface, Facts: &lane.Facts{Surface: lane.SurfaceDHCP, MAC: m}})
}
