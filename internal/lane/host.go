package lane

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is where a machine's record stands.
type State string

// The states of a record.
const (
	StateNew          State = "new"          // known, never asked to install
	StateQuarantine   State = "quarantine"   // disputed or set aside: nothing destructive until an operator decides
	StateProvisioning State = "provisioning" // a run is open: the only state in which a disk may be written
	StateInstalled    State = "installed"    // first boot proved itself; network boots go to the disk
	StateFailed       State = "failed"       // the last run ended badly
	StateRetired      State = "retired"      // out of service; kept for its evidence
)

// States returns every state.
func States() []State {
	return []State{StateNew, StateQuarantine, StateProvisioning, StateInstalled, StateFailed, StateRetired}
}

// Stage is how far a run has come.
type Stage string

// The stages of a run, in order.
const (
	StageArmed       Stage = "armed"        // granted; the machine has not been heard of yet
	StageAddress     Stage = "address"      // its firmware asked for an address and was offered a loader
	StageLoader      Stage = "loader"       // the loader was fetched
	StageScript      Stage = "script"       // the loader fetched the install script: one boot of the grant is counted
	StageKernel      Stage = "kernel"       // the installer or agent runs and made its first report
	StageInstaller   Stage = "installer"    // it passed the identity and disk gates and works
	StageDiskWritten Stage = "disk-written" // the disk is written and verified: from here on, every boot is local
	StageFirstBoot   Stage = "first-boot"   // the installed system runs and reported
	StageReady       Stage = "ready"        // its checks passed: a host without a cluster is installed
	StageJoined      Stage = "joined"       // it is in its cluster: a host that has one is installed
)

// Stages returns every stage, in order.
func Stages() []Stage {
	return []Stage{StageArmed, StageAddress, StageLoader, StageScript, StageKernel, StageInstaller, StageDiskWritten, StageFirstBoot, StageReady, StageJoined}
}

func (s Stage) rank() int {
	for i, v := range Stages() {
		if v == s {
			return i
		}
	}
	return -1
}

// AtLeast reports whether s is t or a later stage. An unknown stage is before all others.
func (s Stage) AtLeast(t Stage) bool { return s.rank() >= t.rank() }

// Known reports whether s is one of [Stages].
func (s Stage) Known() bool { return s.rank() >= 0 }

// Host is the record of one machine.
type Host struct {
	ID       HostID            `json:"id"`
	State    State             `json:"state"`
	Rev      int64             `json:"rev"` // optimistic lock: grows by one with every change
	Identity Identity          `json:"identity"`
	Arch     Arch              `json:"arch"`
	Role     string            `json:"role,omitempty"`
	Hostname string            `json:"hostname"`
	Bundle   string            `json:"bundle,omitempty"` // what this host is meant to get: a bundle's NAME-VERSION, or an alias
	Disk     DiskSelector      `json:"disk,omitzero"`
	Mirror   DiskSelector      `json:"mirror,omitzero"` // the second disk, that everything is mirrored on; none: one disk
	Network  Network           `json:"network,omitzero"`
	Boot     BootOptions       `json:"boot,omitzero"`
	Install  InstallOptions    `json:"install,omitzero"` // what it gets that differs from its role and the site
	Labels   map[string]string `json:"labels,omitempty"`

	Run     Run       `json:"run,omitzero"`      // the open run, or the last one
	Note    string    `json:"note,omitempty"`    // why the record is in its state
	Dispute []Signal  `json:"dispute,omitempty"` // both sides, while in quarantine for its identity
	Seen    *Facts    `json:"seen,omitempty"`    // what the disputing machine said: what `accept` would record
	Resume  State     `json:"resume,omitempty"`  // state to return to when quarantine ends
	Changed time.Time `json:"changed"`           // when the state last changed
	Inspect time.Time `json:"inspect,omitzero"`  // until when a network boot has it looked at, as an operator asked
	Join    *Join     `json:"join,omitempty"`    // its way into its cluster, of this run or the last one that joined

	// Wipe lists further disks, which an install clears.
	Wipe []DiskSelector `json:"wipe,omitempty"`
}

