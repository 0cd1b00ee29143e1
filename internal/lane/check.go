package lane

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Check is one thing that first boot looked at on the installed system.
type Check struct {
	Name     string `json:"name"`
	Status   string `json:"status"`             // CheckOK, CheckFailed or CheckSkipped
	Expected string `json:"expected,omitempty"` // what the inventory and the configuration say
	Actual   string `json:"actual,omitempty"`   // what the machine has, or why nobody looked
}

// The states of a Check.
const (
	CheckOK      = "ok"
	CheckFailed  = "failed"
	CheckSkipped = "skipped" // nothing is asked of this system there
)

// The checks that first boot makes. [CheckDocs] describes each one.
const (
	CheckIdentity  = "identity"
	CheckDisk      = "disk"
	CheckMachineID = "machine-id"
	CheckHostname  = "hostname"
	CheckTime      = "time"
	CheckNetwork   = "network"
	CheckAccount   = "account"
	CheckSSH       = "ssh"
	CheckModules   = "modules"
	CheckSysctls   = "sysctls"
	CheckCgroup    = "cgroup"
	CheckSwap      = "swap"
	CheckRuntime   = "runtime"
	CheckEndpoint  = "endpoint"
	CheckScripts   = "scripts"
)

// CheckDoc describes one check for people.
type CheckDoc struct {
	Name string
	What string // what is looked at
	Mend string // what to do when it fails
}

// CheckDocs returns every check, in the order in which first boot makes them.
func CheckDocs() []CheckDoc {
	return []CheckDoc{
		{CheckIdentity, "UUID, serial number and a MAC are those of the record", "this is another machine than the record means, or its board was replaced: compare both, correct the inventory, or put the disk back where it belongs"},
		{CheckDisk, "the root file system lies on the one disk that the record selects", "the machine boots another disk: look at the firmware's boot order, and for an older system on another disk; or correct `disk` in the inventory"},
		{CheckMachineID, "/etc/machine-id is one of its own, and stays", "empty /etc/machine-id in the image, or run `systemd-machine-id-setup --commit` where its directory was read-only at boot"},
		{CheckHostname, "the running name and /etc/hostname are the record's", "something on the system sets another name: cloud-init without `preserve_hostname`, a first-boot script, or DHCP where /etc/hostname is empty"},
		{CheckTime, "the clock is synchronised; where the site names no time server, within 5 s of Bootlane's is as good", "is the time server in `ntp` reachable from the machine, and does a client run (`timedatectl timesync-status`, `chronyc sources`)? Else look at the firmware's clock"},
		{CheckNetwork, "the record's address is on the machine; where it has none, there is any", "`ip addr` on the machine: is it the network that the record means, and does the system ask DHCP on that NIC? Else correct `network.address`"},
		{CheckAccount, "the site's administrator exists", "look for what useradd said in `journalctl -u bootlane-firstboot`"},
		{CheckSSH, "a server for SSH that is enabled runs", "`systemctl status ssh` on the machine's console"},
		{CheckModules, "the kernel modules of `modules` are loaded, or built in", "does the kernel of this bundle have them (`modinfo NAME`)? A cloud kernel lacks many: build the bundle with another, or correct `modules`"},
		{CheckSysctls, "the settings of `sysctls` are in force", "a file in /etc/sysctl.d that comes after 90-bootlane.conf says otherwise, or the module that has the setting is not loaded"},
		{CheckCgroup, "cgroup v2 is mounted", "boot with `systemd.unified_cgroup_hierarchy=1`, or take a system that has it by default: the kubelet refuses version 1"},
		{CheckSwap, "no swap is in use", "`swapon --show` on the machine; a swap partition that is found by itself goes away with `systemctl mask`"},
		{CheckRuntime, "the container runtime runs, answers, uses systemd's cgroups, and its CRI plugin is on", "`systemctl status containerd`, then /etc/containerd/config.toml: `SystemdCgroup = true`, and no \"cri\" in `disabled_plugins`"},
		{CheckEndpoint, "the cluster's endpoint answers TLS with the pinned key", "can the machine reach it (route, firewall, DNS)? If it answers with another key, somebody stands between, or the pin is out of date"},
		{CheckScripts, "the bundle's first-boot scripts succeeded", "`journalctl -u bootlane-firstboot` on the machine has what the script printed; mend it, and give the bundle a new version"},
	}
}

