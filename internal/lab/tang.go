package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	tangProgram = "/usr/libexec/tangd"
	tangKeygen  = "/usr/libexec/tangd-keygen"
	tangPort    = "7500"
)

// tang starts a Tang server on the computer of ours, and returns how a record names it. The
// first makes its keys, which those after it have as well.
func (l *Lab) tang(ctx context.Context) (*process, string, error) {
	keys := filepath.Join(l.dir, "tang")
	if _, err := os.Stat(keys); err != nil {
		if err := run(ctx, nil, "mkdir", keys); err != nil {
			return nil, "", err
		}
		if err := run(ctx, nil, tangKeygen, keys); err != nil {
			return nil, "", err
		}
	}
	// It serves one connection, and waits for its client's end: of a machine without power for ever.
	log := filepath.Join(l.dir, "tang.log")
	p, err := l.spawn(log, "systemd-socket-activate", "--listen="+tangPort, "--accept", "--inetd", "timeout", "--foreground", "60", tangProgram, keys)
	if err != nil {
		return nil, "", err
	}
	var pin string
	err = l.until(ctx, 10*time.Second, "the Tang server answers", func() (bool, error) {
		if p.ended() {
			return false, fmt.Errorf("the Tang server ended: %s", tail(log))
		}
		out, err := exec.CommandContext(ctx, "tang-show-keys", tangPort).Output()
		pin = strings.TrimSpace(string(out))
		return err == nil, nil
	})
	return p, "http://" + serverAddr + ":" + tangPort + "#" + pin, err
}