// BootOptions are what one machine's firmware, or one class of clients, needs
// differently from the rest. The zero value asks for nothing.
type BootOptions struct {
	// Loader is the file name of a configured boot loader that is not its platform's
	// first: snponly.efi drives NICs through the firmware, ipxe.efi has drivers of its own.
	Loader string `json:"loader,omitempty" yaml:"loader,omitempty"`
	// LocalBoot is how iPXE leaves for the disk: LocalBootExit, LocalBootExit1 or
	// LocalBootSAN; empty: as is right for the platform.
	LocalBoot string `json:"localBoot,omitempty" yaml:"localBoot,omitempty"`
	// Silent tells firmware that is to boot its disk nothing, and lets it give up by
	// itself: some firmware cannot take a menu, or a URL that is refused.
	Silent bool `json:"silent,omitempty" yaml:"silent,omitempty"`
	// Redirect4011 makes a proxy name the boot file on port 4011 only: firmware from
	// before 2016 forgets the offer by which it came.
	Redirect4011 bool `json:"redirect4011,omitempty" yaml:"redirect4011,omitempty"`
	// SecureBoot says that the firmware takes signed code only, and whose: one of
	// SecureBoots. A chain that does not hold is refused before the machine is switched on.
	SecureBoot string `json:"secureBoot,omitempty" yaml:"secureBoot,omitempty"`
	// NoPXEOptions leaves out options 60 and 43: the boot file alone.
	NoPXEOptions bool `json:"noPXEOptions,omitempty" yaml:"noPXEOptions,omitempty"`
	// VLAN is the IEEE 802.1Q id by which the machine itself tags its frames in the boot
	// network, 1 to 4094: what runs in RAM must tag as its firmware does. 0: it does not,
	// for its switch port does it, or nobody.
	VLAN uint16 `json:"vlan,omitempty" yaml:"vlan,omitempty"`
}

// maxVLAN is the highest id that a VLAN can have; 4095 is reserved (IEEE 802.1Q, 9.6).
const maxVLAN = 4094

// The ways in which iPXE can leave for the disk.
const (
	LocalBootExit  = "exit"    // back to the firmware, as if nothing was wrong
	LocalBootExit1 = "exit-1"  // back to the firmware, which goes on with its next boot option
	LocalBootSAN   = "sanboot" // start the first BIOS disk
)

// SecureBootSite is firmware with the site's own keys.
const SecureBootSite = "site"

// SecureBoots returns what firmware with Secure Boot can trust: Microsoft's certificate
// authority for other vendors, of 2011, of 2023 or both, or the site's own keys.
func SecureBoots() []string {
	return []string{"microsoft-2011", "microsoft-2023", "both", SecureBootSite}
}

// Problems says what is wrong with the options. Whether the loader is configured is not
// looked at.
func (o BootOptions) Problems() (out []Problem) {
	if o.Loader != "" && !FileName(o.Loader) {
		out = append(out, Problem{"loader", fmt.Sprintf("%q is not a plain file name", o.Loader)})
	}
	switch o.LocalBoot {
	case "", LocalBootExit, LocalBootExit1, LocalBootSAN:
	default:
		out = append(out, Problem{"localBoot", fmt.Sprintf("%q: use %s, %s or %s", o.LocalBoot, LocalBootExit, LocalBootExit1, LocalBootSAN)})
	}
	if o.SecureBoot != "" && !slices.Contains(SecureBoots(), o.SecureBoot) {
		out = append(out, Problem{"secureBoot", fmt.Sprintf("%q: say whom the firmware trusts, %s", o.SecureBoot, strings.Join(SecureBoots(), ", "))})
	}
	if o.VLAN > maxVLAN {
		out = append(out, Problem{"vlan", fmt.Sprintf("%d is no VLAN: 1 to %d, or 0 where the machine does not tag", o.VLAN, maxVLAN)})
	}
	return out
}

// String lists what the options ask for.
func (o BootOptions) String() string {
	var out []string
	for _, s := range []struct {
		set  bool
		text string
	}{{o.Loader != "", "loader " + o.Loader}, {o.LocalBoot != "", "localBoot " + o.LocalBoot}, {o.Silent, "silent"}, {o.Redirect4011, "redirect4011"}, {o.NoPXEOptions, "noPXEOptions"}, {o.SecureBoot != "", "secureBoot " + o.SecureBoot}, {o.VLAN != 0, fmt.Sprintf("vlan %d", o.VLAN)}} {
		if s.set {
			out = append(out, s.text)
		}
	}
	return strings.Join(out, ", ")
}

