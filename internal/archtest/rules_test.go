package archtest

// everybody lets a room import every other.
const everybody = "*"

// room is what one package may be: which of our packages it may import, and how
// large it may grow. Every room but a leaf may also import internal/lane.
type room struct {
	imports []string
	leaf    bool // imports nothing of ours, not even lane
	budget  int  // lines of production code that are neither blank nor comment
	why     string
}

// rooms is the import table. A package that is not in it fails, and so does one
// that is gone. A budget is the size of the day it was set, and about a quarter.
func rooms() map[string]room {
	return map[string]room{
		"cmd/bootlane":        {imports: []string{"internal/cli"}, budget: 40, why: "main hands over at once"},
		"cmd/bootlane-agent":  {imports: []string{"internal/agent"}, budget: 40, why: "main hands over at once; the agent must stay small enough for RAM"},
		"internal/lane":       {leaf: true, budget: 5700, why: "the domain knows nobody. 4900 until machines were looked at, and records made of them, 4050 until it described and judged the networks and disk layouts of installed systems, 3500 until it judged who may join a cluster, and described what first boot proves"},
		"internal/strictyaml": {leaf: true, budget: 400, why: "a reader of files, not of machines"},
		"internal/archtest":   {leaf: true, budget: 0, why: "tests only"},
		"internal/script":     {budget: 400, why: "340 until scripts led to an agent that only looks"},
		"internal/ignition":   {imports: []string{"internal/strictyaml"}, budget: 180, why: "texts to configurations of Ignition, by the libraries of its makers; what Bootlane adds is the seed's"},
		"internal/shell":      {leaf: true, budget: 85, why: "texts to faults, by a library. 45 until it told what a shell makes of a hash, and that it ends in silence"},
		"internal/talos":      {imports: []string{"internal/strictyaml"}, budget: 310, why: "texts to configurations of Talos, and values into them, by the library of its makers"},
		"internal/seed":       {imports: []string{"internal/ignition", "internal/shell", "internal/talos"}, budget: 2400, why: "2300 until a disk had a model and a name; one installer more is a file of texts and what they must know; 2200 until disks were encrypted, 1700 until Ignition and Talos, 800 until bundles had sections, installed systems layouts, and networks of their own in the forms of four network managers, 480 until those of SUSE, 400 until Anaconda"},
		"internal/diagnose":   {budget: 360, why: "280 until runs could stop at their cluster, and it named the checks of first boot"},
		"internal/migrate":    {budget: 335},
		"internal/lint":       {imports: []string{"internal/ignition", "internal/shell", "internal/talos", "internal/strictyaml"}, budget: 3700, why: "files to findings: no sockets, no clock, no files. 3100 until arrays, swap and clocks were judged in every format"},
		"internal/store":      {budget: 1400, why: "moves values and keeps order; judges nothing"},
		"internal/store/sqlite": {imports: []string{"internal/store"}, budget: 150,
			why: "an engine opens a database for the store, and nothing more"},
		"internal/store/storetest": {imports: []string{"internal/store"}, budget: 900, why: "the suite that every engine must pass; for tests only"},
		"internal/bench":           {imports: []string{"internal/nettest"}, budget: 1400, why: "a program that plays servers against each other, by their command lines only"},
		"internal/nettest":         {leaf: true, budget: 330, why: "what tests of several packages stand in: namespaces, bad cables, a registry, a TPM, Tang servers; for tests only"},
		"internal/bundle":          {imports: []string{"internal/strictyaml", "internal/trust", "internal/iso"}, budget: 2100, why: "bundle.yaml is written by people; a store that did not judge signatures itself could be asked around them; an installer tree is an image that can be read"},
		"internal/trust":           {imports: []string{"internal/strictyaml"}, budget: 600, why: "keys and signatures to a verdict: what is signed is not its business"},
		"internal/registry":        {budget: 430, why: "moves artifacts and believes no registry; what a bundle is, it does not know"},
		"internal/iso":             {budget: 830, why: "images to file systems: what stands in them is not its business"},
		"internal/iso/isotest":     {leaf: true, budget: 90, why: "makes images; for tests only"},
		"internal/source":          {imports: []string{"internal/iso"}, budget: 1200, why: "reads what people have, into a directory; what a bundle is, it does not know"},
		"internal/pull":            {imports: []string{"internal/bundle", "internal/registry"}, budget: 260, why: "what the store lacks, from a registry into a directory; who wants it, and when, is control's"},
		"internal/agent":           {imports: []string{"internal/luks", "internal/clevis"}, budget: 4200, why: "runs on the machine: it shares only the wire contract, and what encrypts a disk. 3580 until it looked at machines, and cleared further disks"},
		"internal/luks":            {leaf: true, budget: 350, why: "bytes of a container, into a disk: who opens it is not its business"},
		"internal/clevis":          {leaf: true, budget: 570, why: "a passphrase to a token of Clevis, by a TPM or a Tang server that it is handed"},
		"internal/observe":         {imports: []string{"internal/pcap", "internal/udp"}, budget: 600, why: "hears and asks; what it means is read by pcap"},
		"internal/pcap":            {budget: 2350, why: "bytes to report: no sockets, no clock"},
		"internal/uefi":            {budget: 2900, why: "images to a proof, keys to what firmware takes: no sockets, no clock, and no library, for those panic on malformed images"},
		"internal/udp":             {leaf: true, budget: 360, why: "sockets that know where a datagram came in, and stay with their interface; what it means is not its business"},
		"internal/idle":            {leaf: true, budget: 90, why: "an order, of whatever addresses"},
		"internal/turn":            {leaf: true, budget: 50, why: "who comes after whom, whoever they are"},
		"internal/dhcp":            {imports: []string{"internal/udp", "internal/turn", "internal/idle"}, budget: 2250},
		"internal/dhcp6":           {imports: []string{"internal/udp", "internal/turn", "internal/idle"}, budget: 2040},
		"internal/tftp":            {imports: []string{"internal/udp"}, budget: 1500, why: "serves names and bytes; what they mean is not its business. 1450 until it read ahead, 1350 until it had to keep its places from forged requests"},
		"internal/httpboot": {imports: []string{"internal/script", "internal/seed", "internal/iso"}, budget: 850,
			why: "750 until agents told what they look at; writes the retry script when nobody can decide, and the media type of a seed; an installer tree is served out of its image"},
		"internal/join":          {budget: 1100, why: "formats and calls of Kubernetes, in one cluster: who may join is lane's to say, and when control's"},
		"internal/join/jointest": {leaf: true, budget: 260, why: "stands for an API server; for tests only"},
		"internal/control": {imports: []string{"internal/script", "internal/seed", "internal/diagnose", "internal/migrate", "internal/uefi", "internal/lint"}, budget: 4300,
			why: "the pure packages only: it names the store and the clusters it needs itself. 3800 until machines were looked at, 2900 until hosts joined clusters"},
		"internal/api": {imports: []string{"internal/strictyaml"}, budget: 1050, why: "inventory files are written by people"},
		"internal/lab": {imports: []string{"internal/api", "internal/pcap", "internal/uefi"}, budget: 3750, why: "watches the lane as an operator does, and the wire as one with a capture: the scenarios, and `lab try` for operators themselves; firmware's settings are written into its variables. 3450 until machines had TPMs, and disks that are encrypted"},
		"internal/cli": {imports: []string{"internal/api", "internal/app", "internal/lab", "internal/bundle", "internal/pcap", "internal/trust", "internal/uefi", "internal/source", "internal/registry", "internal/lint"}, budget: 4900,
			why: "every verb speaks to the API, but `serve`, `lab` and those that only look at files. 4650 until machines were discovered and adopted, 3700 until `lint` played the formats' own validators, 4100 until clusters"},
		"internal/app": {imports: []string{everybody}, budget: 2450, why: "the only package that knows everybody. 2000 until it knew clusters"},
	}
}

