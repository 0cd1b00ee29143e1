package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// startTPM powers on the machine's TPM 2.0, if it has one: swtpm beside the emulator. What
// it keeps without power is in the lab's directory.
func (m *Machine) startTPM(ctx context.Context) error {
	if m.TPM == "" {
		return nil
	}
	// What a TPM that lost its power has left would pass for this one's.
	socket := filepath.Join(m.lab.dir, m.chipSocket())
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear the way for a TPM: %w", err)
	}
	if err := os.MkdirAll(m.file(m.TPM), 0o755); err != nil {
		return fmt.Errorf("make a TPM: %w", err)
	}
	var err error
	log, here := m.file("swtpm.log"), m.lab.here()
	if m.chip, err = m.lab.spawn(log, here[0], append(here[1:], "swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", "dir="+filepath.Base(m.file(m.TPM)), "--ctrl", "type=unixio,path="+m.chipSocket())...); err != nil {
		return err
	}
	return m.lab.until(ctx, 10*time.Second, "the TPM of "+m.Name+" listens", func() (bool, error) {
		if m.chip.ended() {
			return false, fmt.Errorf("the TPM of %s did not come up: %s", m.Name, tail(log))
		}
		_, err := os.Stat(socket)
		return err == nil, nil
	})
}

// chipSocket is where machine and TPM meet, seen from the lab's directory: the path of a
// socket has 107 bytes at most.
func (m *Machine) chipSocket() string { return m.Name + "-tpm.sock" }

// here is the command that runs others in the lab's directory. The server is not to: the
// paths in somebody's configuration begin where the lab was started.
func (l *Lab) here() []string { return []string{"env", "-C", l.dir} }
