package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/uefi"
)

// Machine is one virtual server. It is blank but for what it says of itself.
type Machine struct {
	Name     string
	UUID     lane.UUID
	MACs     []lane.MAC // one NIC each; the first one boots
	Serial   string
	Asset    string
	Firmware lane.Firmware
	Disks    []Disk
	Boot     Way // how it boots by network
	Board    Board
	Loader   string // that its record asks for; empty: the first
	Install  lane.InstallOptions
	Typed    string // at its console, from the switch on
	VLAN     uint16 // that its firmware tags its frames with, and its switch port takes; 0: none
	TPM      string // what the state of its TPM 2.0 is called: another name is another TPM; empty: it has none. PCs only

	lab    *Lab
	number int
	place  place
	proc   *process
	chip   *process          // its TPM, while it is on
	on     time.Time         // when it was first switched on
	peers  map[string]string // the other DHCP servers at that time: their Debian packages, by address
	trunk  *trunk            // the cable of a machine that tags
	mark   int               // offset in the serial log from which waits look
}

// Way is a way to boot by network.
type Way string

// The ways to boot by network. Those other than PXE need UEFI.
const (
	PXE   Way = ""
	HTTP  Way = "http" // no PXE at all
	PXE6  Way = "pxe6"
	HTTP6 Way = "http6" // no PXE at all; OVMF tries HTTP over IPv4 first
)

// ipv6 reports whether the machine boots by IPv6.
func (w Way) ipv6() bool { return w == PXE6 || w == HTTP6 }

// place is where a machine stands. The zero place is at the server's own bridge.
type place struct {
	inside []string // the command that runs others in its namespace
	bridge string
	net    string // the first three numbers of its network
}

func (m *Machine) file(name string) string {
	return filepath.Join(m.lab.dir, m.Name+"-"+name)
}

// DiskFile returns the path of disk i.
func (m *Machine) DiskFile(i int) string { return m.file(fmt.Sprintf("disk%d.raw", i)) }

// subjects returns the names under which evidence about the machine is kept.
func (m *Machine) subjects() []string {
	out := []string{m.Name}
	for _, mac := range m.MACs {
		out = append(out, string(mac))
	}
	return out
}

// tap returns the name of the cable of NIC i.
func (m *Machine) tap(i int) string { return fmt.Sprintf("tap%d-%d", m.number, i) }

// madeUUID and madeMAC are what machine n is called by, when nobody says.
func madeUUID(n int) lane.UUID {
	return lane.UUID(fmt.Sprintf("6b0f3c%02x-52d1-4c8e-9a77-0242ac11%04x", n&0xff, n&0xffff))
}

func madeMAC(n int) lane.MAC {
	return lane.MAC(fmt.Sprintf("52:54:00:1a:%02x:%02x", 0xb0+n>>8&0x0f, n&0xff))
}

// startsWithin is how long an emulator takes to find that it cannot do what it is told.
const startsWithin = 300 * time.Millisecond

// start makes the machine's disks if need be, and powers it on. Waits look at the serial
// line from here on.
func (m *Machine) start(ctx context.Context) error {
	if m.proc == nil {
		if err := m.make(ctx); err != nil {
			return err
		}
	}
	if err := m.startTPM(ctx); err != nil {
		return err
	}
	m.mark = len(m.serial())
	command := slices.Concat(m.place.inside, m.lab.here(), []string{m.hardware().program}, m.arguments())
	p, err := m.lab.spawnTyped(m.Typed, m.file("qemu.log"), command[0], command[1:]...)
	if err != nil {
		return err
	}
	select {
	case <-p.done: // of a wrong argument: nothing of the machine would ever be heard
		return fmt.Errorf("%s did not come up: %s", m.Name, tail(m.file("qemu.log")))
	case <-time.After(startsWithin):
	}
	if m.proc = p; m.on.IsZero() {
		m.on, m.peers = m.lab.now(), maps.Clone(m.lab.peers)
	}
	return nil
}

