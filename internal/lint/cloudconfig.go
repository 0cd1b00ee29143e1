package lint

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What cloud-init reads at the top of user-data. It has changed little since 22.4.
var cloudKeys = []string{"allow_public_ssh_keys", "ansible", "apk_repos", "apt", "apt_pipelining", "apt_reboot_if_required", "apt_update", "apt_upgrade", "authkey_hash", "autoinstall",
	"bootcmd", "byobu_by_default", "ca-certs", "ca_certs", "chef", "chpasswd", "cloud_config_modules", "cloud_final_modules", "cloud_init_modules", "create_hostname_file", "datasource", "datasource_list",
	"device_aliases", "disable_ec2_metadata", "disable_root", "disable_root_opts", "disk_setup", "drivers", "fan", "final_message", "fqdn", "fs_setup", "groups", "growpart", "grub-dpkg", "grub_dpkg",
	"hostname", "keyboard", "landscape", "launch-index", "locale", "locale_configfile", "lxd", "manage_etc_hosts", "manage_resolv_conf", "mcollective", "merge_how", "merge_type", "migrate",
	"mount_default_fields", "mounts", "network", "no_ssh_fingerprints", "ntp", "output", "package_reboot_if_required", "package_update", "package_upgrade", "packages", "password", "phone_home", "power_state",
	"prefer_fqdn_over_hostname", "preserve_hostname", "puppet", "random_seed", "reporting", "resize_rootfs", "resolv_conf", "rh_subscription", "rpi", "rsyslog", "runcmd", "salt_minion", "snap", "spacewalk",
	"ssh", "ssh_authorized_keys", "ssh_deletekeys", "ssh_fp_console_blacklist", "ssh_genkeytypes", "ssh_import_id", "ssh_key_console_blacklist", "ssh_keys", "ssh_publish_hostkeys", "ssh_pwauth",
	"ssh_quiet_keygen", "swap", "system_info", "timezone", "ubuntu_advantage", "ubuntu_pro", "updates", "user", "users", "vendor_data", "version", "wireguard", "write_files", "yum_repo_dir", "yum_repos", "zypper"}

var (
	likeAutoinstall = regexp.MustCompile(`^(?i)auto[-_ ]?inst\w*$`)
	secretFile      = regexp.MustCompile(`(?i)token|secret|passw|credential|private|\.key$|id_(rsa|ed25519)$|kubeconfig`)
)

// userData judges what cloud-init is given: an installer's answers, or those of an image.
func (r *report) userData(text string) {
	root := r.yaml(text)
	first, _, _ := strings.Cut(strings.TrimPrefix(text, "\ufeff"), "\n")
	cloud := strings.TrimRight(first, "\r") == "#cloud-config"
	if root == nil {
		return
	}
	if !cloud && r.format == Autoinstall && get(root, "autoinstall") == nil && get(root, "version") != nil {
		r.autoinstall(pos(root), root) // autoinstall.yaml of a medium may do without the two lines around it
		return
	}
	if !cloud && !(r.format == Autoinstall && strings.HasSuffix(r.file, "autoinstall.yaml")) {
		r.add("cloud-config-header", at{1, 1}, "the first line is not exactly #cloud-config")
	}
	r.cloudTop(root)
	r.cloudConfig(root)
	k, v := entry(root, "autoinstall")
	switch {
	case v != nil && v.Kind == yaml.MappingNode:
		r.autoinstall(pos(k), v)
	case v != nil:
		r.add("value-kind", pos(k), "keys with values are wanted below %q", "autoinstall")
	}
}

// cloudTop finds keys that nobody reads, of which the dangerous one is autoinstall itself.
func (r *report) cloudTop(root *yaml.Node) {
	missing := r.format == Autoinstall && get(root, "autoinstall") == nil
	each(root, func(k, _ *yaml.Node) {
		switch {
		case missing && likeAutoinstall.MatchString(k.Value):
			r.add("autoinstall-missing", pos(k), "%q is not read: the key is \"autoinstall\"", k.Value)
			missing = false
		case !slices.Contains(cloudKeys, k.Value) && slices.Contains(autoinstallKeys, k.Value):
			r.add("cloud-config-unknown-key", pos(k), "%q belongs below autoinstall", k.Value)
		case !slices.Contains(cloudKeys, k.Value):
			r.add("cloud-config-unknown-key", pos(k), "cloud-config has no key %q%s", k.Value, like(k.Value, cloudKeys))
		}
	})
	if missing {
		r.add("autoinstall-missing", pos(root), "there is no key autoinstall")
	}
}

