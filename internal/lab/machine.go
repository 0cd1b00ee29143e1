package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"bootlane/internal/lane"
)

// Disk is one virtual disk.
type Disk struct {
	Serial string
	Bytes  int64
	// BootSector, when set, makes the blank disk one that a BIOS starts: it prints
	// this text on the serial line and halts.
	BootSector string
}

// Machine is one virtual server. It is blank but for what it says of itself.
type Machine struct {
	Name     string
	UUID     lane.UUID
	MAC      lane.MAC
	Serial   string
	Asset    string
	Firmware lane.Firmware
	Disks    []Disk

	lab    *Lab
	number int
	proc   *process
	mark   int // offset in the serial log from which waits look
}

// Files of the firmware, where Debian's packages put them.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

func (m *Machine) file(name string) string {
	return filepath.Join(m.lab.dir, m.Name+"-"+name)
}

// DiskFile returns the path of disk i.
func (m *Machine) DiskFile(i int) string { return m.file(fmt.Sprintf("disk%d.raw", i)) }

// start makes the machine's disks if need be, and powers it on.
func (m *Machine) start(ctx context.Context) error {
	tap := fmt.Sprintf("tap%d", m.number)
	if m.proc == nil {
		if err := m.make(ctx, tap); err != nil {
			return err
		}
	}
	p, err := m.lab.spawn(ctx, m.file("qemu.log"), "qemu-system-x86_64", m.arguments(tap)...)
	if err != nil {
		return err
	}
	m.proc = p
	return nil
}

// make creates what outlives a power cycle: disks, firmware variables, the cable.
func (m *Machine) make(ctx context.Context, tap string) error {
	for i, d := range m.Disks {
		if err := makeDisk(m.DiskFile(i), d); err != nil {
			return err
		}
	}
	if m.Firmware == lane.UEFI {
		vars, err := os.ReadFile(ovmfVars)
		if err != nil {
			return fmt.Errorf("read the firmware (Debian package ovmf): %w", err)
		}
		if err := os.WriteFile(m.file("vars.fd"), vars, 0o600); err != nil {
			return fmt.Errorf("write firmware variables: %w", err)
		}
	}
	for _, args := range [][]string{{"tuntap", "add", tap, "mode", "tap"}, {"link", "set", tap, "master", bridge, "up"}} {
		if err := m.lab.ip(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func makeDisk(path string, d Disk) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create a disk: %w", err)
	}
	err = f.Truncate(d.Bytes)
	if d.BootSector != "" {
		_, werr := f.WriteAt(bootSector(d.BootSector), 0)
		err = errors.Join(err, werr)
	}
	return errors.Join(err, f.Close())
}

// bootSector returns a master boot record whose code prints text, byte by byte,
// on the first serial port, and halts.
func bootSector(text string) []byte {
	b := make([]byte, 512)
	code := []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x40, 0x7c, // mov si, 0x7c40: the text
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x11, // jz halt
		0x88, 0xc4, // mov ah, al
		0xba, 0xfd, 0x03, // mov dx, 0x3fd: line status
		0xec,       // wait: in al, dx
		0xa8, 0x20, // test al, 0x20: transmitter empty
		0x74, 0xfb, // jz wait
		0x88, 0xe0, // mov al, ah
		0xb2, 0xf8, // mov dl, 0xf8: data
		0xee,       // out dx, al
		0xeb, 0xea, // jmp next
		0xf4,       // halt: hlt
		0xeb, 0xfd, // jmp halt
	}
	copy(b, code)
	copy(b[0x40:], text+"\r\n")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// arguments returns the command line of QEMU. The NIC boots first: what happens
// then is up to the server.
func (m *Machine) arguments(tap string) []string {
	args := []string{"-name", m.Name, "-machine", "q35,accel=tcg,graphics=off", "-cpu", "max", "-smp", "1", "-m", "1024", "-display", "none", "-no-user-config", "-nodefaults",
		"-serial", "file:" + m.file("serial.log"), "-qmp", "unix:" + m.file("qmp") + ",server=on,wait=off",
		"-uuid", string(m.UUID), "-smbios", "type=1,manufacturer=Bootlane,product=Lab,serial=" + m.Serial + ",uuid=" + string(m.UUID),
		"-netdev", "tap,id=net0,ifname=" + tap + ",script=no,downscript=no"}
	if m.Asset != "" {
		args = append(args, "-smbios", "type=3,asset="+m.Asset)
	}
	nic := "virtio-net-pci,netdev=net0,bootindex=1,mac=" + string(m.MAC)
	if m.Firmware == lane.UEFI {
		// Without romfile= QEMU gives the NIC an iPXE of its own, and the firmware's PXE is never tried.
		nic += ",romfile="
		args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+ovmfCode, "-drive", "if=pflash,format=raw,file="+m.file("vars.fd"),
			"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
	}
	args = append(args, "-device", nic)
	for i, d := range m.Disks {
		args = append(args, "-drive", fmt.Sprintf("if=none,id=d%d,format=raw,cache=unsafe,file=%s", i, m.DiskFile(i)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=%s,bootindex=%d", i, d.Serial, 2+i))
	}
	return args
}

// cycle presses the reset button. Waits look at the serial line from here on.
func (m *Machine) cycle() error {
	m.mark = len(m.serial())
	return m.qmp("system_reset")
}

// stop pulls the plug.
func (m *Machine) stop() { m.proc.kill() }

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

// qmp sends one command to QEMU's monitor.
func (m *Machine) qmp(command string) error {
	conn, err := net.DialTimeout("unix", m.file("qmp"), 5*time.Second)
	if err != nil {
		return fmt.Errorf("reach the monitor of %s: %w", m.Name, err)
	}
	defer func() { _ = conn.Close() }() // one command, one connection
	if err := conn.SetDeadline(m.lab.now().Add(10 * time.Second)); err != nil {
		return fmt.Errorf("bound the monitor's answer: %w", err)
	}
	r := bufio.NewReader(conn)
	for _, c := range []string{"", "qmp_capabilities", command} {
		if c != "" {
			if err := json.NewEncoder(conn).Encode(map[string]string{"execute": c}); err != nil {
				return fmt.Errorf("tell the monitor %s: %w", c, err)
			}
		}
		if _, err := r.ReadString('\n'); err != nil {
			return fmt.Errorf("hear the monitor's answer to %q: %w", c, err)
		}
	}
	return nil
}

// process is a child that dies with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// spawn starts a program in the lab's namespace, with its output in a file.
func (l *Lab) spawn(ctx context.Context, log, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", log, err)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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

// kill ends the process with SIGKILL, and returns when it is gone.
func (p *process) kill() {
	if p == nil || p.ended() {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended in between
	<-p.done
}