// Or returns o with what it does not say taken from other.
func (o BootOptions) Or(other BootOptions) BootOptions {
	return BootOptions{Loader: cmp.Or(o.Loader, other.Loader), LocalBoot: cmp.Or(o.LocalBoot, other.LocalBoot), Silent: o.Silent || other.Silent,
		Redirect4011: o.Redirect4011 || other.Redirect4011, NoPXEOptions: o.NoPXEOptions || other.NoPXEOptions, SecureBoot: cmp.Or(o.SecureBoot, other.SecureBoot), VLAN: cmp.Or(o.VLAN, other.VLAN)}
}

// Run is one authorised attempt to install one bundle on one host: the grant,
// and how far it has come.
type Run struct {
	ID         RunID         `json:"id"`
	Open       bool          `json:"open"`
	Outcome    string        `json:"outcome,omitempty"` // once closed: ready, joined, failed, cancelled, expired
	By         string        `json:"by"`                // who asked for it
	Bundle     Digest        `json:"bundle"`            // exactly these bytes
	BundleName string        `json:"bundleName"`
	Disk       DiskSelector  `json:"disk"`              // exactly this disk
	Mirror     DiskSelector  `json:"mirror,omitzero"`   // and this one; none: one disk
	Cluster    string        `json:"cluster,omitempty"` // that the machine joins once it is ready
	Armed      time.Time     `json:"armed"`
	Deadline   time.Time     `json:"deadline"`
	Boots      int           `json:"boots"`             // network boots granted
	BootsUsed  int           `json:"bootsUsed"`         // network boots counted
	From       State         `json:"from,omitempty"`    // the record's state before the run
	LastBoot   time.Time     `json:"lastBoot,omitzero"` // when the last one was counted
	Stage      Stage         `json:"stage"`
	StageAt    time.Time     `json:"stageAt"`
	Ended      time.Time     `json:"ended,omitzero"`    // when the run was closed
	Reports    map[Stage]int `json:"reports,omitempty"` // highest report sequence seen, per stage
	Done       int64         `json:"done,omitempty"`    // bytes, of the stage's progress
	Total      int64         `json:"total,omitempty"`
	// Capability is the unguessable path element of this run's URLs. It never
	// leaves the server but in what the run's own machine is given.
	Capability string `json:"capability,omitempty"`
	// Peer is the network address that the script of the last counted boot was asked from, and NICs
	// those of that machine that the record does not have.
	Peer string `json:"peer,omitempty"`
	// MachineID is the /etc/machine-id that first boot found. Two machines with one share an image that carries it.
	MachineID string `json:"machineID,omitempty"`
	NICs      []MAC  `json:"nics,omitempty"`
	// Quiet is how long the run may show no progress, Stages where a stage has a time of its own;
	// Limit is when it ends whatever it shows. Without a Limit the deadline stands, as it did once.
	Quiet  time.Duration           `json:"quiet,omitempty"`
	Stages map[Stage]time.Duration `json:"stages,omitempty"`
	Limit  time.Time               `json:"limit,omitzero"`
	// Delivered is when the machine was given the configuration by which it installs itself; zero: not, or
	// its system is another one than Talos.
	Delivered time.Time `json:"delivered,omitzero"`
	// Wipe is exactly which further disks are cleared.
	Wipe []DiskSelector `json:"wipe,omitempty"`
}

// progressed gives the run's stage its time anew, up to the limit.
func (r *Run) progressed(now time.Time) {
	if r.Limit.IsZero() {
		return
	}
	quiet := r.Quiet
	if own, ok := r.Stages[r.Stage]; ok {
		quiet = own
	}
	if r.Deadline = now.Add(quiet); r.Deadline.After(r.Limit) {
		r.Deadline = r.Limit
	}
}

// Last returns the stage that closes the run well.
func (r Run) Last() Stage {
	if r.Cluster != "" {
		return StageJoined
	}
	return StageReady
}

// Succeeded reports whether the run is closed, and has installed the machine.
func (r Run) Succeeded() bool { return !r.Open && r.Outcome == string(r.Last()) }

// bootLeft reports whether one more network boot fits into the grant, or the
// last counted one is so recent that this is the same boot asking again.
func (r Run) bootLeft(now time.Time, p Policy) bool {
	return r.BootsUsed < r.Boots || r.sameBoot(now, p)
}

func (r Run) sameBoot(now time.Time, p Policy) bool {
	return r.BootsUsed > 0 && !now.Before(r.LastBoot) && now.Sub(r.LastBoot) < p.RetryWindow() && r.Stage == StageScript
}
