package lint

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
)

// What AutoYaST reads below profile. Its schema lets anything else pass.
var autoyastSections = []string{"add-on", "audit-laf", "backup", "bootloader", "ca_mgm", "cio_ignore", "classes", "configuration_management", "dasd", "deploy_image", "dhcp-server", "dns-server", "fcoe-client", "files",
	"firewall", "ftp-server", "general", "groups", "host", "http-server", "inetd", "iscsi-client", "jenkins", "kdump", "kerberos", "keyboard", "language", "ldap", "login_settings", "mail", "networking", "nfs",
	"nfs_server", "nis", "nis_server", "ntp-client", "partitioning", "partitioning_advanced", "printer", "proxy", "pxe", "report", "rules", "runlevel", "samba-client", "scripts", "security", "services-manager",
	"software", "sound", "squid", "ssh_import", "suse_register", "sysconfig", "timezone", "tftp-server", "unsupported", "upgrade", "user_defaults", "users", "x11", "zfcp"}

// Elements that are lists, and are read as text without saying so.
var autoyastLists = []string{"partitioning", "partitions", "users", "groups", "packages", "products", "patterns", "remove-packages", "pre-scripts", "post-scripts", "chroot-scripts", "init-scripts", "postpartitioning-scripts",
	"interfaces", "routes", "nameservers", "net-udev", "authorized_keys", "skip_list", "subvolumes", "add_on_products", "ntp_servers", "addons", "enable", "disable"}

// Sections in which true and false are text, to be written into files as they are.
var autoyastUntyped = []string{"bootloader", "kdump", "security", "sysconfig", "user_defaults"}

// marker is a value that a pre-script is to replace.
var marker = regexp.MustCompile(`^@[A-Z][A-Z0-9_]*@$`)

// element is one element of an XML file.
type element struct {
	name     string
	at       at
	kind     string // config:type
	text     string
	textAt   at
	children []*element
}

func (e *element) child(name string) *element {
	if e == nil {
		return nil
	}
	for _, c := range e.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (e *element) find(path ...string) *element {
	for _, p := range path {
		e = e.child(p)
	}
	return e
}

// walk calls f for an element and everything below it, with what it stands in.
func (e *element) walk(in *element, f func(in, e *element)) {
	f(in, e)
	for _, c := range e.children {
		c.walk(e, f)
	}
}

// xml reads a file into a tree, or returns nil and says what is wrong.
func (r *report) xml(text string) *element {
	dec := xml.NewDecoder(strings.NewReader(text))
	b := &builder{text: text}
	// Profiles of old say that they are in other character sets; what is in them is checked as UTF-8.
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	root := &element{}
	open := []*element{root}
	for {
		start := int(dec.InputOffset())
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.add("syntax", b.at(int(dec.InputOffset())), "this is no XML: %s", err.Error())
			return nil
		}
		top := open[len(open)-1]
		switch t := tok.(type) {
		case xml.StartElement:
			e := &element{name: t.Name.Local, at: b.at(start)}
			for _, a := range t.Attr {
				if (a.Name.Local == "type" || a.Name.Local == "t") && a.Name.Space != "xmlns" {
					e.kind = a.Value
				}
			}
			top.children = append(top.children, e)
			if open = append(open, e); len(open) > 200 {
				r.add("syntax", e.at, "this nests deeper than 200 levels")
				return nil
			}
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if s := strings.TrimSpace(string(t)); s != "" && top.text == "" {
				blank := len(text[start:]) - len(strings.TrimLeft(text[start:], " \t\r\n"))
				top.textAt = b.at(start + blank)
				top.text = s
			}
		}
	}
	if len(root.children) == 0 {
		r.add("syntax", at{1, 1}, "this is no XML: there is no element")
		return nil
	}
	return root.children[0]
}

// autoyast judges a profile of AutoYaST.
func (r *report) autoyast(text string) {
	root := r.xml(text)
	if root == nil {
		return
	}
	if root.name != "profile" {
		r.add("value-kind", root.at, "the outermost element is not profile")
		return
	}
	for _, c := range root.children {
		if !slices.Contains(autoyastSections, c.name) {
			r.add("autoyast-unknown-section", c.at, "a profile has no section %q%s", c.name, like(c.name, autoyastSections))
		}
	}
	gated := len(root.find("scripts", "pre-scripts").list()) > 0
	for _, c := range root.children {
		typed := !slices.Contains(autoyastUntyped, c.name)
		c.walk(root, func(in, e *element) {
			if typed {
				r.autoyastType(e)
			}
			r.autoyastElement(in, e)
			if marker.MatchString(e.text) && (e.name != "device" && e.name != "crypt_key" || !gated) {
				r.add("template-leftover", e.textAt, "no pre-script replaces the marker %q", e.text)
			}
		})
	}
	if c := root.find("general", "mode", "confirm"); c == nil || c.text != "false" {
		p := root.at
		if c != nil {
			p = c.at
		}
		r.add("autoyast-confirm", p, "general/mode/confirm is not false: the installer waits for somebody at its screen")
	}
	r.autoyastDrives(root)
	for _, u := range root.child("users").list() {
		r.autoyastUser(u)
	}
	for _, stage := range root.child("scripts").list() {
		for _, script := range stage.list() {
			r.hookElement(script)
		}
	}
	if zone := root.find("timezone", "timezone"); zone != nil {
		r.timezone(zone.textAt, zone.text)
	}
}

