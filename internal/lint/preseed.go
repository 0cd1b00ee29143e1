package lint

import (
	"regexp"
	"slices"
	"strings"
)

var (
	preseedTypes = []string{"string", "boolean", "select", "multiselect", "password", "note", "text", "title", "error", "seen"}
	preseedLine  = regexp.MustCompile(`^(\S+)([ \t]+)(\S+)([ \t]+)(\S+)(.*)$`)
	// The questions of those parts of the installer in which a mistyped one is dangerous: it is
	// asked, or a default answers it.
	preseedExact = map[string][]string{
		"passwd":         {"root-login", "make-user", "root-password", "root-password-again", "root-password-crypted", "user-fullname", "username", "user-password", "user-password-again", "user-password-crypted", "user-uid", "user-default-groups", "shadow", "password-mismatch", "password-empty", "username-bad", "username-reserved", "allow-password-empty"},
		"partman-auto":   {"disk", "method", "init_automatically_partition", "choose_recipe", "expert_recipe", "expert_recipe_file", "purge_lvm_from_device", "select_disk", "cap-ram", "default_filesystem", "automatically_partition"},
		"partman":        {"confirm", "confirm_nooverwrite", "choose_partition", "early_command", "mount_style", "default_filesystem", "alignment", "unmount_active", "filter_mounted", "installation_medium_mounted", "confirm_new_label"},
		"partman-lvm":    {"confirm", "confirm_nooverwrite", "device_remove_lvm", "device_remove_lvm_span", "vgdelete_confirm"},
		"partman-md":     {"confirm", "confirm_nooverwrite", "device_remove_md", "deleteverify"},
		"preseed":        {"early_command", "late_command", "run", "include", "include_command", "url", "include/checksum", "run/checksum", "url/checksum", "interactive", "file", "boot_command", "early_command_failed"},
		"mirror":         {"country", "protocol", "suite", "codename", "udeb/suite", "udeb/components", "http/hostname", "http/directory", "http/proxy", "http/mirror", "http/countries", "https/hostname", "https/directory", "https/proxy", "https/mirror", "https/countries", "ftp/hostname", "ftp/directory", "ftp/proxy"},
		"grub-installer": {"only_debian", "with_other_os", "bootdev", "choose_bootdev", "multiple-disks", "skip", "force-efi-extra-removable", "update-nvram", "password", "password-again", "password-crypted", "make_active", "grub2_instead_of_grub_legacy", "enable_os_prober_otheros_yes", "enable_os_prober_otheros_no", "timeout", "add-kernel-opts"},
	}
	// The parts of the installer whose questions are not all in the table above.
	preseedParts = []string{"debian-installer", "keyboard-configuration", "console-setup", "localechooser", "languagechooser", "countrychooser", "netcfg", "hw-detect", "anna", "clock-setup", "time", "tzsetup", "tzdata",
		"base-installer", "apt-setup", "pkgsel", "finish-install", "cdrom-detect", "cdrom-checker", "network-console", "disk-detect", "auto-install", "rescue", "save-logs", "user-setup", "lilo-installer", "nobootloader", "flash-kernel",
		"partman-auto-lvm", "partman-auto-raid", "partman-auto-crypto", "partman-basicfilesystems", "partman-basicmethods", "partman-btrfs", "partman-crypto", "partman-efi", "partman-ext3", "partman-iscsi", "partman-jfs", "partman-multipath", "partman-nbd",
		"partman-newworld", "partman-partitioning", "partman-prep", "partman-target", "partman-xfs", "partman-zfs", "partman-swapfile", "tasksel", "ethdetect", "net-retriever", "iso-scan", "media-retriever", "load-iso", "di-utils", "retriever", "oem-config", "ubiquity", "live-installer", "choose-mirror", "espeakup", "brltty", "bootstrap-base"}
	// Each needs an answer, or the installer asks before it writes the disk.
	preseedRequired = []string{"partman-auto/method", "partman/choose_partition", "partman/confirm", "partman/confirm_nooverwrite", "partman-partitioning/confirm_write_new_label"}
	preseedByMethod = map[string][]string{"lvm": {"partman-lvm/device_remove_lvm", "partman-lvm/confirm", "partman-lvm/confirm_nooverwrite"}, "crypto": {"partman-lvm/device_remove_lvm", "partman-lvm/confirm", "partman-lvm/confirm_nooverwrite"},
		"raid": {"partman-md/device_remove_md", "partman-md/confirm"}}
	bashism   = regexp.MustCompile(`\[\[ |&>|<\(|(^|[;&|] *)(source|function|declare) |\$\{[A-Za-z_]+(//|\^|,,)`)
	endsBox   = regexp.MustCompile(`\b(poweroff|reboot|halt)\b`)
	tailBlank = regexp.MustCompile(`\\[ \t]+$`)
)

// endedDebian are the releases without updates, in November 2026.
var endedDebian = []string{"wheezy", "jessie", "stretch", "buster", "bullseye"}