// cloudConfig judges users, names and files, wherever cloud-config stands.
func (r *report) cloudConfig(n *yaml.Node) {
	seq, mapping := yaml.SequenceNode, yaml.MappingNode
	r.kinds(n, map[string]yaml.Kind{"runcmd": seq, "bootcmd": seq, "packages": seq, "write_files": seq, "ssh_authorized_keys": seq, "chpasswd": mapping, "ntp": mapping, "ssh_keys": mapping})
	for _, key := range []string{"hostname", "fqdn"} {
		if v := get(n, key); v != nil {
			if s, ok := r.text(v); ok {
				r.hostname(pos(v), s)
			}
		}
	}
	if v := get(n, "password"); v != nil {
		r.cleartextOrHash(v)
	}
	if v := get(n, "timezone"); v != nil {
		r.timezone(pos(v), v.Value)
	}
	if v := get(n, "ntp", "enabled"); no(v) {
		r.clock(pos(v), "the clock is not set, and the file trusts certificates")
	}
	if v := get(n, "swap", "size"); v != nil && v.Value != "0" {
		r.swap(pos(v), "this is swap, and the file sets up a kubelet")
	}
	seen := map[string]bool{}
	r.keys(get(n, "ssh_authorized_keys"), seen)
	for _, u := range items(get(n, "users")) {
		r.cloudUser(u)
	}
	r.chpasswd(get(n, "chpasswd"))
	for _, f := range items(get(n, "write_files")) {
		r.writeFile(f)
	}
	for _, key := range []string{"runcmd", "bootcmd"} {
		r.commands(get(n, key))
	}
	for _, p := range items(get(n, "packages")) {
		if p.Kind == yaml.ScalarNode {
			r.text(p)
		}
	}
}

// keys judges a list of SSH keys.
func (r *report) keys(n *yaml.Node, seen map[string]bool) {
	for _, k := range items(n) {
		if v, ok := r.text(k); ok {
			r.sshKey(pos(k), v, seen)
		}
	}
}

// cleartextOrHash judges a value that may be either, which is how a password gets into a log.
func (r *report) cleartextOrHash(n *yaml.Node) (admits bool) {
	v, ok := r.text(n)
	if !ok {
		return false
	}
	if v != "" && !strings.HasPrefix(v, "$") && v[0] != '!' && v[0] != '*' {
		r.add("password-cleartext", pos(n), "a password stands here in clear text")
		return true
	}
	return r.hash(pos(n), v)
}

func (r *report) cloudUser(u *yaml.Node) {
	if u.Kind == yaml.ScalarNode {
		return // "default", or a name
	}
	// The names with hyphens are deprecated, and still read.
	field := func(key string) *yaml.Node {
		if v := get(u, key); v != nil {
			return v
		}
		return get(u, strings.ReplaceAll(key, "_", "-"))
	}
	name := get(u, "name")
	if v, ok := r.text(name); ok && v != "root" {
		r.user(pos(name), v)
	}
	if v := get(u, "uid"); v != nil {
		r.uid(pos(v), v.Value)
	}
	for _, key := range []string{"passwd", "hashed_passwd"} {
		if v := field(key); v != nil {
			if s, ok := r.text(v); ok {
				r.hash(pos(v), s)
			}
		}
	}
	if v := field("plain_text_passwd"); v != nil {
		r.add("password-cleartext", pos(v), "a password stands here in clear text")
	}
	r.keys(field("ssh_authorized_keys"), map[string]bool{})
	locked := !no(field("lock_passwd"))
	if locked && field("ssh_authorized_keys") == nil && field("ssh_import_id") == nil && !yes(field("system")) {
		r.add("login-nobody", pos(u), "this user has no SSH key, and the password is locked: nobody can log in")
	}
}

func (r *report) chpasswd(n *yaml.Node) {
	l := get(n, "list")
	if l != nil && l.Kind == yaml.ScalarNode {
		for _, line := range strings.Split(l.Value, "\n") {
			r.chpasswdLine(pos(l), line)
		}
	}
	for _, line := range items(l) {
		r.chpasswdLine(pos(line), line.Value)
	}
	for _, u := range items(get(n, "users")) {
		switch v := get(u, "password"); {
		case v == nil || is(get(u, "type"), "RANDOM"):
		case is(get(u, "type"), "text"):
			r.add("password-cleartext", pos(v), "a password stands here in clear text")
		default:
			if s, ok := r.text(v); ok {
				r.hash(pos(v), s)
			}
		}
	}
}

func (r *report) chpasswdLine(p at, line string) {
	if _, pw, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && pw != "R" && pw != "RANDOM" {
		if !strings.HasPrefix(pw, "$") {
			r.add("password-cleartext", p, "a password stands here in clear text")
			return
		}
		r.hash(p, pw)
	}
}

// writeFile judges one file that cloud-init writes.
func (r *report) writeFile(f *yaml.Node) {
	path, mode := get(f, "path"), get(f, "permissions")
	perm := "0644" // cloud-init's own
	if mode != nil {
		v, ok := r.text(mode)
		if !ok {
			return
		}
		perm = v
	}
	if path != nil && secretFile.MatchString(path.Value) && !strings.HasSuffix(perm, "00") {
		p := path
		if mode != nil {
			p = mode
		}
		r.add("secret-world-readable", pos(p), "%s looks like a secret, and gets mode %s", path.Value, perm)
	}
}

// commands judges a list of hooks: each is text, or a list of words.
func (r *report) commands(n *yaml.Node) {
	for _, c := range items(n) {
		if c.Kind == yaml.MappingNode {
			r.add("value-kind", pos(c), "a command is text or a list of words; text with \": \" in it needs quotes")
			continue
		}
		r.hookNode(c)
		if r.format == Autoinstall && len(c.Value) > maxArgument {
			r.add("hook-too-long", pos(c), "the hook has %d bytes, and an argument at most %d", len(c.Value), maxArgument)
		}
		for _, w := range items(c) {
			if r.format == Autoinstall || number(w.Value) < 0 || strings.HasPrefix(w.Value, "0") { // cloud-init writes numbers as they are
				r.text(w)
			}
		}
	}
}