// autoyastType judges whether an element says what it is.
func (r *report) autoyastType(e *element) {
	switch {
	case e.kind == "" && (e.text == "true" || e.text == "false") && len(e.children) == 0:
		r.add("autoyast-config-type", e.at, "%s has no config:type=\"boolean\": it is read as text, which is always true", e.name)
	case e.kind == "" && slices.Contains(autoyastLists, e.name) && len(e.children) > 0:
		r.add("autoyast-config-type", e.at, "%s has no config:type=\"list\"", e.name)
	case e.kind == "boolean" && e.text != "true" && e.text != "false":
		r.add("autoyast-config-type", e.at, "%s is neither true nor false", e.name)
	}
}

// list returns the entries of a list.
func (e *element) list() []*element {
	if e == nil {
		return nil
	}
	return e.children
}

func (r *report) autoyastElement(in, e *element) {
	switch {
	case e.name == "filesystem" && e.text == "swap":
		r.swap(e.textAt, "this is swap, and the file sets up a kubelet")
	case e.name == "crypt_key" && marker.MatchString(e.text): // a pre-script puts the passphrase there, on the machine
	case e.name == "crypt_key" && e.text != "", e.name == "encryption_password" && e.text != "":
		r.add("secret-disk-passphrase", e.textAt, "the passphrase of the disk stands here in clear text")
	case e.name == "hostname" && in != nil && in.name == "dns" && e.text != "":
		r.hostname(e.textAt, e.text)
	case e.name == "ipaddr" && e.text != "":
		if strings.Contains(e.text, "/") {
			r.prefix(e.textAt, e.text)
		} else if r.address(e.textAt, e.text); in.child("prefixlen") == nil && in.child("netmask") == nil {
			r.add("net-prefix-missing", e.textAt, "the address has neither prefixlen nor netmask")
		}
	case (e.name == "device" || e.name == "name") && in != nil && in.name == "interface" && kernelNIC.MatchString(e.text):
		r.add("net-kernel-name", e.textAt, "%q is the kernel's name, which another NIC may have after a change of hardware", e.text)
	}
}

func (r *report) autoyastUser(u *element) {
	name, pw, enc := u.child("username"), u.child("user_password"), u.child("encrypted")
	if name != nil && !userName.MatchString(name.text) { // the system's own users are listed in a profile too
		r.user(name.textAt, name.text)
	}
	switch {
	case pw == nil:
	case enc != nil && enc.text == "true":
		p := pw.textAt
		if p.line == 0 {
			p = pw.at
		}
		r.hash(p, pw.text)
	case pw.text != "":
		r.add("password-cleartext", pw.textAt, "a password stands here in clear text: encrypted is not true")
	}
	seen := map[string]bool{}
	for _, k := range u.child("authorized_keys").list() {
		r.sshKey(k.textAt, k.text, seen)
	}
}

// autoyastDrives judges which disks are erased.
func (r *report) autoyastDrives(root *element) {
	part := root.child("partitioning")
	if len(part.list()) == 0 {
		p := root.at
		if part != nil {
			p = part.at
		}
		r.add("disk-selector-missing", p, "no drive is described: the installer proposes a layout of its own, on disks of its choice")
		return
	}
	r.autoyastArrays(part)
	for _, d := range part.children {
		kind := d.child("type")
		if kind != nil && kind.text != "CT_DISK" && kind.text != "" {
			continue // made of others
		}
		if skip := d.child("skip_list"); skip != nil {
			r.add("disk-selector-loose", skip.at, "a skip_list says which disk it is not: the first of the others is taken")
		}
		dev := d.child("device")
		if dev == nil || dev.text == "" {
			r.add("disk-selector-missing", d.at, "the drive has no device: the installer takes the first disk")
			continue
		}
		r.disk(dev.textAt, dev.text)
	}
}
