package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Init is the agent's life as pid 1: it prepares the consoles, runs, and turns
// the machine off or over to its new system. It returns only when the process is
// not pid 1: the agent has no business on a running system.
func Init(version string, random io.Reader, now func() time.Time, sleep func(context.Context, time.Duration) error) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("bootlane-agent is the init program of Bootlane's initramfs and erases disks; it runs as pid 1 only")
	}
	unix.Umask(0o022)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	reap()
	merr := mountAll()
	out := openConsoles()
	// Should this process die after all, the kernel panics: rather start over than hang.
	_ = os.WriteFile("/proc/sys/kernel/panic", []byte("30"), 0o644) // best effort
	end := Ending{After: readPause}
	if merr != nil {
		_, _ = fmt.Fprintf(out, "bootlane-agent: %v\r\n", merr)
	} else {
		end = Run(context.Background(), Config{Machine: NewMachine(now, sleep), Console: out, Version: version, Random: random, Now: now, Sleep: sleep})
	}
	_ = sleep(context.Background(), max(end.After, time.Second)) // the last lines must leave a slow serial port
	unix.Sync()
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if end.Reboot {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	for {
		err := unix.Reboot(how)
		_, _ = fmt.Fprintf(out, "bootlane-agent: turn the machine off: %v; switch it off by hand\r\n", err)
		_ = sleep(context.Background(), time.Minute)
	}
}

// reap collects children. The agent starts none, but pid 1 inherits everybody's.
func reap() {
	died := make(chan os.Signal, 8)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}()
}

// consoles writes to every console of the kernel command line, not only to the
// last one, which is all that /dev/console is: a person may be at the screen or
// at the serial line. Each has its own queue, and a port that takes no bytes (a
// terminal server holding CTS) loses lines and holds nothing up.
type consoles []chan []byte

func openConsoles() io.Writer {
	active, _ := os.ReadFile("/sys/class/tty/console/active") // empty: /dev/console alone
	names := strings.Fields(string(active))
	if len(names) == 0 {
		names = []string{"console"}
	}
	var out consoles
	for _, name := range names {
		f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		queue := make(chan []byte, 256)
		out = append(out, queue)
		go func() {
			for b := range queue {
				_, _ = f.Write(b) // a console that is gone must not stop an installation
			}
		}()
	}
	return out
}

// Write never blocks and never fails.
func (c consoles) Write(b []byte) (int, error) {
	for _, queue := range c {
		select {
		case queue <- append([]byte(nil), b...):
		default:
		}
	}
	return len(b), nil
}