// gptOnly is a partition for disks with a GPT.
var gptOnly = regexp.MustCompile(`\$(?:iflabel|reusemethod)\{ *gpt *\}`)

// bootMethod is what partman calls a partition that firmware starts from.
var bootMethod = regexp.MustCompile(`method\{ *(efi|biosgrub|prep) *\}`)

// answer is one line of a preseed.
type answer struct {
	question, kind, value string
	at, valueAt           at
}

// preseed judges the answers to Debian's installer. debconf-set-selections looks only whether a
// line can be split, and knows no question.
func (r *report) preseed(text string) {
	if !strings.HasPrefix(text, "#_preseed_V1\n") && !strings.HasPrefix(text, "#_preseed_V1\r") {
		r.add("preseed-header", at{1, 1}, "the first line is not #_preseed_V1")
	}
	answers := map[string]answer{}
	for _, a := range r.preseedLines(text) {
		if a.kind == "seen" {
			continue // whether to ask, not what to answer
		}
		if first, ok := answers[a.question]; ok {
			r.add("key-twice", a.at, "%s is answered on line %d already: the last one wins", a.question, first.at.line)
		}
		answers[a.question] = a
		r.preseedAnswer(a)
	}
	required := slices.Concat(preseedRequired, preseedByMethod[answers["partman-auto/method"].value])
	if _, includes := answers["preseed/include"]; !includes && answers["preseed/include_command"].question == "" {
		for _, q := range required {
			if _, ok := answers[q]; !ok {
				r.add("preseed-answer-missing", at{1, 1}, "%s has no answer: the installer asks", q)
			}
		}
	}
	r.preseedDisks(answers)
	r.preseedLayout(answers)
	r.preseedLogin(answers)
}

