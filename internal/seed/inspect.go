package seed

import (
	"fmt"
	"strings"

	"bootlane/internal/lane"
)

// InspectArgs returns the kernel arguments that lead the agent to where it tells what the
// machine is made of. base is the URL of its ticket, boot the NIC that asked. Unlike those of
// [KernelArgs] they name no run: this agent asks for no order, and could be given none.
func InspectArgs(b lane.Bundle, base string, boot lane.MAC, vlan uint16) string {
	args := "bootlane.inspect=" + base
	if boot != "" {
		args += " BOOTIF=01-" + boot.Hyphens()
	}
	if vlan != 0 {
		args = fmt.Sprintf("bootlane.vlan=%d %s", vlan, args)
	}
	own, _ := b.KernelArgs(base) // what leads nowhere was refused when the bundle came in
	return strings.Join(strings.Fields(args+" "+own), " ")
}
