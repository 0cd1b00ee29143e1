package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// relayedDHCP is a network behind a relay agent, and nothing else: the server has no
// interface in it.
const relayedDHCP = `  - interface: br0
    relays: [192.168.78.1]
    server: 192.168.77.1
    subnet: 192.168.78.0/24
    range: 192.168.78.100-192.168.78.199
    routers: [192.168.78.1]
    dns: [192.168.77.1]
    domain: lab.example`

// behindRouter makes a network of its own in another namespace, whose router stands at
// our bridge and passes DHCP on, with option 82.
func (l *Lab) behindRouter(ctx context.Context) (place, error) {
	inside, err := l.computer(ctx)
	if err != nil {
		return place{}, err
	}
	steps := []string{"link set lo up", "link add name lan0 type bridge forward_delay 0", "address add 192.168.78.1/24 dev lan0", "link set lan0 up"}
	for _, step := range steps {
		if err := run(ctx, inside, "ip", strings.Fields(step)...); err != nil {
			return place{}, err
		}
	}
	if err := run(ctx, inside, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"); err != nil {
		return place{}, err
	}
	if err := run(ctx, nil, "ip", "route", "add", "192.168.78.0/24", "via", neighbourAddr); err != nil {
		return place{}, err
	}
	command := append(slices.Clone(inside), "dhcrelay", "-4", "-d", "-a", "-id", "lan0", "-iu", l.site.Interface, serverAddr)
	agent, err := l.spawn(l.dir+"/dhcrelay.log", command[0], command[1:]...)
	if err != nil {
		return place{}, err
	}
	if err := l.pause(ctx, time.Second); err != nil { // it says nothing when it is ready
		return place{}, err
	}
	if agent.ended() {
		return place{}, fmt.Errorf("the relay agent ended (Debian package isc-dhcp-relay): %s", tail(l.dir+"/dhcrelay.log"))
	}
	return place{inside, "lan0", "192.168.78"}, nil
}

// relayed boots a machine in a network that is not ours, as far as its agent's first report.
func relayed(ctx context.Context, l *Lab) error {
	p, err := l.behindRouter(ctx)
	if err != nil {
		return err
	}
	m := l.machine("node-r", lane.UEFI, Disk{Serial: "SYSTEM-R", Bytes: 2 * gigabyte})
	m.place = p
	if err := l.ready(ctx, l.cfg.Image, m); err != nil {
		return err
	}
	if err := l.reachesAgent(ctx, m); err != nil {
		return err
	}
	events, err := l.client.Events(ctx, m.Name, 0, 5000)
	if err != nil {
		return err
	}
	for _, s := range []lane.Speaker{lane.SpeakerROM, lane.SpeakerLoader} {
		i := slices.IndexFunc(events, func(e lane.Event) bool {
			return e.Surface == lane.SurfaceDHCP && e.Speaker == s && e.Facts != nil && e.Facts.Relay.Address == "192.168.78.1"
		})
		if l.expect(i >= 0, "its %s asked by way of the relay agent", s); i >= 0 {
			l.expect(events[i].Facts.Relay.CircuitID == "lan0", "the agent says by which port: %+v", events[i].Facts.Relay)
		}
	}
	lease := fmt.Sprintf("leased 192.168.78.%d", 20+m.number)
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool { return e.Kind == lane.KindLease && e.Message == lease }), "%s has its reserved address: %s", m.Name, lease)
	l.expect(slices.ContainsFunc(events, func(e lane.Event) bool {
		return e.Surface == lane.SurfaceTFTP && e.Facts != nil && e.Facts.From == strings.TrimPrefix(lease, "leased ")
	}), "its firmware fetched the boot loader through the router")
	return nil
}
