package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// limit bounds one scenario, whatever it waits for.
const limit = 15 * time.Minute

// Play runs scenarios, several at once, each as a process of its own in a network
// namespace of its own, and shows their progress live. It returns an error when
// any expectation failed.
func Play(ctx context.Context, cfg Config, keys []string, atOnce int) error {
	if err := tools(); err != nil {
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
			results[i] = inner(ctx, cfg, key, out)
		})
	}
	wg.Wait()
	return summary(cfg, keys, results, cfg.Now().Sub(began))
}

// tools names every missing program with its Debian package.
func tools() error {
	var problems []error
	for _, t := range []struct{ name, pkg string }{{"qemu-system-x86_64", "qemu-system-x86"}, {"ip", "iproute2"}, {"tcpdump", "tcpdump"}} {
		if _, err := exec.LookPath(t.name); err != nil {
			problems = append(problems, fmt.Errorf("the lab needs %s: apt-get install %s", t.name, t.pkg))
		}
	}
	for _, f := range []struct{ path, pkg string }{{ovmfCode, "ovmf"}, {"/usr/lib/ipxe/snponly.efi", "ipxe"}, {"/dev/net/tun", "(the kernel's tun driver)"}} {
		if _, err := os.Stat(f.path); err != nil {
			problems = append(problems, fmt.Errorf("the lab needs %s: apt-get install %s", f.path, f.pkg))
		}
	}
	if os.Geteuid() != 0 {
		problems = append(problems, errors.New("the lab needs root, for a network namespace of its own"))
	}
	return errors.Join(problems...)
}

// inner runs one scenario in a child process within a new network namespace.
// The namespace has no name: it goes when its last process does.
func inner(ctx context.Context, cfg Config, key string, out io.Writer) error {
	cmd := exec.CommandContext(ctx, cfg.Bootlane, "lab", "--inner", key, "--out", cfg.Dir, "--image", cfg.Image, "--installer", cfg.Installer)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// Inner plays one scenario in the namespace it is already in.
func Inner(ctx context.Context, cfg Config, key string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l := &Lab{cfg: cfg, key: key, dir: filepath.Join(cfg.Dir, key), began: cfg.Now(), shown: map[string]int64{}}
	if err := errors.Join(os.RemoveAll(l.dir), os.MkdirAll(l.dir, 0o755)); err != nil {
		return fmt.Errorf("make the scenario's directory: %w", err)
	}
	defer l.close()
	for _, s := range Scenarios() {
		if s.Key != key {
			continue
		}
		l.say("%s", s.Title)
		if err := errors.Join(l.network(ctx), l.serve(ctx)); err != nil {
			return err
		}
		err = s.play(ctx, l)
	}
	var text bytes.Buffer
	l.timelines(ctx, &text)
	if werr := os.WriteFile(filepath.Join(l.dir, "timeline.txt"), text.Bytes(), 0o644); werr != nil {
		err = errors.Join(err, werr)
	}
	if err != nil {
		l.failures = append(l.failures, err.Error())
		l.say("  FAIL  %v", err)
		for _, m := range l.machines {
			l.say("  console of %s: %s", m.Name, lastLines(m.serial()))
		}
	}
	if len(l.failures) > 0 {
		return fmt.Errorf("%d expectations failed", len(l.failures))
	}
	l.say("all expectations met")
	return nil
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(ansi.ReplaceAllString(s, "")), "\n")
	return strings.Join(lines[max(0, len(lines)-6):], " | ")
}

// summary prints every timeline and the table of results.
func summary(cfg Config, keys []string, results []error, took time.Duration) error {
	for _, key := range keys {
		if b, err := os.ReadFile(filepath.Join(cfg.Dir, key, "timeline.txt")); err == nil {
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

// lineWriter keeps the lines of several writers whole.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
