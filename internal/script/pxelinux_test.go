package script

import (
	"strings"
	"testing"

	"bootlane/internal/lane"
)

func TestPXELinux(t *testing.T) {
	in := install(lane.BIOS)
	for name, c := range map[string]struct{ got, want string }{
		"install": {string(PXELinuxInstall(in)), `# Bootlane: node-a.example.org installs debian-12-1 on node-a, run r-abc123, network boot 1 of 2
SAY Bootlane node-a.example.org installs debian-12-1 on node-a, run r-abc123, network boot 1 of 2
DEFAULT bootlane
PROMPT 0
LABEL bootlane
  KERNEL ` + in.KernelURL + `
  INITRD ` + in.InitrdURL + `
  APPEND ` + in.Args + "\n"},
		"local boot": {string(PXELinuxLocal(lane.Decision{Action: lane.LocalBoot, Reason: lane.HostInstalled, Detail: "node-a\nKERNEL evil"})), `# Bootlane: local-boot: host-installed: node-aKERNEL evil
SAY Bootlane local-boot: host-installed: node-aKERNEL evil
DEFAULT bootlane
PROMPT 0
LABEL bootlane
  LOCALBOOT -1
`},
	} {
		if c.got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, c.got, c.want)
		}
	}
}

// TestLocalBootOfItsOwn: a machine whose firmware does not go by its platform's rule.
func TestLocalBootOfItsOwn(t *testing.T) {
	d := lane.Decision{Action: lane.LocalBoot, Reason: lane.HostInstalled}
	for how, want := range map[string]string{lane.LocalBootExit: "\nexit\n", lane.LocalBootExit1: "\nexit 1\n", lane.LocalBootSAN: "\nsanboot --no-describe --drive 0x80 || exit 1\n", "": "\nexit 1\n"} {
		m := Machine{Facts: facts(lane.UEFI), Server: base, LocalBoot: how}
		for name, s := range map[string][]byte{"local boot": LocalBootScript(m, d), "hold": HoldScript(m, d, Hold{Then: "local-boot"}, base)} {
			if !strings.HasSuffix(string(s), want) {
				t.Errorf("%s by %q ends\n%s", name, how, s)
			}
			sound(t, "", s)
		}
	}
}
