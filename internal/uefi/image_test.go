package uefi_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bootlane/internal/uefi"
)

// The signed files of Debian 12, by package.
const (
	shimFile     = "/usr/lib/shim/shimx64.efi.signed"
	mokFile      = "/usr/lib/shim/mmx64.efi.signed"
	fallbackFile = "/usr/lib/shim/fbx64.efi.signed"
	grubFile     = "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"
	kernelFile   = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux"
	unsignedFile = "/usr/lib/shim/fbx64.efi"
	debianCA     = "/usr/share/shim/debian-uefi-ca.der"
	storeFile    = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
	emptyStore   = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	ipxeFile     = "/boot/ipxe.efi"
)

// read returns a file of a Debian package, or fails and names the package.
func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		pkg := map[string]string{mokFile: "shim-helpers-amd64-signed", fallbackFile: "shim-helpers-amd64-signed", shimFile: "shim-signed",
			grubFile: "grub-efi-amd64-signed", kernelFile: "debian-installer-12-netboot-amd64", storeFile: "ovmf", emptyStore: "ovmf", ipxeFile: "ipxe"}[path]
		if pkg == "" {
			pkg = "shim-unsigned"
		}
		t.Fatalf("%v: install Debian's %s (scripts/setup)", err, pkg)
	}
	return b
}

// tool runs a program of a Debian package; its exit code is the caller's business.
func tool(t testing.TB, args ...string) (string, bool) {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("%v: install Debian's sbsigntool, efitools and openssl (scripts/setup)", err)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	return string(out), err == nil
}

