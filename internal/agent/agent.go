// Package agent is what runs in RAM on a machine that is to be installed: it
// says what the machine is made of, asks the server for an order, writes the
// ordered image to the one ordered disk, proves what it wrote, and reports.
//
// It never decides that a disk may be written: the server does, and the agent
// checks every word of the order against the machine it stands on. Whatever is
// in doubt, before or after, ends in a report and a power-off, and a disk that
// was begun and not finished is left unable to boot.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"bootlane/internal/lane"
)

// Machine is the hardware and the kernel below the agent. The real one is
// [NewMachine]; tests use temporary files.
type Machine interface {
	// Prepare mounts what the kernel offers, brings up the consoles and loads
	// the drivers of every device found.
	Prepare(log *Log) error
	// CommandLine returns the kernel command line.
	CommandLine() (string, error)
	// Connect gets the machine an address from which it can speak to the server,
	// through the NIC that the firmware booted from if it can, and returns the NIC
	// it got it through.
	Connect(ctx context.Context, p Params, log *Log) (lane.MAC, error)
	// Hardware reads anew what the machine is made of.
	Hardware() (lane.Hardware, error)
	// SetClock sets the system clock.
	SetClock(t time.Time) error
	// ReadHead reads the first n bytes of a disk.
	ReadHead(d lane.Disk, n int) ([]byte, error)
	// OpenTPM opens the machine's TPM 2.0, which takes a command by a write and answers by a read.
	OpenTPM() (io.ReadWriteCloser, error)
	// OpenDisk opens a whole disk for nobody else to use. It is an error when
	// anything of the disk is in use.
	OpenDisk(d lane.Disk) (Target, error)
}

// Target is one whole disk, opened exclusively.
type Target interface {
	io.ReaderAt
	io.WriterAt
	// Size returns the capacity in bytes, SectorSize the logical sector size.
	Size() int64
	SectorSize() int
	// Partitions returns what the kernel has for the disk's partitions: start and length in bytes.
	Partitions() [][2]int64
	// Discard tells the disk that nothing on it is needed, where it can be told. What it reads
	// back then is not known.
	Discard() error
	// Zero makes a range of whole sectors read as zeros: by a word to the disk where it
	// understands one, else by writing them.
	Zero(off, n int64) error
	// Sync returns when all that was written is on the medium.
	Sync() error
	// Forget drops every cached byte, so that the next read asks the medium.
	Forget() error
	// Mount mounts the ext4 file system in a byte range of the disk, whether or
	// not a partition table names it, and returns where. Unmount undoes it.
	Mount(at, size int64) (dir string, err error)
	Unmount() error
	Close() error
}

// Config is what the agent needs from its caller.
type Config struct {
	Machine Machine
	Console io.Writer // where a person watches
	Version string
	Random  io.Reader // what no key could be guessed from
	Now     func() time.Time
	Sleep   func(context.Context, time.Duration) error // returns early, with an error, when the context ends
}

// Ending is what the machine must do when the agent is done.
type Ending struct {
	Reboot bool          // otherwise power off
	After  time.Duration // time for a person to read the console
	Err    error         // why it ended without an installed disk; nil after success and for a local boot
}

// How long a person has to read, and how long the agent tries.
const (
	readPause     = 30 * time.Second
	debugPause    = 10 * time.Minute
	rebootPause   = 5 * time.Second
	serverPatient = 10 * time.Minute // the server may be restarted between, and within, any two requests
	failPatient   = 2 * time.Minute  // for the report of a failure: it changes nothing on the disk
)

type agent struct {
	cfg    Config
	log    *Log
	params Params
	api    *client
	hw     lane.Hardware
	began  time.Time
}

// heldError is the server's answer that this machine is not to be installed now.
type heldError struct{ order lane.Order }

func (e *heldError) Error() string {
	return fmt.Sprintf("the server says %s: %s: %s", e.order.Action, e.order.Reason, lane.Clean(e.order.Detail, 300))
}

