package seed

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var (
	userName  = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	cryptHash = regexp.MustCompile(`^(\$6\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{86}|\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}|\$5\$(rounds=[0-9]+\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43})$`)
	sshKey    = regexp.MustCompile(`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?$`)
	zoneName  = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)
	localeRE  = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)
	mirrorURL = regexp.MustCompile(`^http://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~+-]*)*$`)
	baseURL   = regexp.MustCompile(`^http://[A-Za-z0-9.:\[\]-]+/run/[a-z0-9-]+$`)
	plainWord = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)
	codename  = regexp.MustCompile(`^[a-z]+$`)
	domainRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// Admits reports whether anybody could log in as the administrator.
func (s Site) Admits() bool { return s.PasswordHash != "" || len(s.SSHKeys) > 0 }

// Validate returns every problem of the site's values, each naming its field and the mend.
func (s Site) Validate() []string {
	s = s.WithDefaults()
	var out []string
	bad := func(field, format string, args ...any) {
		out = append(out, "site."+field+": "+fmt.Sprintf(format, args...))
	}
	if s.Domain != "" && !domainRE.MatchString(s.Domain) {
		bad("domain", "%q is not a domain name", s.Domain)
	}
	switch {
	case !userName.MatchString(s.User):
		bad("user", "%q is not a user name: a lower-case letter, then letters, digits, _ and -, at most 32", s.User)
	case slices.Contains([]string{"root", "admin", "sudo", "daemon", "bin", "sys", "nobody"}, s.User):
		bad("user", "%q is reserved in Debian or Ubuntu", s.User)
	}
	if s.PasswordHash != "" && !cryptHash.MatchString(s.PasswordHash) {
		bad("passwordHash", "is not a crypt hash of type $6$, $y$ or $5$: make one with `mkpasswd -m sha-512`, never put a password here")
	}
	for i, k := range s.SSHKeys {
		switch {
		case !sshKey.MatchString(k):
			bad(fmt.Sprintf("sshKeys[%d]", i), "is not one public key line, TYPE BASE64 COMMENT, without options")
		case !wholeKey(k):
			bad(fmt.Sprintf("sshKeys[%d]", i), "is cut short, or is not of the type that it begins with: with it nobody could log in; copy the whole line of the .pub file")
		}
	}
	if !zoneName.MatchString(s.Timezone) {
		bad("timezone", "%q is not a name like Europe/Berlin", s.Timezone)
	}
	if !localeRE.MatchString(s.Locale) {
		bad("locale", "%q is not a name like en_US.UTF-8", s.Locale)
	}
	if !localeRE.MatchString(s.Keyboard) {
		bad("keyboard", "%q is not a layout like us or de", s.Keyboard)
	}
	for i, n := range s.NTP {
		if _, err := netip.ParseAddr(n); err != nil && !domainRE.MatchString(n) {
			bad(fmt.Sprintf("ntp[%d]", i), "%q is not an address or host name", n)
		}
	}
	return out
}

// wholeKey reports whether the key of a public key line is whole, and of the line's type:
// fields with their length in front, of which the first is the type (RFC 4253, 6.6).
func wholeKey(line string) bool {
	fields := strings.Fields(line)
	b, err := base64.StdEncoding.DecodeString(fields[1])
	for n := 0; err == nil && len(b) > 0; n++ {
		if len(b) < 4 {
			return false
		}
		size := uint64(binary.BigEndian.Uint32(b))
		if size > uint64(len(b)-4) || n == 0 && string(b[4:4+size]) != fields[0] {
			return false
		}
		if b = b[4+size:]; len(b) == 0 {
			return n > 0
		}
	}
	return false
}
