package lint

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	// kubelets are what a file speaks of that sets up a node.
	kubelets = regexp.MustCompile(`\b(?:kubeadm|kubelet|k0s|k3s|rke2)\b`)
	// swapPolicy is how a file says that the kubelet knows of the swap, or that there is none in the end.
	swapPolicy = regexp.MustCompile(`\bfailSwapOn\b|--fail-swap-on|\bswapBehavior\b|\bswapoff\b|\bswap\.target\b`)
)

// kubelet reports whether the file sets up a node of Kubernetes.
func (r *report) kubelet() bool { return kubelets.MatchString(r.whole) }

// swap says that there is swap at p, on a machine with a kubelet.
func (r *report) swap(p at, format string, args ...any) {
	if r.kubelet() && !swapPolicy.MatchString(r.whole) {
		r.add("swap-kubernetes", p, format, args...)
	}
}

// autoinstallSwap: without a word about it curtin makes a file.
func (r *report) autoinstallSwap(k, st *yaml.Node) {
	for _, a := range items(get(st, "config")) {
		if v := get(a, "fstype"); is(v, "swap") {
			r.swap(pos(v), "this is swap, and the file sets up a kubelet")
			return
		}
	}
	switch size := get(st, "swap", "size"); {
	case size == nil:
		r.swap(pos(k), "storage has no swap of size 0: the installer makes a swap file, and the file sets up a kubelet")
	case strings.Trim(size.Value, "0BKMGT") != "":
		r.swap(pos(size), "this is swap, and the file sets up a kubelet")
	}
}

// kickstartKubelet: autopart makes swap too, and Fedora swaps into RAM.
func (r *report) kickstartKubelet(commands []command, release int) {
	unified := false
	for _, c := range commands {
		words := c.plain()
		args, _ := c.option("--append")
		unified = unified || c.name == "bootloader" && strings.Contains(args.text, "systemd.unified_cgroup_hierarchy=1")
		switch {
		case (c.name == "part" || c.name == "partition" || c.name == "logvol") && len(words) > 0 && words[0].text == "swap":
			r.swap(words[0].at, "this is swap, and the file sets up a kubelet")
		case c.name == "autopart" && !c.has("--noswap"):
			r.swap(c.at, "autopart without --noswap makes swap, and the file sets up a kubelet")
		case c.name == "%packages" && fedora.MatchString(r.whole) && !strings.Contains(strings.Join(c.body, "\n"), "-zram-generator-defaults"):
			r.swap(c.at, "without -zram-generator-defaults Fedora swaps into RAM, and the file sets up a kubelet")
		}
	}
	if release > 0 && release <= 8 && !unified && r.kubelet() {
		r.add("cgroup-v1", at{1, 1}, "RHEL %d boots with cgroup v1, and the file sets up a kubelet", release)
	}
}

// preseedSwap: every recipe of the installer's own has swap.
func (r *report) preseedSwap(answers map[string]answer) {
	method, ok := answers["partman-auto/method"]
	recipe, own := answers["partman-auto/expert_recipe"]
	switch {
	case !ok:
	case own && strings.Contains(recipe.value, "swap"):
		r.swap(recipe.valueAt, "the recipe has swap, and the file sets up a kubelet")
	case !own:
		r.swap(method.at, "the installer's recipes have swap, and the file sets up a kubelet: give it an expert_recipe without")
	}
}

// clock says that nothing sets the machine's clock, where something must.
func (r *report) clock(p at, format string, args ...any) {
	if strings.Contains(r.whole, "https://") || r.kubelet() {
		r.add("time-unsynchronised", p, format, args...)
	}
}

// kickstartClock judges what becomes of the time service.
func (r *report) kickstartClock(c command) {
	switch disabled, ok := c.option("--disabled"); {
	case c.name == "timezone" && c.has("--nontp"), c.name == "timesource" && c.has("--ntp-disable"):
		r.clock(c.at, "%s switches time synchronisation off, and the file trusts certificates", c.name)
	case c.name == "services" && ok && strings.Contains(","+disabled.text+",", ",chronyd,"):
		r.clock(disabled.at, "chronyd is disabled, and the file trusts certificates")
	}
}

var (
	// joinCommand goes on where a line ends in a backslash.
	joinCommand    = regexp.MustCompile(`kubeadm join(?:[^\n\\]|\\\n|\\.)*`)
	bootstrapToken = regexp.MustCompile(`\bbootstrapToken["']?\s*:`)
	caCertHash     = regexp.MustCompile(`\bcaCertHashes["']?\s*:\s*(?:\[\s*|-\s*)?["']?([A-Za-z0-9:]+)`)
	caPin          = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// joins finds nodes that are to join a cluster which they could not tell from another: kubeadm refuses to, with
// the disk erased.
func (r *report) joins(text string) {
	if !strings.Contains(text, "kubeadm join") && !strings.Contains(text, "bootstrapToken") && !strings.Contains(text, "caCertHashes") {
		return // nearly all texts: the expressions are slow
	}
	place := func(i int) at {
		from := strings.LastIndexByte(text[:i], '\n') + 1
		return at{strings.Count(text[:i], "\n") + 1, column(text[from:], i-from)}
	}
	inComment := func(i int) bool { return comment(text[strings.LastIndexByte(text[:i], '\n')+1:]) }
	for _, m := range joinCommand.FindAllStringIndex(text, -1) {
		line := strings.ReplaceAll(text[m[0]:m[1]], "\\\n", " ")
		pinned := strings.Contains(line, "--discovery-") || strings.Contains(line, "--config") // a way that skips it has a finding of its own
		if strings.Contains(line, "--token") && !pinned && !inComment(m[0]) {
			r.add("join-ca-unpinned", place(m[0]), "there is no --discovery-token-ca-cert-hash: kubeadm refuses to join")
		}
	}
	for _, m := range caCertHash.FindAllStringSubmatchIndex(text, -1) {
		if !caPin.MatchString(text[m[2]:m[3]]) && !inComment(m[2]) {
			r.add("join-ca-unpinned", place(m[2]), "a hash of caCertHashes is sha256: and 64 hex digits: kubeadm refuses another")
		}
	}
	if m := bootstrapToken.FindStringIndex(text); m != nil && !inComment(m[0]) && !strings.Contains(text, "caCertHashes") && !strings.Contains(text, "CAVerification") {
		r.add("join-ca-unpinned", place(m[0]), "bootstrapToken has no caCertHashes: kubeadm refuses to join")
	}
}