// MendOf says what to do about a failed check.
func MendOf(name string) string {
	for _, d := range CheckDocs() {
		if d.Name == name {
			return d.Mend
		}
	}
	return "`journalctl -u bootlane-firstboot` on the machine says more"
}

// FirstBoot is what a machine last reported of its first boot.
type FirstBoot struct {
	Host   HostID    `json:"host"`
	Run    RunID     `json:"run,omitempty"`
	Stage  Stage     `json:"stage,omitempty"` // that the run has reached
	At     time.Time `json:"at,omitzero"`     // of the report; zero: there was none in this run
	Note   string    `json:"note,omitempty"`  // why there is no list
	Failed int       `json:"failed"`          // how many of the checks
	Checks []Check   `json:"checks"`
}

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// MachineID returns the machine-id that first boot found, and how records are found that have
// it too. Empty: it did not look, or found none.
func (r Report) MachineID() (id, claim string) {
	for _, c := range r.Checks {
		if c.Name == CheckMachineID && c.Status == CheckOK && machineID.MatchString(c.Actual) {
			return c.Actual, machineClaim(c.Actual)
		}
	}
	return "", ""
}

// Cloned returns the report as a failure, where its machine has the machine-id of one of the
// others: an image that carries one gives it to all, and their DHCP leases, logs and node
// identities run together.
func (r Report) Cloned(h Host, others []Host) Report {
	id, _ := r.MachineID()
	for _, o := range others {
		if o.ID == h.ID || o.State == StateRetired || o.Run.MachineID != id || id == "" {
			continue
		}
		r.Status, r.Message = StatusFailed, fmt.Sprintf("first boot: %s: expected one of its own, it is %s, which is that of %s too", CheckMachineID, id, o.ID)
		r.Checks = slices.Clone(r.Checks)
		for i, c := range r.Checks {
			if c.Name == CheckMachineID {
				r.Checks[i].Status, r.Checks[i].Actual = CheckFailed, id+", as "+string(o.ID)+" has it"
			}
		}
		break
	}
	return r
}

// FailedChecks returns those that failed.
func FailedChecks(list []Check) []Check {
	return slices.DeleteFunc(slices.Clone(list), func(c Check) bool { return c.Status != CheckFailed })
}

// String returns the check on one line.
func (c Check) String() string {
	switch c.Status {
	case CheckOK:
		return c.Name + ": " + c.Actual
	case CheckSkipped:
		return c.Name + ": skipped, " + c.Actual
	}
	return c.Name + ": expected " + orDash(c.Expected) + ", it is " + orDash(c.Actual)
}

// Limits of a list of checks. The texts are the machine's.
const (
	maxChecks    = 40
	maxCheckText = 240
)

// ParseChecks reads the list that first boot sends and keeps: a line each, NAME, STATUS,
// EXPECTED and ACTUAL with tabs between.
func ParseChecks(text string) ([]Check, error) {
	if text == "" {
		return nil, nil
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) > maxChecks {
		return nil, Errorf(Invalid, "checks: %d lines are given, %d are the limit", len(lines), maxChecks)
	}
	var out []Check
	for n, l := range lines {
		f := strings.Split(l, "\t")
		if len(f) != 4 || !bundleRef.MatchString(f[0]) || len(f[0]) > 32 {
			return nil, Errorf(Invalid, "checks: line %d is not NAME, STATUS, EXPECTED and ACTUAL with tabs between", n+1)
		}
		if !slices.Contains([]string{CheckOK, CheckFailed, CheckSkipped}, f[1]) {
			return nil, Errorf(Invalid, "checks: line %d: the status %q is none of ok, failed, skipped", n+1, Clean(f[1], 40))
		}
		if slices.ContainsFunc(out, func(c Check) bool { return c.Name == f[0] }) {
			return nil, Errorf(Invalid, "checks: %s stands twice", f[0])
		}
		out = append(out, Check{f[0], f[1], Clean(f[2], maxCheckText), Clean(f[3], maxCheckText)})
	}
	return out, nil
}