// narrow names imports that only some files of a package may make; several are
// separated by spaces.
var narrow = []struct{ pkg, imports, file, why string }{
	{"internal/cli", "internal/app", "serve.go", "every other verb must work from another machine"},
	{"internal/cli", "internal/lab", "lab.go", "the lab is one verb"},
	{"internal/cli", "internal/uefi", "uefi.go uefiprove.go uefikeys.go uefienrol.go", "images are judged and signed by one verb, without a server"},
	{"internal/cli", "internal/registry", "registry.go", "bundles travel by two verbs, without a server of ours"},
	{"internal/cli", "internal/source", "build.go", "bundles are built by one verb, without a server"},
	{"internal/cli", "internal/lint", "lint.go external.go", "files are linted by one verb, without a server"},
	{"internal/cli", "internal/pcap", "pcap.go", "captures are explained by one verb, without a server"},
}

// confined is what only some packages may use. "time.Now" is a name of a
// package; without a dot after the last slash it is the whole package.
var confined = []struct {
	what string
	by   []string // packages, or folders that end in a slash
	why  string
}{
	{"time.Now", []string{"internal/control", "internal/app", "internal/bench", "cmd/"}, "the clock is handed in: tests choose the time"},
	{"time.Since", []string{"internal/bench"}, "it reads the clock"},
	{"time.Until", nil, "it reads the clock"},
	{"crypto/rand", []string{"internal/app", "internal/control", "cmd/"}, "randomness is handed in: tests choose the ids"},
	{"math/rand", []string{"internal/app", "internal/control"}, "randomness is handed in: tests choose the ids"},
	{"math/rand/v2", []string{"internal/app", "internal/control", "internal/bench"}, "randomness is handed in: tests choose the ids"},
	{"os/exec", []string{"internal/lab", "internal/nettest", "internal/iso/isotest", "internal/bench", "internal/cli"}, "the server starts no programs; the lab and tests play with some, and a key in a token signs by an operator's own command"},
	{"database/sql", []string{"internal/store", "internal/store/"}, "rules never stand in SQL, and SQL stands in one place"},
	{"log", nil, "slog is handed in; the global logger is nobody's"},
	{"plugin", nil, "one binary"},
	{"unsafe", []string{"internal/agent"}, "only ioctl takes pointers: the agent re-reads a partition table with one"},
	{"reflect", nil, "nothing here needs it"},
}