// preseedLines joins what backslashes join, and splits each line.
func (r *report) preseedLines(text string) (out []answer) {
	lines := strings.Split(text, "\n")
	for n := 0; n < len(lines); n++ {
		line, first := strings.TrimSuffix(lines[n], "\r"), n
		if comment(line) || strings.TrimSpace(line) == "" {
			continue
		}
		for {
			if m := tailBlank.FindStringIndex(lines[n]); m != nil {
				r.add("preseed-continuation", at{n + 1, column(lines[n], m[0])}, "a blank follows the backslash: the line ends here")
			}
			if !strings.HasSuffix(line, `\`) || n+1 >= len(lines) {
				break
			}
			n++
			line = strings.TrimSuffix(line, `\`) + strings.TrimSuffix(lines[n], "\r")
		}
		if a, ok := r.preseedSplit(line, first+1, lines[first]); ok {
			out = append(out, a)
		}
	}
	return out
}

// preseedSplit splits a line, which may have begun with less: the blanks of a recipe that begins
// on the next line are nobody's mistake.
func (r *report) preseedSplit(line string, n int, begun string) (answer, bool) {
	body := strings.TrimLeft(line, " \t")
	m := preseedLine.FindStringSubmatchIndex(body)
	indent := len(line) - len(body)
	if m == nil {
		r.add("syntax", at{n, indent + 1}, "a line is OWNER QUESTION TYPE VALUE, with one blank between them")
		return answer{}, false
	}
	place := func(i int) at { return at{n, column(line, min(indent+i, len(line)))} }
	a := answer{question: body[m[6]:m[7]], kind: body[m[10]:m[11]], at: place(m[6])}
	rest, folded := body[m[12]:m[13]], len(strings.TrimRight(begun, " \t\\")) <= indent+m[11]
	a.valueAt = place(m[12] + min(1, len(rest)))
	switch {
	case !slices.Contains(preseedTypes, a.kind):
		r.add("preseed-type", place(m[10]), "%q is not a type: %s", a.kind, strings.Join(preseedTypes, ", "))
	case folded:
	case len(rest) > 1 && strings.HasPrefix(rest[1:], " ") && strings.TrimSpace(rest) != "" || strings.HasPrefix(rest, " \t"):
		r.add("preseed-double-blank", a.valueAt, "a second blank stands before the value, and is a part of it")
	}
	a.value = strings.TrimSpace(rest)
	if owner := body[m[2]:m[3]]; owner == "d-i" {
		r.preseedQuestion(a)
	}
	return a, true
}

// preseedQuestion finds a question that nobody asks.
func (r *report) preseedQuestion(a answer) {
	part, name, _ := strings.Cut(a.question, "/")
	exact, ok := preseedExact[part]
	switch {
	case ok && !slices.Contains(exact, name):
		r.add("preseed-unknown-question", a.at, "the installer has no question %q%s", a.question, like(name, exact))
	case !ok && !slices.Contains(preseedParts, part):
		r.add("preseed-unknown-question", a.at, "the installer has no part %q%s", part, like(part, preseedParts))
	}
}

func (r *report) preseedAnswer(a answer) {
	switch q := a.question; q {
	case "netcfg/get_hostname", "netcfg/hostname":
		if a.value != "" {
			r.hostname(a.valueAt, a.value)
		}
	case "passwd/username":
		r.user(a.valueAt, a.value)
	case "passwd/user-uid":
		r.uid(a.valueAt, a.value)
	case "passwd/root-password", "passwd/user-password", "passwd/root-password-again", "passwd/user-password-again":
		r.add("password-cleartext", a.valueAt, "a password stands here in clear text")
	case "passwd/root-password-crypted", "passwd/user-password-crypted":
		r.hash(a.valueAt, a.value)
	case "partman-crypto/passphrase", "partman-crypto/passphrase-again":
		r.add("secret-disk-passphrase", a.valueAt, "the passphrase of the disk stands here in clear text")
	case "mirror/suite", "mirror/udeb/suite", "mirror/codename":
		if slices.Contains([]string{"stable", "oldstable", "testing", "unstable", "sid"}, a.value) {
			r.add("source-unpinned", a.valueAt, "%s is another release one day", a.value)
		}
		if slices.Contains(endedDebian, a.value) {
			r.add("release-ended", a.valueAt, "%s gets no updates any more", a.value)
		}
	case "mirror/http/hostname", "mirror/https/hostname":
		if movingHost.MatchString(a.value) {
			r.add("source-unpinned", a.valueAt, "what %s has changes from day to day", a.value)
		}
	case "clock-setup/ntp":
		if a.value == "false" {
			r.clock(a.valueAt, "the clock is not set, and the file trusts certificates")
		}
	case "grub-installer/bootdev":
		r.disk(a.valueAt, a.value)
	case "netcfg/get_ipaddress", "netcfg/get_gateway":
		if a.value != "" {
			r.address(a.valueAt, a.value)
		}
	case "preseed/early_command", "preseed/late_command", "partman/early_command", "preseed/run":
		if !endsBox.MatchString(a.value) && q != "preseed/run" {
			r.add("hook-failure-ignored", a.valueAt, "a hook that fails is shown, and the install goes on: nothing here ends the machine")
		}
		if bashism.MatchString(a.value) {
			r.add("hook-bashism", a.valueAt, "the installer's shell is busybox, which is no bash")
		}
		if len(a.value) > maxArgument {
			r.add("hook-too-long", a.valueAt, "the hook has %d bytes, and an argument at most %d", len(a.value), maxArgument)
		}
		if q != "preseed/run" { // which names files
			r.hook(a.valueAt, a.value, false, false)
		}
	case "time/zone":
		r.timezone(a.valueAt, a.value)
	}
}

// preseedDisks judges which disk is erased.
func (r *report) preseedDisks(answers map[string]answer) {
	d, named := answers["partman-auto/disk"]
	_, resolved := answers["partman/early_command"]
	method, partitions := answers["partman-auto/method"]
	if !named || d.value == "" {
		if partitions && !resolved {
			r.add("disk-selector-missing", method.at, "there is no partman-auto/disk: a machine with one disk loses that one, whichever it is")
		}
		return
	}
	disks := strings.Fields(d.value)
	for _, v := range disks {
		r.disk(d.valueAt, v)
		if strings.HasPrefix(v, "/dev/disk/") && !resolved && !strings.Contains(v, "/ata-") && !strings.Contains(v, "/wwn-") && !strings.Contains(v, "/scsi-") && !strings.Contains(v, "/usb-") {
			r.add("preseed-link-unresolved", d.valueAt, "the installer resolves such links for sd* only: with %q it shows a menu and waits", v)
		}
	}
	if len(disks) > 1 && !resolved && (method.value == "lvm" || method.value == "raid") {
		r.add("preseed-disks-skipped", d.valueAt, "%s passes over disks that it does not find, and goes on with the rest", method.value)
	}
}

// preseedLayout judges what is made of the disk.
func (r *report) preseedLayout(answers map[string]answer) {
	recipe, own := answers["partman-auto/expert_recipe"]
	label := answers["partman-partitioning/choose_label"].value + answers["partman-partitioning/default_label"].value
	gpt := strings.Contains(label, "gpt") || gptOnly.MatchString(recipe.value) // else it is the older one, on machines that start by BIOS
	if own && gpt && !bootMethod.MatchString(recipe.value) {
		r.add("partition-boot-missing", recipe.valueAt, "the recipe has no partition that firmware boots from a GPT: method{ efi } for UEFI, method{ biosgrub } for BIOS")
	}
	if arrays, ok := answers["partman-auto-raid/recipe"]; ok {
		r.preseedArrays(arrays)
	}
	r.preseedSwap(answers)
}

func (r *report) preseedLogin(answers map[string]answer) {
	locked := func(v string) bool { return v == "" || v[0] == '!' || v[0] == '*' }
	user, ok := answers["passwd/user-password-crypted"]
	if _, late := answers["preseed/late_command"]; ok && !late && locked(user.value) && locked(answers["passwd/root-password-crypted"].value) {
		r.add("login-nobody", user.at, "the password is locked, and no late_command could bring an SSH key: nobody can log in")
	}
}
