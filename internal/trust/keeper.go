package trust

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"bootlane/internal/lane"
)

// maxFile bounds a trust file.
const maxFile = 1 << 20

// maxCached is how many verdicts on signatures are remembered.
const maxCached = 4096

// Keeper judges by a trust file, as it is now: a change counts with the next question. It
// remembers the file that it accepted. One that differs takes its place only if its version
// is higher, and signatures beside it, FILE*.minisig, satisfy the one before: whoever can
// write the file, but holds no key, changes nothing. It is safe for concurrent use.
type Keeper struct {
	file, accepted string
	now            func() time.Time

	mu       sync.Mutex
	seen     os.FileInfo // of file, when it was looked at last
	signSeen string      // and of the signatures beside it
	policy   Policy
	warning  string // why file is not in force
	cache    map[[sha256.Size]byte][]signed
}

// Open reads the trust file. accepted is where the one in force is kept: where there is
// none yet, the file is taken as it is, for somebody has just configured it.
func Open(file, accepted string, now func() time.Time) (*Keeper, error) {
	k := &Keeper{file: file, accepted: accepted, now: now, cache: map[[sha256.Size]byte][]signed{}}
	old, err := read(accepted)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		data, err := read(file)
		if err != nil {
			return nil, &lane.Error{Code: lane.Invalid, Message: "read the trust file", Err: err}
		}
		if k.policy, err = Parse(file, data); err != nil {
			return nil, err
		}
		if err := k.keep(data); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, &lane.Error{Code: lane.Unavailable, Message: "read the trust file in force", Err: err}
	default:
		if k.policy, err = Parse(accepted, old); err != nil {
			return nil, err
		}
	}
	k.refresh()
	return k, nil
}

// Judge says whether a manifest is signed as the trust file wants. See [Policy.Judge].
func (k *Keeper) Judge(manifest []byte, d lane.Digest, signatures map[string][]byte) Verdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	if why, ok := k.policy.revokedBundles[d]; ok {
		return Verdict{Refusal: "the trust file revokes it: " + why}
	}
	h := sha256.New()
	_, _ = h.Write([]byte(d)) // a hash never fails
	for _, name := range slices.Sorted(maps.Keys(signatures)) {
		_, _ = fmt.Fprintf(h, "%s %d %s", name, len(signatures[name]), signatures[name])
	}
	key := [sha256.Size]byte(h.Sum(nil))
	list, ok := k.cache[key]
	if !ok {
		list = k.policy.verify(manifest, signatures)
		if len(k.cache) >= maxCached {
			clear(k.cache)
		}
		k.cache[key] = list
	}
	return k.policy.count(list, k.now())
}

// InForce returns the trust file as it counts now.
func (k *Keeper) InForce() lane.Trust {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	out := k.policy.describe(k.now())
	out.File, out.Warning = k.file, k.warning
	return out
}

// Warning says why the trust file, as it stands there, is not in force; empty: it is.
func (k *Keeper) Warning() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	return k.warning
}

// refresh looks whether the file has changed, and takes it over if that is allowed. The
// caller holds mu.
func (k *Keeper) refresh() {
	info, err := os.Stat(k.file)
	if err != nil {
		k.seen, k.warning = nil, fmt.Sprintf("the trust file %s cannot be read, the one that was accepted before stays in force: %v", k.file, err)
		return
	}
	beside := k.beside()
	if k.seen != nil && os.SameFile(k.seen, info) && k.seen.ModTime().Equal(info.ModTime()) && k.seen.Size() == info.Size() && (k.warning == "" || k.signSeen == beside) {
		return
	}
	k.seen, k.signSeen, k.warning = info, beside, ""
	if err := k.takeOver(); err != nil {
		k.warning = notInForce(k.file, k.policy, err)
	}
}

// beside describes the signatures of the file. They are looked for only while they are missed.
func (k *Keeper) beside() (out string) {
	if k.warning == "" {
		return ""
	}
	names, err := filepath.Glob(k.file + "*.minisig")
	for _, n := range names {
		if info, serr := os.Stat(n); serr == nil {
			out += fmt.Sprintln(n, info.Size(), info.ModTime().UnixNano())
		}
	}
	return out + fmt.Sprint(err)
}

func (k *Keeper) takeOver() error {
	next, data, err := successor(k.file, k.accepted, k.policy, k.now())
	if err != nil || data == nil {
		return err
	}
	if err := k.keep(data); err != nil {
		return err
	}
	k.policy = next
	clear(k.cache)
	return nil
}

// Pending says why the trust file would not take the place of the one in force, which is kept
// at accepted, or nothing. Nothing is changed.
func Pending(file, accepted string, now time.Time) string {
	old, err := read(accepted)
	if errors.Is(err, fs.ErrNotExist) {
		return "" // the first one is taken as it is
	}
	if err != nil {
		return fmt.Sprintf("the trust file in force cannot be read: %v", err)
	}
	policy, err := Parse(accepted, old)
	if err != nil {
		return err.Error()
	}
	if _, _, err := successor(file, accepted, policy, now); err != nil {
		return notInForce(file, policy, err)
	}
	return ""
}

func notInForce(file string, inForce Policy, why error) string {
	return fmt.Sprintf("the trust file %s is not in force, version %d that was accepted before is: %v", file, inForce.Version, why)
}

// successor reads the trust file that is to take the place of the one that is kept at accepted;
// no bytes: it is the same. The error says why it may not.
func successor(file, accepted string, policy Policy, now time.Time) (next Policy, data []byte, err error) {
	if data, err = read(file); err != nil {
		return next, nil, err
	}
	old, err := read(accepted)
	if err != nil || bytes.Equal(old, data) {
		return next, nil, err
	}
	if next, err = Parse(file, data); err != nil {
		return next, nil, err
	}
	if next.Version <= policy.Version {
		return next, nil, fmt.Errorf("its version is %d: give it a higher one, and sign it by the keys in force", next.Version)
	}
	signatures := map[string][]byte{}
	names, err := filepath.Glob(file + "*.minisig")
	if err != nil {
		return next, nil, err
	}
	for _, n := range names {
		if signatures[filepath.Base(n)], err = read(n); err != nil {
			return next, nil, err
		}
	}
	if v := policy.count(policy.verify(data, signatures), now); v.Refusal != "" {
		return next, nil, fmt.Errorf("a change must be signed by the keys in force, `bootlane bundle sign %s --key FILE`: %s", file, v.Refusal)
	}
	return next, data, nil
}

// keep remembers the file that is in force, so that a power cut leaves the old one or the new one.
func (k *Keeper) keep(data []byte) error {
	tmp := k.accepted + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(tmp, k.accepted)
	}
	if err != nil {
		return &lane.Error{Code: lane.Unavailable, Message: "remember the trust file that is in force", Err: err}
	}
	return nil
}

func read(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, errors.Join(err, f.Close())
}
