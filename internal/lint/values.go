package lint

import (
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"bootlane/internal/lane"
)

var (
	hostLabel  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	digits     = regexp.MustCompile(`^[0-9.]+$`)
	userName   = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	strongHash = regexp.MustCompile(`^(\$6\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{86}|\$g?y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}|\$5\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{43}|\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53})$`)
	weakHash   = regexp.MustCompile(`^(\$1\$|\$sha1\$|\$md5|\$3\$|_[./A-Za-z0-9]{19}$|[./A-Za-z0-9]{13}$)`)
	keyLine    = regexp.MustCompile(`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?$`)
	kernelDisk = regexp.MustCompile(`^(/dev/)?(sd[a-z]+|hd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+|dasd[a-z]+)([0-9]+|p[0-9]+)?$`)
	kernelNIC  = regexp.MustCompile(`^(eth[0-9]+|en[ospx][0-9a-z]+|em[0-9]+|p[0-9]+p[0-9]+|wlan[0-9]+)$`)
	wwnLink    = regexp.MustCompile(`(^|/)wwn-`)
	goodWWN    = regexp.MustCompile(`(^|/)wwn-0x([0-9a-f]{16}|[0-9a-f]{32})(-part[0-9]+)?$`)
)

// hostname judges a machine's name.
func (r *report) hostname(p at, v string) {
	labels := strings.Split(v, ".")
	reason := ""
	switch {
	case v == "":
		reason = "is empty"
	case len(v) > 64:
		reason = "is longer than 64 bytes, which is the kernel's limit"
	case digits.MatchString(v):
		reason = "is all digits, which is read as a number or an address"
	}
	for _, l := range labels {
		switch {
		case reason != "":
		case l == "":
			reason = "has an empty label, or ends with a dot"
		case len(l) > 63:
			reason = "has a label of more than 63 characters"
		case l != strings.ToLower(l):
			reason = "has upper-case letters, which kubeadm and DNS lower"
		case !hostLabel.MatchString(l):
			reason = "may hold only a-z, 0-9 and hyphens inside a label"
		}
	}
	switch {
	case reason != "":
		r.add("hostname-illegal", p, "the host name %q %s", v, reason)
	case slices.Contains([]string{"localhost", "ubuntu-server", "ubuntu", "debian", "fedora", "rocky", "linux"}, labels[0]):
		r.add("hostname-default", p, "the host name %q is what installers take when nobody names the machine", v)
	}
}

// timezone judges the name of a time zone.
func (r *report) timezone(p at, v string) {
	if !lane.IsTimeZone(v) {
		r.add("timezone-unknown", p, "the tz database has no time zone %q", v)
	}
}