// pure are the packages that only turn values into values, and what they must
// not even import for it.
var (
	pure   = []string{"internal/lane", "internal/script", "internal/seed", "internal/diagnose", "internal/pcap", "internal/migrate", "internal/uefi", "internal/lint", "internal/ignition", "internal/talos"}
	impure = []string{"os", "net", "net/http", "log", "log/slog", "database/sql", "syscall", "context", "sync", "runtime", "flag"}
)

// modules is the allow-list of dependencies: a module that go.mod requires
// directly, who may import it, and what it saves us.
var modules = []struct {
	path string
	by   []string
	why  string
}{
	{"aead.dev/minisign", []string{"internal/trust"}, "the signature format: people check with the stock program what we signed"},
	{"github.com/ProtonMail/go-crypto", []string{"internal/source"}, "OpenPGP: who signed a distribution's digests; the one of golang.org/x/crypto is frozen, and gpgv is not everywhere"},
	{"github.com/coreos/butane", []string{"internal/ignition"}, "Butane: what people write for Flatcar and Fedora CoreOS is translated, and judged, as its own program does"},
	{"github.com/coreos/ignition/v2", []string{"internal/ignition"}, "the parser that the machine's own initramfs has: what it refuses there is refused here"},
	{"github.com/coreos/vcontext", []string{"internal/ignition"}, "the places in what both of them report"},
	{"github.com/google/go-tpm", []string{"internal/clevis"}, "the commands of a TPM 2.0: a key is sealed as tpm2-tools does it, and the agent's initramfs has no tools"},
	{"github.com/google/go-cmp", []string{"internal/store/storetest"}, "tests: differences that a person can read"},
	{"github.com/mdlayher/packet", []string{"internal/dhcp", "internal/observe", "internal/nettest"}, "AF_PACKET: ARP, to find an address in use before it is given; and to hear other servers"},
	{"github.com/opencontainers/go-digest", []string{"internal/registry"}, "what oras-go calls a digest"},
	{"github.com/opencontainers/image-spec", []string{"internal/registry"}, "OCI's names: media types, descriptors"},
	{"github.com/rogpeppe/go-internal", []string{}, "tests: testscript plays command lines against the real program"},
	{"github.com/gopacket/gopacket", []string{"internal/pcap"}, "the formats of capture files, and what stands in front of UDP: links, tags, IP"},
	{"github.com/insomniacslk/dhcp", []string{"internal/agent", "internal/dhcp", "internal/dhcp6", "internal/pcap"}, "the wire format of DHCP with all its options; we judge, it only codes"},
	{"github.com/klauspost/compress", []string{"internal/agent", "internal/bundle"}, "zstd and gzip: images are unpacked at disk speed, in Go, in RAM"},
	{"github.com/ulikunitz/xz", []string{"internal/agent"}, "xz, which many vendors' images are packed with: the standard library has none"},
	{"github.com/siderolabs/talos/pkg/machinery", []string{"internal/talos"}, "the reader that a machine of Talos has, which refuses a key that it does not know, and its judge of a whole configuration; 24 MB of the binary"},
	{"github.com/spf13/cobra", []string{"internal/cli"}, "commands, flags, help and shell completion"},
	{"github.com/spf13/pflag", []string{}, "tests: the flags behind cobra, for docs/cli.md"},
	{"github.com/vishvananda/netlink", []string{"internal/agent", "internal/nettest"}, "the agent is PID 1: no ip(8) sets up its network"},
	{"github.com/vishvananda/netns", []string{"internal/bench"}, "tests and benchmarks: servers on their real ports in a namespace of their own"},
	{"golang.org/x/crypto", []string{"internal/trust", "internal/luks"}, "BLAKE2b, which minisign hashes with; XTS, which disks are encrypted by; the standard library has neither"},
	{"golang.org/x/net", []string{"internal/observe"}, "bpf: the kernel's filter, written as instructions"},
	{"go.yaml.in/yaml/v3", []string{"internal/strictyaml", "internal/app", "internal/bundle", "internal/cli", "internal/join", "internal/lint", "internal/ignition", "internal/seed", "internal/talos"}, "YAML with line numbers; kubeconfig files"},
	{"golang.org/x/sync", []string{"internal/app", "internal/bundle", "internal/control"}, "errgroup: parts end together; singleflight: a file that many ask for is verified once"},
	{"mvdan.cc/sh/v3", []string{"internal/shell"}, "the grammar of shells: hooks that none can read are found before a machine runs them"},
	{"golang.org/x/sys", []string{"internal/agent", "internal/dhcp", "internal/httpboot", "internal/lab", "internal/nettest", "internal/store/sqlite", "internal/tftp", "internal/udp"}, "system calls: mounts, TAP interfaces, packet information, bytes that have arrived, file locks, waits of less than a millisecond"},
	{"golang.org/x/term", []string{"internal/cli"}, "a passphrase is not shown while it is typed"},
	{"oras.land/oras-go/v2", []string{"internal/registry"}, "the OCI distribution API with docker's logins, tokens and credential helpers; what comes is checked by us"},
	{"modernc.org/sqlite", []string{"internal/store/sqlite"}, "SQLite without cgo: one static binary"},
}

// maxFunc is how many lines a function may have, from its first to its last.
const maxFunc = 60