func must(t testing.TB, args ...string) string {
	t.Helper()
	out, ok := tool(t, args...)
	if !ok {
		t.Fatalf("%s: %s", strings.Join(args, " "), out)
	}
	return out
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.efi")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// key is a self-made authority, and a key that it certified.
type key struct{ ca, cert, private string }

func newKey(t testing.TB, algorithm ...string) key {
	t.Helper()
	dir := t.TempDir()
	k := key{ca: dir + "/ca.pem", cert: dir + "/cert.pem", private: dir + "/key.pem"}
	if len(algorithm) == 0 {
		algorithm = []string{"-newkey", "rsa:2048"}
	}
	must(t, append([]string{"openssl", "req", "-x509", "-nodes", "-subj", "/CN=Test CA", "-days", "2", "-keyout", dir + "/ca.key", "-out", k.ca}, algorithm...)...)
	must(t, append([]string{"openssl", "req", "-new", "-nodes", "-subj", "/CN=Test Signer", "-keyout", k.private, "-out", dir + "/csr"}, algorithm...)...)
	must(t, "openssl", "x509", "-req", "-days", "2", "-in", dir+"/csr", "-CA", k.ca, "-CAkey", dir+"/ca.key", "-CAcreateserial", "-out", k.cert)
	return k
}

func (k key) sign(t testing.TB, image []byte) []byte {
	t.Helper()
	in, out := write(t, image), filepath.Join(t.TempDir(), "signed.efi")
	must(t, "sbsign", "--key", k.private, "--cert", k.cert, "--output", out, in)
	return read(t, out)
}

func (k key) db(t testing.TB) uefi.Database { return database(t, k.ca) }

func database(t testing.TB, path string) uefi.Database {
	t.Helper()
	d, err := uefi.ParseDatabase(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// part is a section of an image that tests make.
type part struct {
	name string
	data []byte
}

// build makes a small image: headers of 1 KiB, then the sections. Long section names go
// into a string table, as linkers do it.
func build(machine uefi.Machine, parts ...part) []byte {
	le := binary.LittleEndian
	const pe, headers = 64, 1024
	b := make([]byte, headers)
	copy(b, "MZ")
	le.PutUint32(b[60:], pe)
	copy(b[pe:], "PE\x00\x00")
	le.PutUint16(b[pe+4:], uint16(machine))
	le.PutUint16(b[pe+6:], uint16(len(parts)))
	opt, magic, dirs := pe+24, uint16(0x20b), 112
	if machine == uefi.MachineIA32 {
		magic, dirs = 0x10b, 96
	}
	le.PutUint16(b[pe+20:], uint16(dirs+16*8))
	le.PutUint16(b[pe+22:], 0x22)
	le.PutUint16(b[opt:], magic)
	le.PutUint32(b[opt+32:], 4096)
	le.PutUint32(b[opt+36:], 512)
	le.PutUint32(b[opt+56:], 0x10000)
	le.PutUint32(b[opt+60:], headers)
	le.PutUint16(b[opt+68:], 10)
	le.PutUint32(b[opt+dirs-4:], 16)
	table, strings := b[opt+dirs+16*8:], []byte{0, 0, 0, 0}
	for i, p := range parts {
		h := table[i*40 : i*40+40]
		if len(p.name) > 8 {
			h[0], h[1] = '/', byte('0'+len(strings)%10)
			if len(strings) > 9 {
				h[1], h[2] = byte('0'+len(strings)/10), byte('0'+len(strings)%10)
			}
			strings = append(strings, p.name+"\x00"...)
		} else {
			copy(h, p.name)
		}
		size := (len(p.data) + 511) &^ 511
		le.PutUint32(h[8:], uint32(len(p.data)))
		le.PutUint32(h[12:], uint32(4096*(i+1)))
		le.PutUint32(h[16:], uint32(size))
		le.PutUint32(h[20:], uint32(len(b)))
		b = append(b, append(p.data[:len(p.data):len(p.data)], make([]byte, size-len(p.data))...)...)
		table = b[opt+dirs+16*8:]
	}
	if len(strings) > 4 {
		le.PutUint32(b[pe+12:], uint32(len(b)))
		b = append(b, append(strings, make([]byte, (8-len(strings)%8)%8)...)...)
	}
	return b
}

const grubSBAT = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\ngrub,5,Free Software Foundation,grub,2.12,https://www.gnu.org/software/grub/\n"

// text is the section that every test image has.
func text() part { return part{".text", []byte(strings.Repeat("code", 100))} }

// testShim is an image with shim's sections: a vendor's certificate, dbx, two levels.
func testShim(machine uefi.Machine, vendor, dbx []byte, sbat, previous, latest string) []byte {
	le := binary.LittleEndian
	cert := le.AppendUint32(nil, uint32(len(vendor)))
	cert = le.AppendUint32(cert, uint32(len(dbx)))
	cert = le.AppendUint32(cert, 16)
	cert = le.AppendUint32(cert, 16+uint32(len(vendor)))
	cert = append(append(cert, vendor...), dbx...)
	level := le.AppendUint32(nil, 0)
	level = le.AppendUint32(level, 8)
	level = le.AppendUint32(level, 9+uint32(len(previous)))
	level = append(level, previous+"\x00"+latest+"\x00"...)
	return build(machine, text(), part{".vendor_cert", cert}, part{".sbatlevel", level}, part{".sbat", []byte(sbat)})
}

// list is one EFI_SIGNATURE_LIST of entries of one size; kind is a GUID as it is stored.
func list(kind string, entries ...[]byte) []byte {
	each := 16 + len(entries[0])
	b := binary.LittleEndian.AppendUint32([]byte(kind), uint32(28+each*len(entries)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(each))
	for _, e := range entries {
		b = append(append(b, make([]byte, 16)...), e...)
	}
	return b
}

// GUIDs in the order of their bytes on disk.
const (
	kindX509       = "\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72"
	kindSHA256     = "\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28"
	kindSHA1       = "\x12\xa5\x6c\x82\x10\xcf\xc9\x4a\xb1\x87\xbe\x01\x49\x66\x31\xbd"
	kindX509SHA256 = "\x92\xa4\xd2\x3b\xc0\x96\x79\x40\xb4\x20\xfc\xf9\x8e\xf1\x03\xed"
)