// user judges the name of an account that an installer makes.
func (r *report) user(p at, v string) {
	switch {
	case !userName.MatchString(v):
		r.add("user-name-illegal", p, "the user name %q is not a lower-case letter or _, then letters, digits, _ and -, at most 32", v)
	case slices.Contains([]string{"root", "admin", "sudo", "ftn", "hacluster", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data", "backup", "list", "irc", "nobody", "systemd-network", "messagebus", "sshd", "wheel", "adm"}, v):
		r.add("user-name-reserved", p, "the user name %q is one of the system's own", v)
	}
}

// uid judges the number of an account that people use.
func (r *report) uid(p at, v string) {
	if len(v) < 4 && digits.MatchString(v) && strings.Trim(v, "0") != "" {
		r.add("user-uid-low", p, "the uid %s is in the system's own range", v)
	}
}

// hash judges a password in the form of crypt(3), and reports whether it admits anybody.
func (r *report) hash(p at, v string) (admits bool) {
	switch {
	case v == "":
		r.add("password-empty", p, "the password is empty")
	case v[0] == '!' || v[0] == '*' || v == "x": // locked
		return false
	case strongHash.MatchString(v):
	case weakHash.MatchString(v):
		r.add("password-hash-weak", p, "the password's hash is of a kind that is searched through in hours")
	default:
		r.add("password-hash-illegal", p, "this is no crypt hash: nobody can log in with it, or a password stands here in clear text")
	}
	return true
}

// sshKey judges one line of authorized_keys. seen holds those that came before.
func (r *report) sshKey(p at, v string, seen map[string]bool) {
	v = strings.TrimRight(v, "\n")
	fields := strings.Fields(v)
	switch {
	case strings.Contains(v, "PRIVATE KEY"): // has a rule of its own
		return
	case !keyLine.MatchString(v):
		r.add("ssh-key-malformed", p, "this is not one public key line, TYPE BASE64 COMMENT, of a type that OpenSSH takes today, without options")
		return
	case !wholeKey(fields[0], fields[1]):
		r.add("ssh-key-malformed", p, "the key is cut short, or is not of the type that it begins with: nobody can log in with it")
		return
	case fields[0] == "ssh-rsa" && len(fields[1])*6 < 2048:
		r.add("ssh-key-weak", p, "the RSA key has less than 2048 bits")
	}
	if seen[fields[1]] {
		r.add("ssh-key-twice", p, "the key is listed already")
	}
	seen[fields[1]] = true
}

// wholeKey reports whether the key of a public key line is whole, and of the line's type:
// fields with their length in front, of which the first is the type (RFC 4253, 6.6).
func wholeKey(kind, text string) bool {
	b, err := base64.StdEncoding.DecodeString(text)
	for n := 0; err == nil && len(b) > 0; n++ {
		if len(b) < 4 {
			return false
		}
		size := uint64(binary.BigEndian.Uint32(b))
		if size > uint64(len(b)-4) || n == 0 && string(b[4:4+size]) != kind {
			return false
		}
		if b = b[4+size:]; len(b) == 0 {
			return n > 0
		}
	}
	return false
}

// disk judges the name of a disk that an installer writes to.
func (r *report) disk(p at, v string) {
	switch {
	case kernelDisk.MatchString(v):
		r.add("disk-kernel-name", p, "%q is a kernel name, which another disk may have at the next boot", v)
	case wwnLink.MatchString(v) && !goodWWN.MatchString(v):
		r.add("disk-wwn-illegal", p, "%q is no link that udev makes", v)
	}
}

// mac judges a hardware address. seen holds those that came before.
func (r *report) mac(p at, v string, seen map[lane.MAC]bool) {
	m, err := lane.ParseMAC(v)
	switch {
	case err != nil:
		r.add("mac-illegal", p, "%s", err.Error())
		return
	case m.Bytes()[0]&2 != 0:
		r.add("mac-local", p, "%s is an address that software made up, not a NIC's maker", m)
	}
	if seen[m] {
		r.add("mac-twice", p, "%s names two interfaces", m)
	}
	seen[m] = true
}

// address judges an address without a prefix.
func (r *report) address(p at, v string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(v)
	if err != nil {
		r.add("net-address-illegal", p, "%q is not an IP address", v)
		return a, false
	}
	return a, true
}

// prefix judges an interface's address, which needs its prefix length.
func (r *report) prefix(p at, v string) (netip.Prefix, bool) {
	text, bits, slash := strings.Cut(v, "/")
	a, ok := r.address(p, text)
	switch {
	case !ok:
		return netip.Prefix{}, false
	case !slash:
		r.add("net-prefix-missing", p, "%q has no prefix length", v)
		return netip.Prefix{}, false
	case strings.Contains(bits, "."):
		r.add("net-prefix-missing", p, "%q has a netmask where a prefix length is wanted", v)
		return netip.Prefix{}, false
	}
	out, err := netip.ParsePrefix(v)
	if err != nil {
		r.add("net-address-illegal", p, "%q is not an address with a prefix length", v)
		return out, false
	}
	r.host(p, a, out)
	return out, true
}

// host judges whether an address may be one machine's in its network.
func (r *report) host(p at, a netip.Addr, n netip.Prefix) {
	small := a.BitLen() - n.Bits()
	switch {
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		r.add("net-address-reserved", p, "%s is no machine's address", a)
	case small >= 2 && a == n.Masked().Addr():
		r.add("net-address-reserved", p, "%s is the address of the network %s itself", a, n.Masked())
	case small >= 2 && a.Is4() && !n.Contains(a.Next()):
		r.add("net-address-reserved", p, "%s is the broadcast address of %s", a, n.Masked())
	}
}

// gateway judges a router against the prefixes of the interface that reaches it.
func (r *report) gateway(p at, v string, own []netip.Prefix) {
	a, ok := r.address(p, v)
	if !ok || a.IsLinkLocalUnicast() {
		return
	}
	reached, family := false, false
	for _, n := range own {
		family = family || n.Addr().Is4() == a.Is4()
		reached = reached || n.Masked().Contains(a)
		if n.Addr() == a {
			r.add("net-address-reserved", p, "%s is the machine's own address and its router's", a)
		}
	}
	if family && !reached {
		r.add("net-gateway-outside", p, "the router %s is outside of the interface's networks", a)
	}
}

// mtu judges an MTU as a number in a text.
func (r *report) mtu(p at, v string, six bool) {
	n := number(v)
	switch {
	case n < 68 || n > 65535:
		r.add("net-mtu", p, "the MTU %q is none that a link has", v)
	case n < 1280 && six:
		r.add("net-mtu", p, "the MTU %d is below 1280, which IPv6 needs (RFC 8200, 5)", n)
	}
}

// number reads a whole number, or returns -1.
func number(v string) int {
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' || n > 1<<30 {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	if v == "" {
		return -1
	}
	return n
}