// make creates what outlives a power cycle: disks, firmware variables, the cables.
func (m *Machine) make(ctx context.Context) error {
	for i, d := range m.Disks {
		if err := d.make(m.DiskFile(i)); err != nil {
			return err
		}
	}
	if hw := m.hardware(); hw.vars != "" {
		vars, err := os.ReadFile(hw.vars)
		if err != nil {
			return fmt.Errorf("read the firmware (Debian package %s): %w", hw.packages[0], err)
		}
		if m.VLAN != 0 {
			setting, err := vlanSetting(m.MACs[0], m.VLAN)
			if err != nil {
				return err
			}
			if vars, err = uefi.SetInStore(vars, setting); err != nil {
				return err
			}
		}
		if err := os.WriteFile(m.file("vars.fd"), vars, 0o600); err != nil {
			return fmt.Errorf("write firmware variables: %w", err)
		}
	}
	if m.VLAN != 0 {
		m.trunk = &trunk{vlan: m.VLAN}
		return m.trunk.join(ctx, m.tap(0), m.lab.site.Interface, trunkPort, trunkPort+1)
	}
	for i := range m.MACs {
		for _, args := range [][]string{{"tuntap", "add", m.tap(i), "mode", "tap"}, {"link", "set", m.tap(i), "master", cmp.Or(m.place.bridge, m.lab.site.Interface), "up"}} {
			if err := run(ctx, m.place.inside, "ip", args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// arguments returns the command line of QEMU. The first NIC boots first: what
// happens then is up to the server.
func (m *Machine) arguments() []string {
	smbios := "type=1,manufacturer=Bootlane,product=Lab,uuid=" + string(m.UUID)
	if m.Serial != "" {
		smbios += ",serial=" + escape(m.Serial)
	}
	console := "file,id=serial,append=on,path=" + escape(m.file("serial.log"))
	if m.Typed != "" { // it is the emulator's standard input
		console = "stdio,id=serial,signal=off,logappend=on,logfile=" + escape(m.file("serial.log"))
	}
	hw := m.hardware()
	args := append(hw.options, "-name", m.Name, "-smp", "1", "-m", "1024", "-display", "none", "-no-user-config", "-nodefaults",
		"-chardev", console, "-serial", "chardev:serial",
		"-uuid", string(m.UUID), "-smbios", smbios)
	if m.Asset != "" {
		args = append(args, "-smbios", "type=3,asset="+escape(m.Asset))
	}
	if hw.code != "" {
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+hw.code, "-drive", "if=pflash,format=raw,file="+escape(m.file("vars.fd")),
			"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string="+yes(m.Boot == PXE6))
		if m.Boot != PXE {
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n")
		}
	}
	for i, mac := range m.MACs {
		nic := fmt.Sprintf("%s,netdev=net%d,mac=%s", m.nic(), i, mac)
		if i == 0 {
			nic += ",bootindex=1"
		}
		if i > 0 || m.Firmware == lane.UEFI {
			// Without romfile= QEMU gives the NIC an iPXE of its own, and the firmware's PXE is never tried.
			nic += ",romfile="
		}
		cable := fmt.Sprintf("tap,id=net%d,ifname=%s,script=no,downscript=no", i, m.tap(i))
		if m.VLAN != 0 {
			cable = fmt.Sprintf("dgram,id=net%d,local.type=inet,local.host=127.0.0.1,local.port=%d,remote.type=inet,remote.host=127.0.0.1,remote.port=%d", i, trunkPort, trunkPort+1)
		}
		args = append(args, "-netdev", cable, "-device", nic)
	}
	for i, d := range m.Disks {
		args = append(args, d.arguments(i, m.DiskFile(i))...)
	}
	if m.TPM != "" {
		args = append(args, "-chardev", "socket,id=chip,path="+m.chipSocket(), "-tpmdev", "emulator,id=tpm,chardev=chip", "-device", "tpm-tis,tpmdev=tpm")
	}
	return args
}

func yes(v bool) string {
	if v {
		return "y"
	}
	return "n"
}

// escape doubles the commas, which separate QEMU's options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// cycle pulls the plug, and puts it back.
// QEMU's reset button is not that: a timer that the old system had armed in the processor
// keeps the new firmware waiting, for two minutes or for ever.
func (m *Machine) cycle(ctx context.Context) error {
	m.stop()
	return m.start(ctx)
}

// stop pulls the plug.
func (m *Machine) stop() {
	m.proc.kill()
	m.chip.kill()
}

// off reports whether the machine has powered itself off.
func (m *Machine) off() bool { return m.proc.ended() }

func (m *Machine) serial() string {
	b, err := os.ReadFile(m.file("serial.log"))
	if err != nil {
		return "" // not written yet
	}
	return string(b)
}

// ansi matches the terminal control sequences that firmware mixes into its text.
var ansi = regexp.MustCompile(`\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9])`)

// shows reports whether the serial line has shown a match since the last power cycle.
func (m *Machine) shows(pattern string) bool {
	s := m.serial()
	if m.mark < len(s) {
		s = s[m.mark:]
	} else {
		s = ""
	}
	return regexp.MustCompile(pattern).MatchString(ansi.ReplaceAllString(s, ""))
}

// process is a child that dies with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// spawn starts a program in the lab's namespace, with its output in a file. Close
// ends it, not a context: after Ctrl-C and after a deadline the server must still
// say what happened. For the same reason a terminal's Ctrl-C reaches only us.
func (l *Lab) spawn(log, name string, args ...string) (*process, error) {
	return l.spawnTyped("", log, name, args...)
}

// spawnTyped is the same with something to read on its standard input.
func (l *Lab) spawnTyped(typed, log, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", log, err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(typed), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), out.Close())
	}
	p := &process{cmd, make(chan struct{})}
	l.procs = append(l.procs, p)
	go func() {
		_ = cmd.Wait() // how a child ends is judged by what it did before
		closeQuietly(out)
		close(p.done)
	}()
	return p, nil
}

func closeQuietly(c io.Closer) { _ = c.Close() } // a log file of a process that is gone

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process with SIGKILL, and returns when it is gone. The group is its own, and
// has the children of a server that hands each connection to one.
func (p *process) kill() {
	if p == nil || p.ended() {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended in between
	<-p.done
}
