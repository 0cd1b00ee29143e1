package lint

import "slices"

// Rule is one thing that a file must not say.
type Rule struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Formats  []Format `json:"formats"` // empty: all
	Title    string   `json:"title"`
	Why      string   `json:"why"`
	Mend     string   `json:"mend"`
	// Source is what it rests on: run (by us, the result seen), code (read in the reader's
	// source), or use (what operators learned).
	Source string `json:"source"`
}

// Rules returns every rule, in the order of the documentation.
func Rules() []Rule { return slices.Clone(rules) }

var (
	inYAML      = []Format{Autoinstall, CloudConfig, MetaData, NetworkConfig, Butane}
	inTrees     = []Format{Autoinstall, CloudConfig, MetaData, NetworkConfig, Agama, Ignition, Butane}
	inSubiquity = []Format{Autoinstall}
	inUsers     = []Format{Autoinstall, CloudConfig, Kickstart, Preseed, AutoYaST, Agama, Ignition, Butane}
	inNets      = []Format{Autoinstall, NetworkConfig, Kickstart}
	inNetplan   = []Format{Autoinstall, NetworkConfig}
	inCmdlines  = []Format{CommandLine, IPXE, GRUB}
)

var rules = []Rule{
	// Which disk is erased.
	{"disk-selector-missing", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama, Ignition, Butane, Talos, Shell}, "no disk is named", "Subiquity then takes the largest disk, AutoYaST and Agama the first, Debian's installer the only one, Anaconda whichever it is told to partition: guesses, and wrong on the day a disk is added, or not found.", "name the one disk: serial for Subiquity, ignoredisk --only-use for Anaconda, partman-auto/disk, device, or search with a condition", "run and code"},
	{"disk-selector-loose", Error, []Format{Autoinstall, AutoYaST, Agama, Talos}, "a selector that fits several disks", "Of several disks that fit, the installer takes the first, and says nothing.", "select by what only one disk has: its serial, or a link of /dev/disk/by-id; in Agama with max 1 and ifNotFound error", "code"},
	{"disk-match-unknown-key", Error, inSubiquity, "a match that is not compared", "Subiquity passes over keys that it does not know, wwn and misspelt ones among them; what is left matches every disk, and the first is erased.", "use one of serial, model, vendor, path, id_path, devpath, ssd, size, install-media; serial is udev's ID_SERIAL", "run with Subiquity's own code, whose validator says Success"},
	{"disk-match-empty", Error, inSubiquity, "an empty match", "An empty match fits every disk, and the first is erased.", "match the disk's serial, or leave storage to a gate that names the one disk", "run with Subiquity's own code"},
	{"disk-match-glob", Error, []Format{Autoinstall, Kickstart}, "a pattern selects the disk", "The values are patterns, and lists in Anaconda: more disks may match than were meant.", "write the whole name; in Subiquity put [ ] around * ? and [ that are meant", "code"},
	{"disk-link-literal", Error, inSubiquity, "a link as a path", "Subiquity compares a path with the kernel's name and follows no link: the install stops without a disk.", "match serial, or resolve the link in early-commands into /autoinstall.yaml", "run with Subiquity's own code"},
	{"disk-kernel-name", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama, Ignition, Butane, Talos, CommandLine, IPXE, GRUB}, "a disk by its kernel name", "Kernel names are given in the order in which disks answer: with another disk, or another kernel, sda is another one.", "use a link of /dev/disk/by-id, or the disk's serial where the installer follows no link", "use"},
	{"disk-wwn-illegal", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama, Ignition, Butane, Talos, CommandLine, IPXE, GRUB}, "a WWN link that does not exist", "udev writes wwn-0x and 16 or 32 lower-case hex digits, and makes no such link for NVMe: another name is never found.", "copy the link's name from ls -l /dev/disk/by-id on the machine; for NVMe it begins with nvme-eui.", "code"},
	{"disk-selector-mismatch", Error, []Format{Kickstart}, "commands that speak of different disks", "What is cleared, partitioned and booted from must be what ignoredisk admits; else the installer stops, or uses another disk than was meant.", "name the same disk in ignoredisk, clearpart, part and bootloader", "use"},
	{"clearpart-unscoped", Error, []Format{Kickstart}, "clearpart erases every disk", "clearpart --all without --drives, and without ignoredisk --only-use, erases every disk that the machine sees, those of the SAN too.", "add ignoredisk --only-use=DISK and clearpart --drives=DISK", "code"},
	{"disk-layout-and-config", Error, inSubiquity, "layout and config at once", "layout wins, with a warning in a log that nobody reads: the partitions and the disk of config are not what is made.", "remove one of both", "code"},
	{"preseed-link-unresolved", Error, []Format{Preseed}, "a link that Debian's installer cannot resolve", "partman finds the disk behind a link for sd* only. For NVMe, virtio and eMMC it shows a menu, and waits for ever.", "resolve the link in partman/early_command, and debconf-set partman-auto/disk there", "run with libdebian-installer"},
	{"preseed-disks-skipped", Error, []Format{Preseed}, "a list of disks that may get shorter", "With lvm and raid, disks that are not found are passed over: an array on fewer disks, without a word.", "count the disks in partman/early_command, and power the machine off if one is missing", "code"},
	{"partition-rest-not-last", Error, inSubiquity, "a partition behind the rest of the disk", "A size of -1 takes what is left; nothing is left for the next.", "move the partition of size -1 to the end", "code"},
	{"partition-percent", Error, []Format{Autoinstall, Kickstart}, "more than the whole disk", "The percentages of one disk, or of one volume group, add up to more than 100.", "make them fit, or give the last one what is left: size: -1, --grow", "use"},
	{"partition-boot-missing", Error, []Format{Autoinstall, Kickstart, Preseed}, "nothing to boot from", "UEFI boots from an ESP, and BIOS with GPT from a partition for GRUB. Without either the installer stops half-way, or ends well and the machine does not start.", "add an ESP, and for BIOS a partition for GRUB: flag: boot with grub_device: true, and flag: bios_grub; reqpart in a kickstart; method{ efi } and method{ biosgrub } in a recipe", "use"},
	{"raid-members", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama}, "too few members for the level", "The array cannot be made, or has no redundancy.", "add members, or choose another level", "use"},
	{"raid-one-disk", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama}, "two members on one disk", "The disk that fails takes both of them, and the array with them.", "put each member on a disk of its own", "use"},
	{"raid-members-unequal", Warning, []Format{Autoinstall, Kickstart, AutoYaST, Agama}, "members that differ", "The array is as large as its smallest member, and as fast as its slowest.", "make all members of one size, on disks of one kind", "use"},
	{"raid-boot", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama}, "firmware reads no array", "UEFI looks for a FAT file system where the partition begins. It finds one in RAID 1 whose metadata lie at the end, 1.0, and in no other array.", "put /boot/efi on a partition of its own, or on RAID 1 with metadata 1.0", "use"},
	{"disk-preserve-wiped", Error, inSubiquity, "kept and wiped", "preserve says that what is there stays, and wipe that it goes: which one wins is nothing to find out on a disk with data.", "remove wipe, or preserve", "use"},
	{"secret-disk-passphrase", Error, []Format{Autoinstall, Kickstart, Preseed, AutoYaST, Agama}, "the disk's passphrase in the file", "Whoever reads the seed, a log of it or a backup can open the disk.", "enrol a key on the machine, in TPM 2.0 or Tang, at first boot", "use"},

	// Who may log in.
	{"password-cleartext", Error, inUsers, "a password in clear text", "Seeds are served over the network, and kept in logs and on the installed system. The validators of Subiquity, cloud-init and pykickstart let it pass.", "replace it by its hash: mkpasswd -m sha-512", "run with each validator"},
	{"password-empty", Error, inUsers, "an empty password", "An empty hash admits everybody without a password.", "lock the password with !, or give a hash", "use"},
	{"password-hash-weak", Error, inUsers, "a hash that is searched through", "MD5, SHA-1 and DES hashes are searched through in hours, and systems of today refuse some of them.", "make a new one: mkpasswd -m sha-512", "use"},
	{"password-hash-illegal", Error, inUsers, "not a crypt hash", "With a hash that is cut short, or none at all, nobody can log in; the validators do not look into it. A shell that expanded its $ is the usual reason.", "make one with mkpasswd -m sha-512, and put it in single quotes wherever a shell reads it", "run with ksvalidator"},
	{"password-hash-unsupported", Warning, []Format{Kickstart}, "a hash that the release may not read", "yescrypt, $y$, is younger than RHEL 8: the installer takes the line, and nobody can log in.", "make one with mkpasswd -m sha-512", "use"},
	{"ssh-key-malformed", Error, inUsers, "not an SSH public key", "sshd passes over a line that it cannot read: the machine installs, and nobody can log in.", "copy the whole line of the .pub file", "run with Subiquity's validator, which takes garbage"},
	{"ssh-key-weak", Warning, inUsers, "a short RSA key", "RHEL 9 and its kin refuse RSA keys below 2048 bits.", "make a key with ssh-keygen -t ed25519", "use"},
	{"ssh-key-twice", Warning, inUsers, "a key twice", "Who takes one of both away believes that access is gone.", "remove one", "use"},
	{"user-name-illegal", Error, inUsers, "a user name that is none", "useradd refuses it, after the disk was erased.", "use a lower-case letter or _, then letters, digits, _ and -, at most 32 in all", "use"},
	{"user-name-reserved", Error, inUsers, "a user name of the system", "The name exists already, or is kept for a package: the installer aborts at the end.", "take another name", "run with Subiquity, for admin"},
	{"user-uid-low", Warning, inUsers, "a uid of the system's range", "Packages take uids below 1000: one day two accounts own the same files.", "use a uid from 1000 on", "use"},
	{"login-nobody", Warning, []Format{Autoinstall, CloudConfig, Kickstart, Preseed}, "nobody can log in", "Every password is locked, and there is no key: the machine cannot be reached when it fails.", "add an SSH key, or a password's hash", "use"},

	// What the machine is called.
	{"hostname-illegal", Error, []Format{Autoinstall, CloudConfig, MetaData, Kickstart, Preseed, AutoYaST, Agama, Ignition, Butane, Talos, CommandLine, IPXE, GRUB}, "a host name that is none", "Names outside of a-z, 0-9 and hyphens do not resolve, are lowered by kubeadm, or are cut; the validators take them.", "use labels of a-z, 0-9 and hyphens inside, at most 63 each and 64 in all", "run with Subiquity's validator and ksvalidator"},
	{"timezone-unknown", Error, []Format{Autoinstall, CloudConfig, Kickstart, Preseed, AutoYaST, Agama}, "no such time zone", "The installer asks, or stops, or the machine's logs are hours off.", "use a name of the tz database, as Europe/Berlin or Etc/UTC", "use"},
	{"hostname-default", Warning, []Format{Autoinstall, CloudConfig, MetaData, Kickstart, Preseed, AutoYaST, Agama, Ignition, Butane, Talos, CommandLine, IPXE, GRUB}, "a host name that everybody has", "Two machines of this name overwrite each other in DNS, monitoring and the cluster.", "name the machine", "use"},
	{"meta-data-instance", Error, []Format{MetaData}, "no instance-id", "Without one cloud-init does not take the data source.", "add instance-id, another one for each install", "code"},

	// The network.
	{"net-address-illegal", Error, []Format{Autoinstall, NetworkConfig, Kickstart, Preseed, AutoYaST, Agama}, "not an address", "Leading zeros are octal to some readers and refused by others; the rest is no address at all. ksvalidator takes 300.1.1.1.", "write an IPv4 or IPv6 address without leading zeros", "run with ksvalidator"},
	{"net-prefix-missing", Error, []Format{Autoinstall, NetworkConfig, Kickstart, AutoYaST, Agama}, "an address without its network", "The installer refuses it, or takes /32 or the class of the address, and reaches no router.", "write ADDRESS/LENGTH, or --netmask in a kickstart", "use"},
	{"net-address-reserved", Error, []Format{Autoinstall, NetworkConfig, Kickstart, AutoYaST, Agama}, "an address that no machine has", "It is the network's own, its broadcast, the router's, or a group's.", "give the machine an address of its own", "use"},
	{"net-gateway-outside", Error, []Format{Autoinstall, NetworkConfig, Kickstart, Agama}, "a router that cannot be reached", "The route is refused when the interface comes up: no network, in mid-install.", "correct the router or the prefix, or set on-link: true", "use"},
	{"net-two-routers", Warning, inNetplan, "two default routes", "Which one is used depends on the order in which the interfaces come up.", "keep one, or give each a metric", "use"},
	{"net-dns-missing", Warning, inNets, "a static address without name servers", "Every URL with a name in it fails.", "add nameservers", "use"},
	{"net-mtu", Error, inNets, "an MTU that does not work", "IPv6 is switched off on a link below 1280.", "use 1280 to 9216, what every switch on the way carries", "use"},
	{"net-vlan-id", Error, inNets, "a VLAN id that is none", "0 and 4095 are reserved by 802.1Q.", "use an id from 1 to 4094", "use"},
	{"net-members", Error, inNetplan, "a bond or VLAN on nothing", "The interface is never made, or never gets a carrier.", "name its interfaces, or its link", "use"},
	{"net-bond-primary", Warning, inNetplan, "a bond without its first member", "Of an active-backup bond the kernel takes whichever is up first: machines of one rack send over different switches, and go on so after a failure.", "set parameters.primary", "use"},
	{"net-kernel-name", Warning, []Format{Autoinstall, NetworkConfig, Kickstart, AutoYaST, Agama}, "an interface by the kernel's name", "Names follow slots and drivers: after a repair, or under another kernel, the NIC is called otherwise and gets no address.", "match the MAC, and set-name; in a kickstart --device=MAC", "use"},
	{"net-name-twice", Error, inNetplan, "two interfaces of one name", "One of both keeps another name, and which one changes.", "give each its own set-name", "use"},
	{"net-name-long", Error, inNetplan, "a name that is too long", "The kernel's limit is 15 bytes.", "shorten it", "use"},
	{"net-unknown-key", Error, inNetplan, "a key that netplan does not know", "netplan refuses the whole file, and no interface comes up. cloud-init schema calls such files valid.", "correct the key's spelling and indentation", "run with cloud-init schema and netplan"},
	{"net-version", Error, inNetplan, "not version 2", "Version 1 is another language, which netplan does not read; without a version the file is passed over.", "write version: 2", "use"},
	{"mac-illegal", Error, inNets, "not one NIC's address", "No interface matches.", "write six bytes in hex with colons, in quotes", "use"},
	{"mac-local", Warning, inNets, "a MAC that software made up", "Bonds, bridges and virtual machines make them up, and they may be another one after a reboot.", "use the address that the NIC's maker gave, unless the machine is virtual", "use"},
	{"mac-twice", Error, inNetplan, "one MAC for two interfaces", "Both match the same NIC, and one of them never comes up.", "correct one of both", "use"},

	// Secrets.
	{"secret-private-key", Error, nil, "a private key", "Whoever reads the seed has it.", "make keys on the machine, and let the seed carry public ones only", "use"},
	{"secret-join-token", Error, nil, "a token that admits to a cluster", "Such tokens admit any machine, under any name; k3s' server token never expires, and is the whole cluster.", "let first boot ask for a token of its own, that lives for minutes", "run with kube-apiserver 1.35"},
	{"secret-in-url", Error, nil, "user and password in a URL", "URLs stand in logs, in /proc and in evidence.", "serve it by a path that cannot be guessed, or let the machine prove itself", "use"},
	{"secret-on-cmdline", Error, inCmdlines, "a secret on the command line", "Everybody on the machine can read /proc/cmdline, and it stands in DHCP, logs and captures.", "fetch it later, over HTTPS", "use"},
	{"secret-world-readable", Warning, []Format{Autoinstall, CloudConfig}, "a secret that everybody may read", "Any account of the machine can read the file.", "set permissions: \"0600\"", "use"},
	{"join-ca-unpinned", Error, nil, "a cluster that is not checked", "Whoever answers in its place gets the machine.", "pin the CA: caCertHashes sha256:..., or k3s' K10 form", "use"},
	{"swap-kubernetes", Warning, []Format{Autoinstall, CloudConfig, Kickstart, Preseed, AutoYaST, Agama}, "swap beneath a kubelet", "The kubelet does not start where swap is in use, unless its configuration says how it may be.", "make no swap, or say failSwapOn: false and memorySwap.swapBehavior", "use"},
	{"cgroup-v1", Warning, []Format{Kickstart}, "cgroup v1 beneath a kubelet", "RHEL 8 boots with cgroup v1, and the kubelet of 1.35 and later does not start there.", "add systemd.unified_cgroup_hierarchy=1 to bootloader --append, or take RHEL 9", "use"},

	// Where things come from.
	{"source-unpinned", Warning, nil, "a source that moves", "Two machines of one bundle get different packages, and nobody can say which.", "use a snapshot or a mirror of your own, with a date or a version in its path", "use"},
	{"source-unverified", Error, nil, "what is fetched is not verified", "Whoever sits on the way chooses what is installed.", "import the right key or CA, and drop the option", "use"},
	{"source-checksum-missing", Error, []Format{Kickstart, Ignition, Butane}, "no checksum", "The installer takes whatever comes; ksvalidator does not ask for a checksum, nor look at its value.", "add its SHA-256", "run with ksvalidator"},
	{"release-ended", Warning, []Format{Kickstart, Preseed}, "a release without updates", "Holes stay open, and its mirrors move to an archive one day.", "take a release that is maintained", "use: what had ended in November 2026"},
	{"time-unsynchronised", Warning, []Format{Autoinstall, CloudConfig, Kickstart, Preseed, Talos}, "TLS without a clock", "A certificate is not valid yet, or no more, on a machine whose clock is wrong: new ones come with the time of their factory.", "leave time synchronisation on, and name servers that the machine reaches", "use"},

	// Hooks.
	{"hook-failure-ignored", Warning, []Format{Kickstart, Preseed}, "a hook whose failure is passed over", "Only Subiquity stops when a hook fails. Debian's installer shows it and goes on, Anaconda needs --erroronfail: a gate that cannot end the machine is none.", "let the hook itself report and power off: ... || poweroff -f", "code"},
	{"hook-failure-unreported", Warning, inSubiquity, "nobody learns of an error", "After an error the live system stays up for ever, and is silent.", "add error-commands that report", "code"},
	{"hook-pipe-to-shell", Warning, nil, "a download into a shell", "If the connection breaks, the first half has run.", "fetch into a file, compare its digest, then run it", "use"},
	{"hook-bashism", Warning, []Format{Preseed}, "bash in Debian's installer", "The installer's shell is busybox: the hook fails, is shown, and passed over.", "write for a POSIX shell, and try busybox sh -n", "use"},
	{"hook-syntax", Error, []Format{Shell, Kickstart, Preseed, Autoinstall, CloudConfig, AutoYaST, Agama}, "a hook that no shell can read", "A shell runs what stands before the place, and then stops: the gate or the report behind it never runs.", "correct it; sh -n FILE shows the place", "use"},
	{"hook-hash-expanded", Error, []Format{Shell, Kickstart, Preseed, Autoinstall, CloudConfig, AutoYaST, Agama}, "a hash that the shell takes apart", "Within double quotes, and in a here-document whose end is not quoted, a shell puts in variables for $6 and what follows: what is left is no hash, and nobody can log in.", "put it in single quotes, or quote the word that ends the here-document", "run with dash and bash"},
	{"hook-exit-unreported", Warning, []Format{Shell, Kickstart, Preseed, CloudConfig, AutoYaST, Agama}, "a hook that ends in silence", "With set -e the first failure ends it, and without a trap nobody learns where.", "add trap '...' EXIT, or ERR in bash, which reports", "use"},
	{"hook-too-long", Error, []Format{Autoinstall, Preseed}, "a hook that cannot be run", "The installer hands it to a shell as one argument, and Linux refuses one of more than 131,071 bytes.", "fetch it as a file, and run that", "code: MAX_ARG_STRLEN"},
	{"hook-no-interpreter", Error, []Format{Shell, IPXE, Agama}, "no #! line", "Without it what runs the file is chance, or nothing does: Agama starts a script as a program.", "begin with #!/bin/sh, or #!ipxe", "use"},

	// How it is written.
	{"syntax", Error, nil, "the file cannot be read", "The installer asks, or stops.", "correct the line", "use"},
	{"format-not-linted", Error, nil, "nothing was judged", "Silence would be taken for praise.", "say the format with --format, or use the format's own validator", "use"},
	{"value-kind", Error, nil, "a value of another kind", "The reader stops, or passes over it.", "correct the indentation, or the kind of the value", "use"},
	{"key-twice", Error, []Format{Autoinstall, CloudConfig, MetaData, NetworkConfig, Agama, Ignition, Butane, Talos, Preseed}, "one key twice", "The last one wins, without a word.", "remove one", "run with PyYAML"},
	{"yaml-not-text", Error, inTrees, "a word that is not text", "PyYAML reads YAML 1.1, in which no, on, 010, 1.10 and 2026-01-01 are no text. cloud-init then refuses the value, or takes another one.", "put it in double quotes", "run with PyYAML and cloud-init"},
	{"yaml-sexagesimal", Error, inYAML, "a MAC that is a number", "PyYAML reads 52:54:00:12:34:56 without quotes as 41135085296: no interface matches. With a letter in it, the same line works.", "put it in double quotes", "run with PyYAML"},
	{"yaml-anchor", Warning, inYAML, "an alias", "Who changes the one place changes the other, and what the installer writes back has neither.", "write the value out", "use"},
	{"yaml-second-document", Error, inYAML, "a second document", "Nobody reads it.", "remove the line ---, or the file's other half", "use"},
	{"template-leftover", Error, []Format{Autoinstall, CloudConfig, MetaData, Kickstart, Preseed, NetworkConfig, AutoYaST, Agama, Ignition, Butane, Talos, CommandLine, IPXE, GRUB}, "a template that was not filled in", "The marker is taken for the value.", "fill it in", "use"},
	{"text-bom", Error, nil, "a byte order mark", "#cloud-config, #_preseed_V1 and #! are then not at the beginning, and not seen.", "save the file as UTF-8 without BOM", "use"},
	{"text-cr", Error, nil, "line ends of Windows", "The carriage return is a part of the value: of a host name, a URL, a hash.", "save the file with line feeds only", "use"},
	{"text-control", Error, nil, "a control character", "Readers stop there, or take it for a part of the value.", "remove it", "use"},
	{"text-invisible", Error, nil, "an invisible character", "It came by copying from a page, and is a part of the value.", "type the line anew", "use"},
	{"text-not-utf8", Error, nil, "not UTF-8", "Readers stop there.", "save the file as UTF-8", "use"},
	{"cloud-config-header", Error, []Format{Autoinstall, CloudConfig}, "the first line is not #cloud-config", "cloud-init does not know the file, and passes over it: a session that asks everything.", "make #cloud-config the first line, alone", "use"},
	{"cloud-config-unknown-key", Error, []Format{Autoinstall, CloudConfig}, "a key that cloud-init does not know", "It is passed over. cloud-init schema of Debian 12 lets it pass.", "correct its spelling and indentation", "run with cloud-init 22.4"},
	{"autoinstall-missing", Error, inSubiquity, "no autoinstall", "Without the key the installer asks everything, and waits.", "put the answers below autoinstall:", "code"},
	{"autoinstall-unknown-key", Error, inSubiquity, "a key that Subiquity does not know", "It is passed over with a warning: late-commands that never run, for example.", "correct its spelling and indentation", "run with Subiquity's validator, which says Success"},
	{"autoinstall-key-release", Error, inSubiquity, "a key of a later release", "The installer passes over it with a warning. It is looked for where the release is known: in preflight, and with --release.", "write what that release reads, or take a later one", "code: the schemas of ten releases"},
	{"autoinstall-version", Error, inSubiquity, "version is not 1", "The installer stops.", "write version: 1, without quotes", "use"},
	{"autoinstall-identity", Error, inSubiquity, "the account is not complete", "The installer stops late, or asks.", "give identity.hostname, username and password, or user-data", "code"},
	{"autoinstall-hostname", Warning, inSubiquity, "a name without effect", "Subiquity writes preserve_hostname: true.", "put it into identity.hostname", "code"},
	{"autoinstall-interactive", Error, inSubiquity, "questions", "The installer waits at the screen, and reports nothing.", "remove interactive-sections", "code"},
	{"autoinstall-reporting-type", Error, inSubiquity, "a reporter that does not exist", "The installer ends with a KeyError; rsyslog and none are documented, and do.", "use webhook, print, log or journald", "run with Subiquity's own code"},
	{"autoinstall-reporting-key", Error, inSubiquity, "a key that a reporter does not take", "The installer ends with a TypeError.", "remove it", "run with Subiquity's own code"},
	{"autoinstall-apt-fallback", Warning, inSubiquity, "another source in silence", "If the mirror does not answer, the installer takes what is on the medium.", "set apt.fallback: abort", "code"},
	{"autoinstall-refresh", Warning, inSubiquity, "the installer replaces itself", "Two installs of one bundle are made by different installers.", "set refresh-installer.update: false", "code"},
	{"kickstart-command-missing", Error, []Format{Kickstart}, "a command is missing", "Anaconda asks, or with inst.cmdline stops. pykickstart calls a file with nothing but text valid.", "add the command", "run with ksvalidator"},
	{"kickstart-source-missing", Warning, []Format{Kickstart}, "no source", "Without inst.repo on the command line the installer asks.", "add url, liveimg or ostreecontainer", "run with ksvalidator"},
	{"kickstart-section-end", Error, []Format{Kickstart}, "a section without its end", "What follows is a part of the script, or the file is refused.", "end every section with %end", "use"},
	{"kickstart-unknown-command", Error, []Format{Kickstart}, "a command that does not exist", "The file is refused, after the machine was started.", "correct its spelling", "use"},
	{"kickstart-command-version", Error, []Format{Kickstart}, "a command of another release", "The release that #version names does not take it.", "write what that release takes", "run with ksvalidator"},
	{"kickstart-hash-cut", Error, []Format{Kickstart}, "a # that cuts the line", "A password, a URL or a key is cut there, and half of it is taken.", "put the word in double quotes", "run with pykickstart"},
	{"kickstart-key-unquoted", Error, []Format{Kickstart}, "an SSH key without quotes", "The words behind the first blank are unknown arguments: the file is refused.", "write sshkey --username=NAME \"KEY\"", "run with pykickstart"},
	{"kickstart-reqpart-autopart", Error, []Format{Kickstart}, "reqpart and autopart", "They exclude each other.", "remove reqpart: autopart makes what firmware needs", "run with pykickstart"},
	{"kickstart-include", Warning, []Format{Kickstart}, "a part that is not here", "What is made or fetched on the machine is judged by nobody.", "lint what it includes too", "use"},
	{"preseed-header", Error, []Format{Preseed}, "no #_preseed_V1", "The installer does not take the file for a preseed.", "make #_preseed_V1 the first line", "use"},
	{"preseed-double-blank", Error, []Format{Preseed}, "a second blank before the value", "It is a part of the value: \" true\" is not true.", "put one blank before the value", "code"},
	{"preseed-continuation", Error, []Format{Preseed}, "a blank behind a backslash", "The line is not continued: half a command is the answer.", "remove the blank", "use"},
	{"preseed-type", Error, []Format{Preseed}, "a type that does not exist", "The answer is not taken. debconf-set-selections -c says so, and exits with 0.", "use string, boolean, select, multiselect, password or note", "run with debconf"},
	{"preseed-unknown-question", Warning, []Format{Preseed}, "a question that nobody asks", "The one that was meant is asked, or a default answers it. debconf-set-selections knows no questions.", "correct its spelling", "run with debconf"},
	{"preseed-answer-missing", Warning, []Format{Preseed}, "a question that waits", "The installer asks before it writes the disk, and waits.", "answer it, here or in a file that this one is included in", "code"},
	{"autoyast-unknown-section", Error, []Format{AutoYaST}, "a section that does not exist", "It is passed over; the schema lets it pass.", "correct its spelling", "run with jing"},
	{"autoyast-config-type", Error, []Format{AutoYaST}, "an element without its type", "YaST reads text where it wants a list or a boolean, and stops or takes it for true.", "add config:type", "use"},
	{"autoyast-confirm", Error, []Format{AutoYaST}, "the installer waits", "It shows its proposal, and waits for somebody.", "set general/mode/confirm to false", "code"},
	{"agama-unknown-key", Error, []Format{Agama}, "a key that Agama does not know", "The profile is refused, and the installer asks.", "correct its spelling", "code"},
	{"agama-questions", Warning, []Format{Agama}, "questions wait", "Without the policy auto every question that comes up waits for somebody.", "set questions.policy to auto", "code"},
	{"ignition-version", Error, []Format{Ignition, Butane}, "not a version of Ignition", "The machine stops in its initramfs.", "write 3.4.0, or what the system's Ignition reads; in Butane variant: flatcar and version: 1.1.0, or variant: fcos and version: 1.5.0", "run with ignition-validate"},
	{"ignition-unknown-key", Error, []Format{Ignition, Butane}, "a key that Ignition does not know", "It is passed over; the JSON schema lets it pass.", "correct its spelling", "run"},
	{"ignition-illegal", Error, []Format{Ignition, Butane}, "what Ignition refuses", "The machine stops in its initramfs: the reader's own library says so.", "do as the message says; the specification of the version lists every key", "code: the library itself judges"},
	{"butane-local", Warning, []Format{Butane}, "a file beside this one", "Bootlane translates what a bundle gives by itself, and reads nothing beside it.", "write the file's text inline", "code"},
	{"ignition-mode", Error, []Format{Ignition, Butane}, "a mode that is decimal", "JSON has no octal numbers, and those of YAML begin with 0: 644 is 01204.", "write 420 for 0644, 384 for 0600, 493 for 0755; in Butane 0644", "run with butane"},

	{"talos-unknown-key", Error, []Format{Talos}, "a key that Talos does not know", "Talos refuses the whole configuration, and the machine waits for another one.", "correct its spelling and indentation, or its kind", "run with Talos' own reader"},
	{"talos-illegal", Error, []Format{Talos}, "what Talos refuses", "The machine waits for another configuration: Talos' own library says so, for bare metal, and of warnings too.", "do as the message says", "code: the library itself judges"},
	{"talos-wipe", Warning, []Format{Talos}, "nothing is said of wipe", "Whether what an older Talos left on the disk stays there depends on the release.", "write wipe: true, or false; Bootlane writes true, for a grant erases the disk", "code"},
	{"talos-static-token", Warning, []Format{Talos}, "a token that admits to the cluster", "It does not end, and whoever has the file, from a repository, a bundle or a backup, can add a machine.", "keep the file where the cluster's secrets are, and the bundle's store as well", "use"},

	// The kernel's command line.
	{"cmdline-length", Error, inCmdlines, "a command line that is cut", "x86 kernels keep 2047 bytes; Debian's installer panics beyond 32 arguments.", "make it shorter: answers belong into the seed", "code"},
	{"cmdline-autoinstall-missing", Error, inCmdlines, "no word autoinstall", "Subiquity asks whether to go on, and waits for ever.", "add the word autoinstall", "code"},
	{"cmdline-seed-slash", Error, inCmdlines, "a seed's URL without its slash", "cloud-init before 23.1 appends user-data to it as it is, and finds nothing; with a query, later ones too.", "end the URL with /, and give it no query", "code"},
	{"cmdline-seed-guessable", Warning, inCmdlines, "answers that anybody can fetch", "Names, UUIDs and MACs are seen by everybody on the network, and who knows them has the machine's answers, with the hashes in them.", "serve them by a path with 128 random bits in it, for as long as the installation takes", "use"},
	{"cmdline-seed-local", Warning, inCmdlines, "a seed by network under the name of a local one", "cloud-init before 24.1 reads the seed, takes it for one that is there without a network, and goes on without it: the installer asks.", "write ds=nocloud-net, which later ones take as well", "run with cloud-init 22.4.2"},
	{"cmdline-cloud-config-url", Warning, inCmdlines, "the medium is loaded twice", "url= is also cloud-init's: it loads the medium once more, into RAM, and is killed for it.", "add cloud-config-url=/dev/null", "cloud-init issues 3893 and 6836"},
	{"cmdline-quote", Error, []Format{IPXE}, "quotes in iPXE", "iPXE has no quoting: the kernel gets the quotes as a part of the value.", "write the value bare", "code"},
	{"cmdline-semicolon", Error, []Format{GRUB}, "a ; that GRUB takes", "The ; ends GRUB's command: ds=nocloud reaches the kernel without the URL of its seed, and the installer asks.", "put the argument in single quotes", "code"},
	{"cmdline-unexpanded", Error, []Format{CommandLine}, "a variable that was not expanded", "The kernel gets the text.", "expand it", "use"},
	{"cmdline-autoyast-slash", Error, inCmdlines, "AutoYaST is sent to a directory", "A URL that ends with / means rules and classes.", "name the profile", "code"},
	{"cmdline-ks-asks", Warning, inCmdlines, "Anaconda asks", "Without inst.cmdline what is missing is a question at the screen.", "add inst.cmdline", "code"},
}
