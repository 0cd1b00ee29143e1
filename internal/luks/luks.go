// Package luks writes LUKS2 containers, as the LUKS2 on-disk format 1.1.1 describes them, and moves
// a plain file system into one where it lies. It needs neither cryptsetup nor device mapper.
//
// A container here is opened by random passphrases only, one for each key slot, which something
// else keeps: stretching them would cost every boot time, and nobody who guesses any.
package luks

import (
	"bytes"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/crypto/xts"
)

// HeaderBytes is what a container takes in front of its content.
const HeaderBytes = 16 << 20

const (
	sectorBytes = 512
	areaBytes   = 16 << 10 // each of the two headers, with its JSON, where the tokens are few
	maxArea     = 1 << 20
	binaryBytes = 4096 // what of it is not JSON
	keyBytes    = 64   // two keys of AES-256
	stripes     = 4000
	slotBytes   = (keyBytes*stripes + 4095) / 4096 * 4096
	maxSlots    = 32
	iterations  = 1000 // the least that cryptsetup takes
	encryption  = "aes-xts-plain64"
	hash        = "sha256"
)

// Slot is one passphrase, and the token that says how it is come by.
type Slot struct {
	Passphrase []byte
	Token      map[string]any // what a token of its type has, but for `keyslots`
}

// Container is a LUKS2 container that is not on a disk yet. The key of its content is in memory only.
type Container struct {
	cipher *xts.Cipher
	header []byte
}

// New makes a container that each of the slots opens.
func New(random io.Reader, slots []Slot) (*Container, error) {
	if len(slots) == 0 || len(slots) > maxSlots {
		return nil, fmt.Errorf("a container has 1 to %d key slots, not %d", maxSlots, len(slots))
	}
	m := maker{random: random, header: make([]byte, HeaderBytes), area: areaBytes}
	m.room(slots)
	key := m.bytes(keyBytes)
	meta := m.metadata(key, slots)
	for n, s := range slots {
		m.slot(key, n, s, &meta)
	}
	m.finish(meta)
	if m.err != nil {
		return nil, m.err
	}
	cipher, err := xts.NewCipher(aes.NewCipher, key)
	return &Container{cipher, m.header}, err
}

// maker keeps the first error of many steps, none of which is of use after one.
type maker struct {
	random io.Reader
	header []byte
	area   int // bytes of each of the two headers
	err    error
}

// room doubles both headers until the tokens go in, as the format allows.
func (m *maker) room(slots []Slot) {
	need := binaryBytes + 2048
	for _, s := range slots {
		text, err := json.Marshal(s.Token)
		if err != nil {
			m.fail(fmt.Errorf("write a token: %w", err))
		}
		need += len(text) + 512
	}
	for m.area < need && m.area < maxArea {
		m.area *= 2
	}
	if m.area < need {
		m.fail(fmt.Errorf("the tokens of %d key slots need a header of %d bytes, and it has %d at most", len(slots), need, maxArea))
	}
}

func (m *maker) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *maker) bytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(m.random, b); err != nil {
		m.fail(fmt.Errorf("read %d random bytes: %w", n, err))
	}
	return b
}

// The JSON of a header. Numbers that may have 64 bits are strings.
type (
	metadata struct {
		Keyslots map[string]keyslot        `json:"keyslots"`
		Tokens   map[string]map[string]any `json:"tokens"`
		Segments map[string]segment        `json:"segments"`
		Digests  map[string]digest         `json:"digests"`
		Config   config                    `json:"config"`
	}
	keyslot struct {
		Type    string `json:"type"`
		KeySize int    `json:"key_size"`
		AF      af     `json:"af"`
		Area    area   `json:"area"`
		KDF     kdf    `json:"kdf"`
	}
	af struct {
		Type    string `json:"type"`
		Stripes int    `json:"stripes"`
		Hash    string `json:"hash"`
	}
	area struct {
		Type       string `json:"type"`
		Offset     string `json:"offset"`
		Size       string `json:"size"`
		Encryption string `json:"encryption"`
		KeySize    int    `json:"key_size"`
	}
	kdf struct {
		Type       string `json:"type"`
		Hash       string `json:"hash"`
		Iterations int    `json:"iterations"`
		Salt       []byte `json:"salt"`
	}
	segment struct {
		Type       string `json:"type"`
		Offset     string `json:"offset"`
		Size       string `json:"size"`
		IVTweak    string `json:"iv_tweak"`
		Encryption string `json:"encryption"`
		SectorSize int    `json:"sector_size"`
	}
	digest struct {
		Type       string   `json:"type"`
		Keyslots   []string `json:"keyslots"`
		Segments   []string `json:"segments"`
		Hash       string   `json:"hash"`
		Iterations int      `json:"iterations"`
		Salt       []byte   `json:"salt"`
		Digest     []byte   `json:"digest"`
	}
	config struct {
		JSONSize     string `json:"json_size"`
		KeyslotsSize string `json:"keyslots_size"`
	}
)

