package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

const wiredYAML = `hosts:
  - id: n1
    identity: {macs: [52:54:00:12:34:56, 52-54-00-12-34-57]}
    disk: {serial: D1}
    mirror: {serial: D2, sizeGB: 480}
    network:
      address: 10.0.0.21
      interfaces:
        - name: bond0
          bond: {mode: 802.3ad, members: [52:54:00:12:34:56, 52-54-00-12-34-57], miimon: 50}
          mtu: 9000
          addresses: [10.0.0.21/24, FD00:20::21/64]
          gateways: [10.0.0.1]
          nameservers: [10.0.0.2]
          search: [example.net]
        - {name: storage, vlan: {id: 20, link: bond0}, method: none}
`

// TestInventoryNetwork: what the file says of interfaces is the record's, in its one form; what is
// wrong has its line.
func TestInventoryNetwork(t *testing.T) {
	inv, _, err := api.ReadInventory("inv.yaml", []byte(wiredYAML))
	if err != nil {
		t.Fatal(err)
	}
	h, problems := inv.Hosts[0].Host()
	want := []lane.Interface{
		{Name: "bond0", Bond: &lane.Bond{Mode: "802.3ad", Members: []lane.MAC{"52:54:00:12:34:56", "52:54:00:12:34:57"}, MIIMon: 50}, MTU: 9000, Addresses: []string{"10.0.0.21/24", "fd00:20::21/64"},
			Gateways: []string{"10.0.0.1"}, Nameservers: []string{"10.0.0.2"}, Search: []string{"example.net"}},
		{Name: "storage", VLAN: &lane.VLAN{ID: 20, Link: "bond0"}, Method: lane.MethodNone},
	}
	if h.Mirror != (lane.DiskSelector{Serial: "D2", SizeGB: 480}) {
		t.Errorf("mirror %s", h.Mirror)
	}
	if diff := cmp.Diff(want, h.Network.Interfaces); diff != "" || len(problems) > 0 {
		t.Errorf("%v (-want +got):\n%s", problems, diff)
	}
	bad := strings.NewReplacer("id: 20", "id: 4095", "10.0.0.21/24", "10.0.0.21", "mtu:", "mtus:").Replace(wiredYAML)
	_, _, err = api.ReadInventory("inv.yaml", []byte(bad))
	for _, want := range []string{"inv.yaml:11", "mtus", "inv.yaml:12", "interfaces[0].addresses[0]", "inv.yaml:16", "interfaces[1].vlan.id: 4095 is no VLAN"} {
		if err == nil || !strings.Contains(strings.Join(err.(*lane.Error).Problems, "\n"), want) {
			t.Errorf("%v lacks %q", err.(*lane.Error).Problems, want)
		}
	}
}
