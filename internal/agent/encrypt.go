package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"bootlane/internal/clevis"
	"bootlane/internal/lane"
	"bootlane/internal/luks"
)

// tangPatient is how long a Tang server may take to be reached: nothing is written yet.
const tangPatient = 2 * time.Minute

// seal is the container that the root file system comes into, and by what it is opened.
type seal struct {
	*luks.Container
	by       lane.Encryption
	at, size int64 // of the plain file system: known when the image's own table is
}

// prepareSeal makes the container of an order before its disk is opened: each that is to open it
// at a boot seals a passphrase of its own now, and gives it back. What could not do so would leave
// a disk that nobody opens.
func (a *agent) prepareSeal(ctx context.Context, order lane.Order, disk lane.Disk) (*seal, error) {
	if need := order.Image.RawBytes + luks.HeaderBytes; disk.SizeBytes < need {
		return nil, fmt.Errorf("the disk %s has %d bytes, and to be encrypted the image needs %d: 16 MiB more than it has itself", disk.Name, disk.SizeBytes, need)
	}
	by := *order.Encryption
	a.log.Step("encryption: asking what is to open the disk at each boot: %s", by)
	var slots []luks.Slot
	if by.By == lane.EncryptionTPM2 {
		s, err := a.slot(a.sealByTPM)
		if err != nil {
			return nil, fmt.Errorf("%w: enable the TPM 2.0 in the firmware, clear it there, or have the disk opened by Tang", err)
		}
		slots = append(slots, s)
	}
	for _, t := range by.Tang {
		s, err := a.slot(func(passphrase []byte) (clevis.JWE, error) { return a.sealByTang(ctx, t, passphrase) })
		if err != nil {
			return nil, err
		}
		slots = append(slots, s)
	}
	box, err := luks.New(a.cfg.Random, slots)
	if err != nil {
		return nil, fmt.Errorf("make the container: %w", err)
	}
	a.log.Step("encryption: %s, and gives back what is sealed to it", by)
	return &seal{Container: box, by: by}, nil
}

// slot makes a passphrase, of text because Clevis hands it on through a shell, and has it sealed.
func (a *agent) slot(seal func(passphrase []byte) (clevis.JWE, error)) (luks.Slot, error) {
	secret := make([]byte, 32)
	if _, err := io.ReadFull(a.cfg.Random, secret); err != nil {
		return luks.Slot{}, fmt.Errorf("make a passphrase: %w", err)
	}
	passphrase := []byte(base64.RawURLEncoding.EncodeToString(secret))
	jwe, err := seal(passphrase)
	return luks.Slot{Passphrase: passphrase, Token: jwe.Token()}, err
}

func (a *agent) sealByTPM(passphrase []byte) (clevis.JWE, error) {
	tpm, err := a.cfg.Machine.OpenTPM()
	if err != nil {
		return clevis.JWE{}, fmt.Errorf("the machine shows no TPM 2.0 to open the disk: %w", err)
	}
	defer func() { _ = tpm.Close() }() // it holds nothing of ours
	jwe, err := clevis.SealTPM2(tpm, a.cfg.Random, passphrase)
	if err != nil {
		return jwe, fmt.Errorf("the TPM 2.0 would not open the disk: %w", err)
	}
	return jwe, nil
}

// sealByTang asks again while a server cannot be reached, and takes no for an answer.
func (a *agent) sealByTang(ctx context.Context, t lane.Tang, passphrase []byte) (jwe clevis.JWE, err error) {
	var refused error
	tang := clevis.Tang{Client: a.api.http, URL: t.URL, Thumbprint: t.Thumbprint}
	err = a.api.retry(ctx, "Tang at "+t.URL, tangPatient, func() error {
		jwe, err = tang.Seal(ctx, a.cfg.Random, passphrase)
		if silent := new(clevis.NoAnswerError); errors.As(err, &silent) {
			return err
		}
		refused = err
		return nil
	})
	if err = errors.Join(err, refused); err != nil {
		return jwe, fmt.Errorf("nothing would open the disk at a boot: %w", err)
	}
	return jwe, nil
}

// fits finds what is to be encrypted in the image's own table, and has its partition end where the
// disk does: the container takes all of it, and what is within can grow.
func (s *seal) fits(table *gpt, label string, disk int64) error {
	root, err := table.byName(label)
	if err != nil {
		return err
	}
	s.at, s.size = table.span(root)
	if s.at < headBytes {
		return fmt.Errorf("partition %d (%s) begins at byte %d, and cannot be encrypted: build the image with its root partition behind the first MiB", root.number, root.name, s.at)
	}
	return table.stretch(root, disk, luks.HeaderBytes)
}

// wipePlain clears what of the root file system was to be encrypted, and is not: the host's files are in it.
func (j *job) wipePlain() error {
	if j.seal == nil || j.seal.size == 0 {
		return nil
	}
	return j.t.Zero(j.seal.at, j.seal.size)
}

// encrypt moves the root file system, with the files in it, into the container, and proves it.
func (j *job) encrypt(ctx context.Context) error {
	start, s := j.cfg.Now(), j.seal
	if err := flush(j.t); err != nil { // the file system was written through a door of its own
		return err
	}
	m := &meter{job: j, total: s.size}
	stop := m.run(ctx, "encrypting")
	sum, err := s.Encrypt(j.t, s.at, s.size, m.done.Store)
	stop()
	if err != nil {
		return fmt.Errorf("encrypt the root file system: %w", err)
	}
	if err := flush(j.t); err != nil {
		return err
	}
	stop = m.run(ctx, "verifying the encryption of")
	err = s.Verify(j.t, s.at, s.size, sum, m.done.Store)
	stop()
	if err != nil {
		return fmt.Errorf("verify the encryption: %w", err)
	}
	j.times.encrypt = j.cfg.Now().Sub(start).Round(100 * time.Millisecond)
	j.log.Step("encrypted: %s in %s, read back and decrypted; opened by %s", size(s.size), j.times.encrypt, s.by)
	return nil
}