// metadata describes the content, and by what its key is known.
func (m *maker) metadata(key []byte, slots []Slot) metadata {
	d := digest{Type: "pbkdf2", Segments: []string{"0"}, Hash: hash, Iterations: iterations, Salt: m.bytes(32)}
	d.Digest = m.stretch(key, d.Salt, sha256.Size)
	for n := range slots {
		d.Keyslots = append(d.Keyslots, strconv.Itoa(n))
	}
	return metadata{Keyslots: map[string]keyslot{}, Tokens: map[string]map[string]any{}, Digests: map[string]digest{"0": d},
		Segments: map[string]segment{"0": {Type: "crypt", Offset: strconv.Itoa(HeaderBytes), Size: "dynamic", IVTweak: "0", Encryption: encryption, SectorSize: sectorBytes}},
		Config:   config{JSONSize: strconv.Itoa(m.area - binaryBytes), KeyslotsSize: strconv.Itoa(HeaderBytes - 2*m.area)}}
}

func (m *maker) stretch(secret, salt []byte, n int) []byte {
	out, err := pbkdf2.Key(sha256.New, string(secret), salt, iterations, n)
	if err != nil {
		m.fail(fmt.Errorf("derive a key: %w", err))
	}
	return out
}

// slot puts the key of the content, under a passphrase, into the area of a key slot.
func (m *maker) slot(key []byte, n int, s Slot, meta *metadata) {
	at, name, salt := 2*m.area+n*slotBytes, strconv.Itoa(n), m.bytes(32)
	under := m.stretch(s.Passphrase, salt, keyBytes)
	material := m.split(key)
	if m.err != nil {
		return
	}
	cipher, err := xts.NewCipher(aes.NewCipher, under)
	if err != nil {
		m.fail(err)
		return
	}
	for i := 0; i < len(material); i += sectorBytes {
		cipher.Encrypt(m.header[at+i:][:sectorBytes], material[i:][:sectorBytes], uint64(i/sectorBytes))
	}
	meta.Keyslots[name] = keyslot{Type: "luks2", KeySize: keyBytes, AF: af{"luks1", stripes, hash},
		Area: area{"raw", strconv.Itoa(at), strconv.Itoa(slotBytes), encryption, keyBytes},
		KDF:  kdf{"pbkdf2", hash, iterations, salt}}
	token := map[string]any{"keyslots": []string{name}}
	for k, v := range s.Token {
		token[k] = v
	}
	meta.Tokens[name] = token
}

// split spreads a key over many stripes, of which whoever lacks one has nothing: the anti-forensic
// splitter of LUKS1.
func (m *maker) split(key []byte) []byte {
	out, last := m.bytes(stripes*len(key)), make([]byte, len(key))
	for i := range stripes - 1 {
		for j, b := range out[i*len(key):][:len(key)] {
			last[j] ^= b
		}
		diffuse(last)
	}
	for j, b := range key {
		out[(stripes-1)*len(key)+j] = last[j] ^ b
	}
	return out
}

func diffuse(b []byte) {
	for i := 0; i*sha256.Size < len(b); i++ {
		part := b[i*sha256.Size : min(len(b), (i+1)*sha256.Size)]
		sum := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(i)), part...))
		copy(part, sum[:])
	}
}

// finish writes both headers, which differ in their salts, their places and their checksums.
func (m *maker) finish(meta metadata) {
	text, err := json.Marshal(meta)
	if err != nil {
		m.fail(fmt.Errorf("write the header: %w", err))
		return
	}
	if len(text) >= m.area-binaryBytes || m.err != nil {
		m.fail(fmt.Errorf("the header has %d bytes for JSON of %d", m.area-binaryBytes, len(text)))
		return
	}
	uuid := m.uuid()
	for n, magic := range []string{"LUKS\xba\xbe", "SKUL\xba\xbe"} {
		h := m.header[n*m.area:][:m.area]
		copy(h, magic)
		binary.BigEndian.PutUint16(h[6:], 2)
		binary.BigEndian.PutUint64(h[8:], uint64(m.area))
		binary.BigEndian.PutUint64(h[16:], 1) // which of two that differ is the newer
		copy(h[72:104], hash)
		copy(h[104:168], m.bytes(64))
		copy(h[168:208], uuid)
		binary.BigEndian.PutUint64(h[256:], uint64(n*m.area))
		copy(h[binaryBytes:], text)
		sum := sha256.Sum256(h)
		copy(h[448:512], sum[:])
	}
}

func (m *maker) uuid() string {
	b := m.bytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x := hex.EncodeToString(b)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// sameHeader reports whether b is the header of the container.
func (c *Container) sameHeader(b []byte) bool { return bytes.Equal(b, c.header) }
