package lint

import (
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What Agama reads at the top of a profile, of the releases for SLE 16 and of later ones.
var agamaKeys = []string{"$schema", "access", "bootloader", "dasd", "files", "hostname", "iscsi", "l10n", "legacyAutoyastStorage", "localization", "network", "ntp", "product", "proxy", "questions", "root", "scripts",
	"security", "software", "storage", "user", "zfcp"}

// agama judges a profile of Agama.
func (r *report) agama(text string) {
	root := r.json(text)
	if root == nil {
		return
	}
	r.known("agama-unknown-key", root, agamaKeys, "a profile")
	r.kinds(root, map[string]yaml.Kind{"product": yaml.MappingNode, "storage": yaml.MappingNode, "user": yaml.MappingNode, "root": yaml.MappingNode, "questions": yaml.MappingNode, "network": yaml.MappingNode, "hostname": yaml.MappingNode})
	if k, v := entry(root, "questions"); !is(get(v, "policy"), "auto") {
		p := pos(root)
		if k != nil {
			p = pos(k)
		}
		r.add("agama-questions", p, "questions.policy is not auto: the installer waits for somebody to answer")
	}
	for _, key := range []string{"user", "root"} {
		r.agamaAccount(key, get(root, key))
	}
	if v := get(root, "hostname", "static"); v != nil {
		if s, ok := r.text(v); ok {
			r.hostname(pos(v), s)
		}
	}
	for _, c := range items(get(root, "network", "connections")) {
		var own []netip.Prefix
		for _, a := range items(get(c, "addresses")) {
			if v, ok := r.text(a); ok {
				if p, ok := r.prefix(pos(a), v); ok {
					own = append(own, p)
				}
			}
		}
		for _, key := range []string{"gateway4", "gateway6"} {
			if g := get(c, key); g != nil {
				r.gateway(pos(g), g.Value, own)
			}
		}
		if n := get(c, "interface"); n != nil && get(c, "macAddress") == nil && kernelNIC.MatchString(n.Value) {
			r.add("net-kernel-name", pos(n), "%q is the kernel's name, which another NIC may have after a change of hardware", n.Value)
		}
	}
	if v := get(root, "localization", "timezone"); v != nil {
		r.timezone(pos(v), v.Value)
	}
	each(get(root, "scripts"), func(_, stage *yaml.Node) {
		for _, s := range items(stage) {
			switch c := get(s, "content"); {
			case c == nil:
			case strings.HasPrefix(c.Value, "#!"):
				r.hookNode(c)
			default:
				r.add("hook-no-interpreter", pos(c), "the script does not begin with #! and its interpreter")
			}
		}
	})
	r.agamaStorage(root)
}

func (r *report) agamaAccount(key string, u *yaml.Node) {
	if u == nil {
		return
	}
	if v := get(u, "userName"); v != nil {
		if s, ok := r.text(v); ok {
			r.user(pos(v), s)
		}
	}
	seen := map[string]bool{}
	if v := get(u, "sshPublicKey"); v != nil {
		if s, ok := r.text(v); ok {
			r.sshKey(pos(v), s, seen)
		}
	}
	r.keys(get(u, "sshPublicKeys"), seen)
	pw := get(u, "password")
	if pw == nil {
		return
	}
	if !yes(get(u, "hashedPassword")) {
		r.add("password-cleartext", pos(pw), "a password stands here in clear text: %s.hashedPassword is not true", key)
		return
	}
	if s, ok := r.text(pw); ok {
		r.hash(pos(pw), s)
	}
}

// agamaStorage judges which disks are erased.
func (r *report) agamaStorage(root *yaml.Node) {
	k, st := entry(root, "storage")
	drives := items(get(st, "drives"))
	if len(drives) == 0 {
		if get(root, "legacyAutoyastStorage") == nil && len(items(get(st, "mdRaids"))) == 0 {
			p := pos(root)
			if k != nil {
				p = pos(k)
			}
			r.add("disk-selector-missing", p, "storage has no drives: the installer takes a disk of its choice")
		}
	}
	for _, d := range drives {
		sk, search := entry(d, "search")
		switch {
		case search == nil:
			r.add("disk-selector-missing", pos(d), "the drive has no search: the installer takes the first by name")
		case search.Kind == yaml.ScalarNode:
			if search.Value == "*" {
				r.add("disk-selector-loose", pos(search), "the search * takes every disk")
				continue
			}
			r.disk(pos(search), search.Value)
		default:
			r.agamaSearch(sk, search)
		}
	}
	r.agamaArrays(st)
	r.agamaTree(root)
}

func (r *report) agamaSearch(k, search *yaml.Node) {
	cond := get(search, "condition")
	if cond == nil || len(cond.Content) == 0 {
		r.add("disk-selector-loose", pos(k), "the search has no condition: every disk matches")
	}
	if n := get(cond, "name"); n != nil {
		r.disk(pos(n), n.Value)
	}
	if v := get(search, "ifNotFound"); v != nil && v.Value != "error" {
		r.add("disk-selector-loose", pos(v), "ifNotFound is %q: a drive that is not there is passed over, and the layout goes elsewhere", v.Value)
	}
	if v := get(search, "max"); v == nil || v.Value != "1" {
		p := pos(k)
		if v != nil {
			p = pos(v)
		}
		r.add("disk-selector-loose", p, "the search has no max of 1: it takes every disk that matches")
	}
}

// agamaTree finds passphrases, markers and swap, wherever they stand.
func (r *report) agamaTree(n *yaml.Node) {
	each(n, func(k, v *yaml.Node) {
		for _, method := range []string{"luks1", "luks2", "pervasiveLuks2", "tpmFde"} {
			// A script that runs before Agama has a profile puts the passphrase there, on the machine.
			if pw := get(v, method, "password"); k.Value == "encryption" && pw != nil && !marker.MatchString(pw.Value) {
				r.add("secret-disk-passphrase", pos(pw), "the passphrase of the disk stands here in clear text")
			}
		}
		if path := get(v, "path"); k.Value == "filesystem" && is(path, "swap") {
			r.swap(pos(path), "this is swap, and the file sets up a kubelet")
		}
		if k.Value != "encryption" && k.Value != "content" { // that of a script may put values in itself
			r.agamaTree(v)
		}
	})
	for _, c := range items(n) {
		r.agamaTree(c)
	}
	if n != nil && n.Kind == yaml.ScalarNode && markerInside.MatchString(n.Value) {
		r.add("template-leftover", pos(n), "a marker was not replaced")
	}
}