// Run does the agent's whole work and returns what the machine must do next.
// It never panics.
func Run(ctx context.Context, cfg Config) (end Ending) {
	a := &agent{cfg: cfg, began: cfg.Now()}
	a.log = NewLog(cfg.Console, cfg.Now)
	defer func() {
		if r := recover(); r != nil {
			end = a.failed(ctx, fmt.Errorf("the agent itself broke: %v", r))
		}
	}()
	a.log.Banner("Bootlane agent " + cfg.Version)
	err := a.run(ctx)
	var held *heldError
	var seen *inspectedEnd
	switch {
	case errors.As(err, &seen):
		a.log.Step("%s in %s", seen.what(), rebootPause)
		return Ending{Reboot: seen.Then == lane.ThenReboot, After: rebootPause}
	case err == nil:
		a.log.Step("done in %s: rebooting into the new system", a.elapsed())
		return Ending{Reboot: true}
	case errors.As(err, &held) && held.order.Action == lane.LocalBoot:
		a.log.Step("%v", err)
		a.log.Step("nothing was written; rebooting to the local disk in %s", rebootPause)
		return Ending{Reboot: true, After: rebootPause}
	case errors.As(err, &held):
		a.log.Step("%v", err)
		a.log.Step("nothing was written; powering off in %s", a.pause())
		return Ending{After: a.pause(), Err: err}
	}
	return a.failed(ctx, err)
}

// failed tells the server, if it can be reached, and the person at the console.
func (a *agent) failed(ctx context.Context, err error) Ending {
	a.log.Fail("%v", err)
	if a.api != nil && !a.params.Inspect && !errors.Is(err, errUnacknowledged) {
		if rerr := a.api.fail(ctx, err); rerr != nil {
			a.log.Fail("report the failure: %v", rerr)
		}
	}
	a.log.Step("powering off in %s", a.pause())
	return Ending{After: a.pause(), Err: err}
}

func (a *agent) pause() time.Duration {
	if a.params.Debug {
		return debugPause
	}
	return readPause
}

func (a *agent) elapsed() time.Duration {
	return a.cfg.Now().Sub(a.began).Round(100 * time.Millisecond)
}

func (a *agent) run(ctx context.Context) error {
	if err := a.prepare(ctx); err != nil {
		return err
	}
	if a.params.Inspect {
		return a.inspect(ctx)
	}
	order, err := a.ask(ctx)
	if err != nil {
		return err
	}
	return a.install(ctx, order)
}

// prepare brings the machine up to where it can speak to its server.
func (a *agent) prepare(ctx context.Context) error {
	m := a.cfg.Machine
	if err := m.Prepare(a.log); err != nil {
		return fmt.Errorf("prepare the machine: %w", err)
	}
	line, err := m.CommandLine()
	if err != nil {
		return fmt.Errorf("read the kernel command line: %w", err)
	}
	if a.params, err = ParseCommandLine(line); err != nil {
		return err
	}
	mac, err := m.Connect(ctx, a.params, a.log)
	if err != nil {
		return fmt.Errorf("get an address: %w", err)
	}
	if a.hw, err = m.Hardware(); err != nil {
		return fmt.Errorf("read the hardware: %w", err)
	}
	a.hw.BootMAC = mac
	a.showHardware()
	a.api = newClient(a.params.URL, a.hw, a.cfg, a.log)
	return nil
}

func (a *agent) showHardware() {
	h := a.hw
	a.log.Step("machine: %s %s, serial %s, UUID %s, %s, %d CPUs, %s",
		orDash(h.Manufacturer), orDash(h.Product), orDash(h.Serial), orDash(string(h.UUID)), h.Firmware, h.CPUs, size(h.MemoryBytes))
	for _, n := range h.NICs {
		a.log.Step("nic:  %-10s %s %s", n.Name, n.MAC, n.Driver)
	}
	for _, d := range h.Disks {
		a.log.Step("disk: %-10s %10s  serial %s  wwn %s", d.Name, size(d.SizeBytes), orDash(d.Serial), orDash(d.WWN))
	}
}

// ask reports that the agent is up and fetches its order.
func (a *agent) ask(ctx context.Context) (lane.Order, error) {
	message := fmt.Sprintf("agent up after %s: %d disks, %d NICs, %s", a.elapsed(), len(a.hw.Disks), len(a.hw.NICs), a.hw.Firmware)
	a.log.Step("server: %s", a.params.URL.Host)
	if err := a.api.report(ctx, lane.StageKernel, lane.StatusOK, message, serverPatient); err != nil {
		return lane.Order{}, fmt.Errorf("report to the server: %w", err)
	}
	order, err := a.api.order(ctx, a.hw)
	if err != nil {
		return lane.Order{}, fmt.Errorf("ask for an order: %w", err)
	}
	if order.Action != lane.Install {
		return lane.Order{}, &heldError{order}
	}
	if err := checkOrder(order); err != nil {
		return lane.Order{}, fmt.Errorf("check the order: %w", err)
	}
	return order, nil
}

