package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// limit bounds one scenario, whatever it waits for.
const limit = 30 * time.Minute

// Play runs scenarios, several at once, each as a process of its own in a network
// namespace of its own, and shows their progress live. It returns an error when
// any expectation failed.
func Play(ctx context.Context, cfg Config, keys []string, atOnce int) error {
	if err := tools(needs(keys)...); err != nil {
		return err
	}
	began := cfg.Now()
	out := &lineWriter{w: cfg.Out}
	results := make([]error, len(keys))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, key := range keys {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i] = inner(ctx, cfg, out, out, "lab", "--inner", key, "--out", cfg.Dir, "--image", cfg.Image, "--installer", cfg.Installer, "--kubernetes", cfg.Kubernetes, "--encryptable", cfg.Encryptable, "--trust", cfg.Trust, "--key", cfg.Key)
		})
	}
	wg.Wait()
	return errors.Join(summary(cfg, keys, results, cfg.Now().Sub(began)), writeTable(cfg))
}

// needs returns the programs and files that scenarios are played with.
func needs(keys []string) []string {
	out := []string{ovmfCode, "/usr/lib/ipxe/snponly.efi"}
	for _, s := range Scenarios() {
		if slices.Contains(keys, s.Key) {
			out = append(out, s.needs...)
		}
	}
	return out
}

// packageOf is where Debian keeps the files and programs that the lab needs.
func packageOf(name string) string {
	return map[string]string{
		"qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm", "ip": "iproute2", "tcpdump": "tcpdump", "radvd": "radvd",
		"dhcrelay": "isc-dhcp-relay", "dnsmasq": "dnsmasq-base", "kea-dhcp4": "kea-dhcp4-server", "dhcpd": "isc-dhcp-server",
		"swtpm": "swtpm", tangProgram: "tang", "systemd-socket-activate": "systemd", "clevis-luks-list": "clevis-luks", "cryptsetup": "cryptsetup-bin", "zstd": "zstd",
		ovmfCode: "ovmf", armCode: "qemu-efi-aarch64", ubootCode: "u-boot-qemu", ia32Code: "ovmf-ia32", "/usr/lib/ipxe/snponly.efi": "ipxe",
		armLoader: "debian-installer-12-netboot-arm64", efi32Loader: "syslinux-efi", efi32Rest: "syslinux-common", efi64Loader: "syslinux-efi", efi64Rest: "syslinux-common",
	}[name]
}

// tools names every missing program and file with its Debian package.
func tools(needed ...string) error {
	var problems []error
	for _, name := range append([]string{"qemu-system-x86_64", "ip", "tcpdump"}, needed...) {
		_, err := os.Stat(name)
		if !filepath.IsAbs(name) {
			_, err = exec.LookPath(name)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("the lab needs %s: apt-get install %s", name, packageOf(name)))
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		problems = append(problems, errors.New("the lab needs /dev/net/tun: modprobe tun"))
	}
	if os.Geteuid() != 0 {
		problems = append(problems, errors.New("the lab needs root, for a network namespace of its own"))
	}
	return errors.Join(problems...)
}

// inner runs this program in a child process within a new network namespace. The
// namespace has no name: it goes when its last process does.
func inner(ctx context.Context, cfg Config, stdout, stderr io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, cfg.Bootlane, args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// It ends its machines and writes down what happened; a killed one cannot.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd.Run()
}

// Inner plays one scenario in the namespace it is already in.
func Inner(ctx context.Context, cfg Config, key string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l := &Lab{cfg: cfg, key: key, dir: filepath.Join(cfg.Dir, key), began: cfg.Now(), shown: map[string]int64{}}
	for _, s := range Scenarios() {
		if s.Key != key {
			continue
		}
		l.site = scenarioSite(cmp.Or(s.dhcp, ownDHCP), cfg.Trust)
		story := func(ctx context.Context, l *Lab) error {
			if err := s.play(ctx, l); err != nil {
				return err
			}
			return l.record(ctx)
		}
		if err := l.play(ctx, s.Title, story); err != nil {
			l.failures = append(l.failures, err.Error())
			l.say("  FAIL  %v", err)
			for _, m := range l.machines {
				l.say("  console of %s: %s", m.Name, lastLines(m.serial()))
			}
		}
	}
	if len(l.failures) > 0 {
		err := os.WriteFile(filepath.Join(l.dir, failuresFile), []byte(strings.Join(l.failures, "\n")+"\n"), 0o644)
		return errors.Join(fmt.Errorf("%d expectations failed", len(l.failures)), err)
	}
	l.say("all expectations met")
	return nil
}

// play makes the network and the server, lets the story happen, and ends what it
// started. The timelines stay, whatever became of it.
func (l *Lab) play(ctx context.Context, title string, story func(context.Context, *Lab) error) error {
	if err := errors.Join(os.RemoveAll(l.dir), os.MkdirAll(l.dir, 0o755)); err != nil {
		return fmt.Errorf("make the lab's directory: %w", err)
	}
	defer l.close()
	l.say("%s", title)
	err := l.network(ctx)
	if err == nil {
		err = l.serve(ctx)
	}
	if err == nil {
		err = story(ctx, l)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var text bytes.Buffer
	l.timelines(ctx, &text)
	return errors.Join(err, os.WriteFile(filepath.Join(l.dir, timelineFile), text.Bytes(), 0o644))
}

const (
	timelineFile = "timeline.txt"
	failuresFile = "failures.txt" // only where there are some; a line each
)

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(ansi.ReplaceAllString(s, "")), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], " | ")
}

// summary prints every timeline and the table of results.
func summary(cfg Config, keys []string, results []error, took time.Duration) error {
	for _, key := range keys {
		if b, err := os.ReadFile(filepath.Join(cfg.Dir, key, timelineFile)); err == nil {
			fmt.Fprintf(cfg.Out, "%s", b)
		}
	}
	fmt.Fprintf(cfg.Out, "\n")
	failed := 0
	for i, key := range keys {
		verdict := "passed"
		if results[i] != nil {
			verdict = "FAILED"
			failed++
		}
		for _, s := range Scenarios() {
			if s.Key == key {
				fmt.Fprintf(cfg.Out, "%s  %s  %s\n", verdict, key, s.Title)
			}
		}
		// Once more at the end: of a log that was cut, this is the part that is kept.
		if b, err := os.ReadFile(filepath.Join(cfg.Dir, key, failuresFile)); err == nil && results[i] != nil {
			fmt.Fprintf(cfg.Out, "           %s\n", strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n           "))
		}
	}
	fmt.Fprintf(cfg.Out, "%d of %d scenarios passed in %s. Consoles, packets and timelines: %s\n", len(keys)-failed, len(keys), took.Round(time.Second), cfg.Dir)
	if failed > 0 {
		return fmt.Errorf("%d scenarios failed", failed)
	}
	return nil
}

// blankHash returns the digest of n zero bytes.
func blankHash(n int64) string {
	h := sha256.New()
	zeros := make([]byte, 1<<20)
	for n > 0 {
		k := min(n, int64(len(zeros)))
		_, _ = h.Write(zeros[:k]) // a hash never fails
		n -= k
	}
	return hex.EncodeToString(h.Sum(nil))
}

// lineWriter has several writers write one after the other. A line stays whole that is
// written at once: what programs say comes as it is read from a pipe.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