// install carries out an order that says install.
func (a *agent) install(ctx context.Context, order lane.Order) error {
	a.setClock(order.UnixTime)
	fresh, err := a.cfg.Machine.Hardware()
	if err != nil {
		return fmt.Errorf("read the hardware again: %w", err)
	}
	disk, err := order.Disk.Resolve(fresh.Disks)
	if err != nil {
		return fmt.Errorf("find the disk %s: %w", order.Disk, err)
	}
	j := &job{agent: a, disk: disk, disks: fresh.Disks, order: order}
	if order.Encryption != nil {
		if j.seal, err = a.prepareSeal(ctx, order, disk); err != nil {
			return fmt.Errorf("nothing was written: encryption: %w", err)
		}
	}
	target, err := a.cfg.Machine.OpenDisk(disk)
	if err != nil {
		return fmt.Errorf("open the disk %s: %w", disk.Name, err)
	}
	defer func() { _ = target.Close() }() // every write is synced and read back before
	j.t = target
	others, err := a.openWipe(order.Wipe, disk, fresh.Disks)
	if err != nil {
		return err
	}
	defer closeAll(others)
	j.wipe = others
	a.log.Step("order: run %s of host %s: write %s to %s (%s)", order.Run, order.Host, size(order.Image.RawBytes), disk.Name, order.Disk)
	for _, o := range others {
		a.log.Step("order: clear %s (serial %s, %s)", o.disk.Name, orDash(o.disk.Serial), size(o.disk.SizeBytes))
	}
	if err := a.api.report(ctx, lane.StageInstaller, lane.StatusOK, j.intent(), serverPatient); err != nil {
		return fmt.Errorf("report the disk: %w", err)
	}
	if err := j.writeDisk(ctx); err != nil {
		return fmt.Errorf("write %s: %w", disk.Name, err)
	}
	if err := a.api.report(ctx, lane.StageDiskWritten, lane.StatusOK, j.outcome(), serverPatient); err != nil {
		return fmt.Errorf("%w: %w", errUnacknowledged, err)
	}
	return nil
}

// intent says, before anything is written, what will be.
func (j *job) intent() string {
	out := fmt.Sprintf("writing %s to disk %s, serial %s, wwn %s, %s", size(j.order.Image.RawBytes), j.disk.Name, orDash(j.disk.Serial), orDash(j.disk.WWN), size(j.disk.SizeBytes))
	for _, o := range j.wipe {
		out += fmt.Sprintf("; clearing disk %s, serial %s, %s", o.disk.Name, orDash(o.disk.Serial), size(o.disk.SizeBytes))
	}
	if j.seal != nil { // last: a report is cut where it is too long, and this list may be
		out += fmt.Sprintf("; encrypting it, to be opened by %s", j.seal.by)
	}
	return out
}

// outcome says what was.
func (j *job) outcome() string {
	img := j.order.Image
	out := fmt.Sprintf("disk %s (%s) written in %s, read back in %s", j.disk.Name, j.order.Disk, j.times.write, j.times.verify)
	out += fmt.Sprintf("; wire %s, raw %s, %d files", img.Digest, img.RawDigest, len(j.order.Files))
	for _, o := range j.wipe {
		out += ", disk " + o.disk.Name + " cleared"
	}
	if j.seal != nil {
		out += fmt.Sprintf("; encrypted in %s, opened by %s", j.times.encrypt, j.seal.by)
	}
	return out
}

// errUnacknowledged: the disk is good, but a machine that reboots without the
// server knowing would be installed once more.
var errUnacknowledged = errors.New("the disk is written and verified, but the server did not acknowledge it; the machine stays off rather than being installed twice")

func (a *agent) setClock(unix int64) {
	if unix <= 0 {
		return
	}
	t := time.Unix(unix, 0)
	if off := a.cfg.Now().Sub(t).Round(time.Second); off < -2*time.Second || off > 2*time.Second {
		a.log.Step("clock: %s off, set to the server's %s", off, t.UTC().Format(time.RFC3339))
		if err := a.cfg.Machine.SetClock(t); err != nil {
			a.log.Step("clock: %v", err) // only time stamps of files hang on it
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// size writes a number of bytes the way disks are sold: decimal units.
func size(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.2f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d bytes", n)
}
