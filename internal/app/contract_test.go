package app_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"bootlane/internal/api"
	"bootlane/internal/app"
	"bootlane/internal/bundle"
	"bootlane/internal/iso/isotest"
	"bootlane/internal/lane"
	"bootlane/internal/nettest"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

const (
	uuid = lane.UUID("00112233-4455-6677-8899-aabbccddeeff")
	mac  = lane.MAC("52:54:00:12:34:56")
)

// world is a whole server on the test's own cable, and an operator.
type world struct {
	*testing.T
	dir    string
	client *api.Client
	conn   net.PacketConn
	stop   func()   // the server that was started last
	told   []string // scripts and documents that machines were given
	gives  bool     // a machine of Talos takes its configuration, and with it the rest of the grant
}

func newWorld(t *testing.T, extra string, network ...string) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir()}
	config := filepath.Join(w.dir, "config.yaml")
	if !strings.Contains(extra, "listen:") {
		extra += "listen: {operators: \"127.0.0.1:8070\"}\n"
	}
	text := fmt.Sprintf("data: %s/data\nsite: {sshKeys: [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ops@example.org\"]}\nnetworks: [{interface: %s, server: %s, subnet: 192.168.77.0/24, range: 192.168.77.100-192.168.77.199, dns: [192.168.77.1]%s}]\n%s",
		w.dir, nettest.ServerInterface, nettest.Server, strings.Join(network, ""), extra)
	must(t, os.WriteFile(config, []byte(text), 0o600))
	w.start()
	w.conn = clientSocket(t)
	return w
}

// start starts the server, and returns what stops it.
func (w *world) start() (stop func()) {
	w.Helper()
	t := w.T
	cfg, err := app.LoadConfig(filepath.Join(w.dir, "config.yaml"))
	must(t, err)
	a, err := app.New(t.Context(), cfg, "test", slog.New(slog.NewTextHandler(io.Discard, nil)))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	w.stop = stop
	token, err := os.ReadFile(filepath.Join(w.dir, "data", app.TokenFile))
	must(t, err)
	w.client = api.NewClient("http://"+a.Operator, strings.TrimSpace(string(token)), "tester")
	return stop
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clientSocket(t *testing.T) net.PacketConn {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			if set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); set == nil {
				set = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, nettest.ClientInterface)
			}
		})
		if err != nil {
			return err
		}
		return set
	}}
	c, err := lc.ListenPacket(t.Context(), "udp4", "0.0.0.0:68")
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// bundles makes one bundle of each seed.
func (w *world) bundles() {
	for _, seed := range lane.Seeds() {
		name, _, _ := strings.Cut(seed, "/")
		dir := filepath.Join(w.dir, name)
		must(w.T, os.MkdirAll(dir, 0o755))
		m := bundle.Manifest{Name: name, Version: "1", OS: "debian", Release: "bookworm", Arch: "x86_64", Seed: seed,
			BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd.gz", Mirror: "http://mirror.example/debian"}}
		files := map[string]string{"linux": "kernel of " + name, "initrd.gz": "initrd of " + name}
		if seed == lane.SeedImage {
			files["disk.raw"] = strings.Repeat("image of", 2<<20/8)
			sum := sha256.Sum256([]byte(files["disk.raw"]))
			m.Image = &lane.BundleImage{File: "disk.raw", Compression: "none", RawDigest: lane.Digest("sha256:" + hex.EncodeToString(sum[:])), RawBytes: 2 << 20, RootLabel: "root"}
		}
		if slices.Contains([]string{lane.SeedNoCloud, lane.SeedKickstart, lane.SeedAutoYaST, lane.SeedAgama}, seed) {
			files["live.iso"] = string(isotest.Read(w.T, isotest.ISO(w.T, isotest.Files(w.T, map[string]string{"images/install.img": "stage 2", "boot/x86_64/root": "YaST", "repodata/repomd.xml": "BaseOS", "AppStream/repodata/repomd.xml": "AppStream"}))))
		}
		switch seed {
		case lane.SeedNoCloud: // as Ubuntu's image is
			m.Args, m.Files = "url={file:live.iso}", map[string]string{"live.iso": ""}
		case lane.SeedKickstart:
			m.OS, m.Release, m.Tree, m.Mirror = "rocky", "9.6", "live.iso", ""
		case lane.SeedAutoYaST:
			m.OS, m.Release, m.Tree, m.Mirror = "opensuse-leap", "15.6", "live.iso", ""
		case lane.SeedIgnition:
			m.OS, m.Release, m.Config = "flatcar", "4230.2.4", "machine.bu"
			files["machine.bu"] = "variant: flatcar\nversion: 1.1.0\nstorage:\n  files: [{path: /etc/motd, contents: {inline: {{yaml .Hostname}}}}]\n"
		case lane.SeedTalos:
			m.OS, m.Release, m.Mirror, m.Config = "talos", "1.12.0", "", "worker.yaml"
			files["worker.yaml"] = workerYAML
		case lane.SeedAgama:
			m.OS, m.Release, m.Args, m.Files = "opensuse-leap", "16.0", "root=live:{file:live.iso}", map[string]string{"live.iso": ""}
		}
		for f, text := range files {
			must(w.T, os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644))
		}
		must(w.T, bundle.WriteManifest(dir, m))
		_, err := bundle.Build(w.Context(), dir)
		must(w.T, err)
		_, err = w.client.ImportBundle(w.Context(), lane.BundleImport{Dir: dir})
		must(w.T, err)
	}
}

func (w *world) enrol(bundle string) {
	out, err := w.client.Import(w.Context(), []api.HostSpec{{ID: "node1", Identity: lane.Identity{UUID: uuid, MACs: []lane.MAC{mac}, Serial: "S1"}, Bundle: bundle,
		Disk: lane.DiskSelector{Serial: "D1", ByID: "virtio-D1"}, Network: api.NetworkSpec{Address: "192.168.77.20"}}}, false)
	must(w.T, err)
	if len(out.Problems) > 0 {
		w.Fatal(out.Problems)
	}
}

// firmware is one way of asking for an address.
type firmware struct {
	name, vendor string
	arch         byte
	ipxe         bool
}

func firmwares() []firmware {
	return []firmware{{"BIOS PXE", "PXEClient:Arch:00000:UNDI:002001", 0, false}, {"UEFI PXE", "PXEClient:Arch:00007:UNDI:003000", 7, false},
		{"UEFI PXE, arch 9", "PXEClient:Arch:00009:UNDI:003000", 9, false}, {"UEFI HTTP", "HTTPClient:Arch:00016:UNDI:003000", 16, false},
		{"iPXE BIOS", "PXEClient:Arch:00000:UNDI:002001", 0, true}, {"iPXE UEFI", "PXEClient:Arch:00007:UNDI:003010", 7, true}}
}

// discover sends a DISCOVER and returns the OFFER.
func (w *world) discover(f firmware) *dhcpv4.DHCPv4 {
	w.Helper()
	hw, err := net.ParseMAC(string(mac))
	must(w.T, err)
	p, err := dhcpv4.NewDiscovery(hw, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(f.vendor)),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, f.arch}),
		dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff)))
	must(w.T, err)
	if f.ipxe {
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")))
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{0x13, 1, 1, 0x24, 1, 1}))
	}
	_, err = w.conn.WriteTo(p.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
	must(w.T, err)
	buf := make([]byte, 2000)
	for {
		must(w.T, w.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, _, err := w.conn.ReadFrom(buf)
		must(w.T, err)
		if o, err := dhcpv4.FromBytes(buf[:n]); err == nil && o.TransactionID == p.TransactionID {
			return o
		}
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	res, err := http.DefaultTransport.RoundTrip(req) // follows no redirect, like firmware
	must(t, err)
	body, err := io.ReadAll(res.Body)
	must(t, err)
	must(t, res.Body.Close())
	if res.ContentLength < 0 || len(res.TransferEncoding) > 0 {
		t.Errorf("%s is answered without a Content-Length", url)
	}
	if res.StatusCode >= 300 && len(body) == 0 {
		t.Errorf("%s: %d without a body hangs shim", url, res.StatusCode)
	}
	return res.StatusCode, body
}

// tftpGet fetches a file in the simplest way RFC 1350 knows.
func tftpGet(t *testing.T, server, name string) ([]byte, error) {
	t.Helper()
	local := "192.168.77.1:0"
	if strings.Contains(server, ":") {
		local = net.JoinHostPort(server, "0")
	}
	c, err := net.ListenPacket("udp", local)
	must(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.WriteTo([]byte("\x00\x01"+name+"\x00octet\x00"), &net.UDPAddr{IP: net.ParseIP(server), Port: 69})
	must(t, err)
	var out []byte
	buf := make([]byte, 600)
	for {
		must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, from, err := c.ReadFrom(buf)
		must(t, err)
		if buf[1] == 5 {
			return nil, fmt.Errorf("tftp error %d: %s", buf[3], bytes.TrimRight(buf[4:n], "\x00"))
		}
		out = append(out, buf[4:n]...)
		_, err = c.WriteTo([]byte{0, 4, buf[2], buf[3]}, from)
		must(t, err)
		if n < 516 {
			return out, nil
		}
	}
}

// loader follows an OFFER to the bytes that it names. It is nil when it names none.
func (w *world) loader(o *dhcpv4.DHCPv4) (string, []byte, error) {
	w.Helper()
	name := o.BootFileName
	if opt := bytes.TrimRight(o.Options.Get(dhcpv4.OptionBootfileName), "\x00"); name == "" {
		name = string(opt)
	} else if string(opt) != name {
		w.Errorf("file %q and option 67 %q differ", name, opt)
	}
	if name == "" {
		return "", nil, nil
	}
	if strings.HasPrefix(name, "http://") {
		status, body := get(w.T, name)
		if status != http.StatusOK {
			return name, nil, fmt.Errorf("%d: %s", status, body)
		}
		return name, body, nil
	}
	body, err := tftpGet(w.T, o.ServerIPAddr.String(), name)
	return name, body, err
}

// TestContract follows everything that is advertised, for every firmware and
// every decision, until bytes arrive.
func TestContract(t *testing.T) {
	w := newWorld(t, "policy: {bootRetry: 5m, askMirrors: false}\n")
	w.bundles()
	for _, f := range firmwares() {
		t.Run("unknown, "+f.name, func(t *testing.T) {
			w.T = t
			name, body, err := w.loader(w.discover(f))
			if err != nil || len(body) == 0 {
				t.Fatalf("%q: %v", name, err)
			}
			if f.ipxe {
				w.scripts(name, body, lane.Hold)
			}
		})
	}
	w.T = t
	w.enrol("image-1")
	for _, f := range firmwares() {
		t.Run("local boot, "+f.name, func(t *testing.T) {
			w.T = t
			name, body, err := w.loader(w.discover(f))
			switch {
			case f.ipxe && err == nil:
				w.scripts(name, body, lane.LocalBoot)
			case f.arch == 16 && err != nil && strings.Contains(err.Error(), "host-new"): // refused, with the reason
			case name == "" && err == nil:
			default:
				t.Errorf("%q, %d bytes, %v", name, len(body), err)
			}
		})
	}
	for _, seed := range lane.Seeds() {
		name, _, _ := strings.Cut(seed, "/")
		w.T = t
		h, err := w.client.Provision(t.Context(), "node1", lane.Provisioning{Bundle: name + "-1"})
		must(t, err)
		for _, f := range firmwares() {
			t.Run("install "+name+", "+f.name, func(t *testing.T) {
				w.T = t
				w.gives = f.name == "iPXE UEFI" // the last
				url, body, err := w.loader(w.discover(f))
				if err != nil || len(body) == 0 {
					t.Fatalf("%q: %v", url, err)
				}
				if f.ipxe {
					w.scripts(url, body, lane.Install)
				} else { // the loader runs, or the next ones would be a loop
					_, _ = get(t, scriptURL(nil))
				}
			})
		}
		w.T = t
		verb := "cancel"
		if seed == lane.SeedTalos { // it tells nothing by itself, and is the last
			verb = "confirm"
		}
		h, err = w.client.Act(t.Context(), string(h.ID), verb, "next seed")
		if err != nil || (h.State == lane.StateInstalled) != (verb == "confirm") {
			t.Fatalf("%s: %s, %v", verb, h.State, err)
		}
	}
	t.Run("HB-14 what is secret stands in the path", func(t *testing.T) {
		// shim takes everything up to the last slash of the whole URI, the query included.
		text, secrets := strings.Join(w.told, "\n"), map[string]int{}
		// Talos itself asks with its query: no shim is on that way.
		text = regexp.MustCompile(`(talos\.config=[^\s?]+)\?\S+`).ReplaceAllString(text, "$1")
		for _, m := range regexp.MustCompile(`/run/([a-z0-9]{20,})`).FindAllStringSubmatch(text, -1) {
			secrets[m[1]]++
		}
		if len(secrets) != len(lane.Seeds()) {
			t.Errorf("%d runs are told of, want %d", len(secrets), len(lane.Seeds()))
		}
		for secret, n := range secrets {
			if all := strings.Count(text, secret); all != n || n < 3 {
				t.Errorf("%s is told %d times, %d of them as an element of a path", secret, all, n)
			}
			if m := regexp.MustCompile(`\S*/run/` + secret + `[^\s"']*[?#]\S*`).FindString(text); m != "" {
				t.Errorf("%s has a query", m)
			}
		}
	})
}

var (
	chainURL = regexp.MustCompile(`(?m)^chain .*?(http://\S+)`)
	fileURL  = regexp.MustCompile(`(?m)^(?:kernel|initrd) (http://\S+)`)
	argURL   = regexp.MustCompile(`(?:preseed/url=|;s=|inst\.ks=|autoyast=|inst\.auto=|ignition\.config\.url=|talos\.config=|bootlane\.url=)(http://\S+)`)
	seedName = regexp.MustCompile(`(?:/seed/|get )([a-z][a-z.-]+\.(?:sh|service|cfg|xml|json|ign))`)
)

// scripts follows the entry script to the per-machine script, and that to all it names.
func (w *world) scripts(name string, entry []byte, want lane.Action) {
	w.Helper()
	m := chainURL.FindSubmatch(entry)
	if m == nil || !bytes.HasPrefix(entry, []byte("#!ipxe\n")) {
		w.Fatalf("%s is no entry script:\n%s", name, entry)
	}
	w.told = append(w.told, string(entry))
	url := string(m[1])
	for setting, value := range map[string]string{"uuid": string(uuid), "netX/mac:hexhyp": mac.Hyphens(), "net0/mac:hexhyp": mac.Hyphens(), "serial:uristring": "S1",
		"bl-arch": "x86_64", "platform": map[bool]string{true: "efi", false: "pcbios"}[strings.Contains(name, "uefi")]} {
		url = strings.ReplaceAll(url, "${"+setting+"}", value)
	}
	url = regexp.MustCompile(`\$\{[^}]*\}`).ReplaceAllString(url, "")
	status, body := get(w.T, url)
	if status != http.StatusOK {
		w.Fatalf("script: %d %s", status, body)
	}
	w.told = append(w.told, string(body))
	files := fileURL.FindAllSubmatch(body, -1)
	if (len(files) > 0) != (want == lane.Install) {
		w.Fatalf("%d files in the script of %s:\n%s", len(files), want, body)
	}
	for _, f := range files {
		if status, got := get(w.T, string(f[1])); status != http.StatusOK || len(got) == 0 {
			w.Errorf("%s: %d", f[1], status)
		}
	}
	for _, c := range chainURL.FindAllSubmatch(body, -1) {
		if status, got := get(w.T, string(c[1])); status != http.StatusOK || !bytes.HasPrefix(got, []byte("#!ipxe\n")) {
			w.Errorf("%s: %d %s", c[1], status, got)
		}
	}
	if want == lane.Install {
		w.installer(body)
	}
}

// installer follows the kernel's arguments to every document, order and image.
func (w *world) installer(script []byte) {
	w.Helper()
	m := argURL.FindSubmatch(script)
	if m == nil {
		w.Fatalf("the kernel is led nowhere:\n%s", script)
	}
	url := string(m[1])
	switch {
	case strings.HasSuffix(url, "preseed.cfg"):
		w.documents(strings.TrimSuffix(url, "preseed.cfg"), "preseed.cfg")
	case strings.HasSuffix(url, "ks.cfg"):
		w.follow(script, map[string]string{` inst\.stage2=(\S+)`: "/images/install.img stage 2"})
		_, ks := get(w.T, url)
		w.follow(ks, map[string]string{`url --url=(\S+)`: "/repodata/repomd.xml BaseOS", `repo --name=AppStream --baseurl=(\S+)`: "/repodata/repomd.xml AppStream"})
		w.documents(strings.TrimSuffix(url, "ks.cfg"), "ks.cfg")
	case strings.HasSuffix(url, "autoinst.xml"):
		w.follow(script, map[string]string{` install=(\S+)`: "/boot/x86_64/root YaST"})
		w.documents(strings.TrimSuffix(url, "autoinst.xml"), "autoinst.xml")
	case strings.HasSuffix(url, "profile.json"):
		w.follow(script, map[string]string{` root=live:(\S+)`: " CD001"})
		w.documents(strings.TrimSuffix(url, "profile.json"), "profile.json")
	case strings.Contains(url, "config.yaml?"):
		w.talos(url)
	case strings.HasSuffix(url, "live.ign"):
		w.ignites(url)
	case strings.HasSuffix(url, "/seed/"):
		w.follow(script, map[string]string{` url=(\S+)`: " CD001"})
		w.documents(url, "user-data", "meta-data", "vendor-data", "network-config")
	default:
		w.order(url)
	}
}

// follow takes addresses out of a text, each by its pattern, to what must be found below them.
func (w *world) follow(text []byte, wants map[string]string) {
	w.Helper()
	for pattern, want := range wants {
		path, content, _ := strings.Cut(want, " ")
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil {
			w.Fatalf("no %s in\n%s", pattern, text)
		}
		if status, body := get(w.T, string(m[1])+path); status != http.StatusOK || !bytes.Contains(body, []byte(content)) {
			w.Errorf("%s%s: %d, %d bytes", m[1], path, status, len(body))
		}
	}
}

func (w *world) documents(base string, names ...string) {
	w.Helper()
	seen := map[string]bool{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		status, body := get(w.T, base+name)
		if status != http.StatusOK {
			w.Errorf("document %s: %d %s", name, status, body)
		}
		w.told = append(w.told, string(body))
		for _, m := range seedName.FindAllSubmatch(body, -1) {
			names = append(names, string(m[1]))
		}
	}
	if len(seen) < 3 {
		w.Errorf("only %v were followed", seen)
	}
}

// workerYAML is a machine configuration as talosctl makes them.
const workerYAML = `version: v1alpha1
machine:
  type: worker
  token: abcdef.0123456789abcdef
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
  install: {disk: /dev/sda, image: "ghcr.io/siderolabs/installer:v1.12.0", wipe: false}
cluster:
  controlPlane: {endpoint: "https://10.0.0.9:6443"}
  token: abcdef.0123456789abcdef
  ca: {crt: LS0tLS1CRUdJTg==, key: ""}
`

// talos asks as Talos does: it puts into the query what its machine says.
func (w *world) talos(address string) {
	w.Helper()
	u, err := url.Parse(address)
	must(w.T, err)
	q := u.Query()
	asked := map[string]string{"uuid": string(uuid), "serial": "S1"} // of a record with a UUID no MAC
	for name, value := range asked {
		if q.Get(name) != "${"+name+"}" {
			w.Errorf("Talos is not asked for its %s: %s", name, address)
		}
		q.Set(name, value)
	}
	if len(q) != len(asked) {
		w.Errorf("Talos is asked for more: %s", address)
	}
	u.RawQuery = q.Encode()
	w.told = append(w.told, strings.Split(u.String(), "?")[0])
	if !w.gives {
		return
	}
	if status, body := get(w.T, u.String()); status != http.StatusOK || !bytes.Contains(body, []byte("hostname: node1\n")) {
		w.Errorf("%s: %d\n%s", u, status, body)
	}
}

// ignites follows the configuration of Flatcar's installer to the script in it, and that to the rest.
func (w *world) ignites(url string) {
	w.Helper()
	status, body := get(w.T, url)
	var live struct {
		Storage struct {
			Files []struct{ Contents struct{ Source string } }
		}
	}
	if err := json.Unmarshal(body, &live); status != http.StatusOK || err != nil || len(live.Storage.Files) != 1 {
		w.Fatalf("%s: %d, %v\n%s", url, status, err, body)
	}
	script, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(live.Storage.Files[0].Contents.Source, "data:;base64,"))
	must(w.T, err)
	w.told = append(w.told, string(body), string(script))
	var names []string
	for _, m := range seedName.FindAllSubmatch(script, -1) {
		names = append(names, string(m[1]))
	}
	w.documents(strings.TrimSuffix(url, "live.ign"), names...)
}

func (w *world) order(base string) {
	w.Helper()
	hw, err := json.Marshal(lane.Hardware{UUID: uuid, Serial: "S1", Machine: "x86_64", Firmware: "uefi", BootMAC: mac, NICs: []lane.NIC{{Name: "eth0", MAC: mac}},
		Disks: []lane.Disk{{Name: "vda", Serial: "D1", ByID: []string{"virtio-D1"}, SizeBytes: 1e9}}})
	must(w.T, err)
	res, err := http.Post(base+"/order", "application/json", bytes.NewReader(hw))
	must(w.T, err)
	var o lane.Order
	must(w.T, json.NewDecoder(res.Body).Decode(&o))
	must(w.T, res.Body.Close())
	if o.Action != lane.Install || o.Image == nil || len(o.Files) == 0 {
		w.Fatalf("order: %+v", o)
	}
	server, _, _ := strings.Cut(strings.TrimPrefix(base, "http://"), "/")
	if status, body := get(w.T, "http://"+server+o.Image.Path); status != http.StatusOK || int64(len(body)) != o.Image.SizeBytes {
		w.Errorf("image: %d, %d bytes", status, len(body))
	}
}

// TestImageTrust: a loader that checks what it loads is given signatures, no other is.
func TestImageTrust(t *testing.T) {
	w := newWorld(t, "policy: {bootRetry: 5m, askMirrors: false}\n")
	w.bundles()
	dir := t.TempDir()
	for f, text := range map[string]string{"linux": "kernel", "initrd.gz": "initrd", "linux.sig": "signs the kernel", "initrd.gz.sig": "signs the initrd", "ours.efi": "iPXE", "theirs.kpxe": "iPXE"} {
		must(t, os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644))
	}
	must(t, bundle.WriteManifest(dir, bundle.Manifest{Name: "checked", Version: "1", OS: "debian", Release: "bookworm", Arch: "x86_64", Seed: lane.SeedPreseed, BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd.gz", Mirror: "http://mirror.example/debian"},
		Loaders: map[string]bundle.Loader{"x86_64-uefi": {First: "ours.efi", ImageTrust: true}, "x86_64-bios": {First: "theirs.kpxe"}}}))
	_, err := bundle.Build(t.Context(), dir)
	must(t, err)
	_, err = w.client.ImportBundle(t.Context(), lane.BundleImport{Dir: dir})
	must(t, err)
	w.enrol("checked-1")
	_, err = w.client.Provision(t.Context(), "node1", lane.Provisioning{})
	must(t, err)
	status, body := get(t, scriptURL(nil))
	found := regexp.MustCompile(`(?m)^imgverify (\S+) (http://\S+) \|\| goto failed$`).FindAllSubmatch(body, -1)
	if status != http.StatusOK || len(found) != 2 || !bytes.Contains(body, []byte("imgtrust --permanent || goto failed\nkernel ")) {
		t.Fatalf("%d:\n%s", status, body)
	}
	for i, want := range []string{"linux signs the kernel", "initrd.gz signs the initrd"} {
		if _, got := get(t, string(found[i][2])); string(found[i][1])+" "+string(got) != want {
			t.Errorf("%s: %q", found[i][1], got)
		}
	}
	if _, body := get(t, scriptURL(func(v url.Values) { v.Set("platform", "pcbios") })); bytes.Contains(body, []byte("imgverify")) || !bytes.Contains(body, []byte("kernel http")) {
		t.Errorf("for a loader that cannot check:\n%s", body)
	}
}

// TestPXELinuxContract: what U-Boot and PXELINUX look for is answered by the same
// decision, and names files that they can fetch.
func TestPXELinuxContract(t *testing.T) {
	w := newWorld(t, "policy: {bootRetry: 5m, askMirrors: false}\n")
	w.bundles()
	uboot, bios := "/pxelinux.cfg/01-"+mac.Hyphens(), "boot/"+mac.Hyphens()+"/x86_64-bios/pxelinux.cfg/01-"+mac.Hyphens()
	config := func(name string) string {
		b, err := tftpGet(t, nettest.Server, name)
		must(t, err)
		return string(b)
	}
	if got := config(uboot); !strings.Contains(got, "hold: unknown-machine") || !strings.Contains(got, "LOCALBOOT") {
		t.Errorf("an unknown machine is told\n%s", got)
	}
	w.enrol("image-1")
	if got := config(uboot); !strings.Contains(got, "local-boot: host-new") {
		t.Errorf("a new machine is told\n%s", got)
	}
	for _, name := range []string{"/pxelinux.cfg/default", "/pxelinux.cfg/C0A84D64", "/pxelinux.cfg/" + string(uuid)} {
		if _, err := tftpGet(t, nettest.Server, name); err == nil {
			t.Errorf("%s is served", name)
		}
	}
	_, err := w.client.Provision(t.Context(), "node1", lane.Provisioning{})
	must(t, err)
	word := func(text, key string) string {
		_, rest, _ := strings.Cut(text, key+" ")
		name, _, _ := strings.Cut(rest, "\n")
		return name
	}
	got := config(uboot)
	for _, key := range []string{"KERNEL", "INITRD"} {
		name := word(got, key)
		if b, err := tftpGet(t, nettest.Server, name); !strings.HasPrefix(name, "/run/") || err != nil || len(b) == 0 {
			t.Errorf("%s %q: %d bytes, %v", key, name, len(b), err)
		}
	}
	got = config("boot/" + mac.Hyphens() + "/x86_64-uefi/pxelinux.cfg/01-" + mac.Hyphens())
	name, whole := strings.CutPrefix(word(got, "KERNEL"), "::") // else SYSLINUX looks beside itself
	if b, err := tftpGet(t, nettest.Server, name); !whole || err != nil || len(b) == 0 {
		t.Errorf("SYSLINUX of UEFI is told\n%s: %d bytes, %v", got, len(b), err)
	}
	if got = config(bios); !strings.HasPrefix(word(got, "KERNEL"), "http://"+nettest.Server+":8080/run/") {
		t.Errorf("PXELINUX is told\n%s", got)
	}
	h, err := w.client.Host(t.Context(), "node1")
	must(t, err)
	if h.Run.BootsUsed != 1 {
		t.Errorf("%d boots of the grant are counted, want 1: all that was one", h.Run.BootsUsed)
	}
}

// TestEntryScriptBesideLoader: iPXE since 2021 looks for autoexec.ipxe beside itself.
func TestEntryScriptBesideLoader(t *testing.T) {
	w := newWorld(t, "")
	w.enrol("image-1")
	t.Run("IX-04 autoexec.ipxe lies beside every loader", func(t *testing.T) {
		for _, dir := range []string{"", "boot/" + mac.Hyphens() + "/x86_64-uefi/", "boot/any/any/"} {
			byTFTP, err := tftpGet(t, nettest.Server, dir+lane.EntryScript)
			status, byHTTP := get(t, machines+"/"+dir+lane.EntryScript)
			if err != nil || status != http.StatusOK || !bytes.Equal(byTFTP, byHTTP) || !bytes.HasPrefix(byTFTP, []byte("#!ipxe\n")) {
				t.Errorf("%q: %v, %d", dir, err, status)
			}
		}
	})
}

// TestEncryptedAgama: Agama is led to a gate first, and to a profile that the gate leaves on the machine.
func TestEncryptedAgama(t *testing.T) {
	w := newWorld(t, "policy: {askMirrors: false}\n")
	w.bundles()
	w.enrol("agama-1")
	spec := api.HostSpec{ID: "node1", Identity: lane.Identity{UUID: uuid, MACs: []lane.MAC{mac}, Serial: "S1"}, Bundle: "agama-1",
		Disk: lane.DiskSelector{Serial: "D1", ByID: "virtio-D1"}, Install: lane.InstallOptions{Encryption: new(lane.EncryptionTPM2)}}
	_, err := w.client.Import(t.Context(), []api.HostSpec{spec}, false)
	must(t, err)
	_, err = w.client.Provision(t.Context(), "node1", lane.Provisioning{Bundle: "agama-1"})
	must(t, err)
	_, body := ask(t, "GET", scriptURL(nil), "")
	m := regexp.MustCompile(` inst\.script=(http://\S+)gate\.sh inst\.auto=file://(\S+) `).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("Agama is led elsewhere:\n%s", body)
	}
	w.documents(m[1], "gate.sh")
	gate := w.told[0]
	if !strings.Contains(gate, "> "+m[2]+"\n") || !strings.Contains(gate, "/seed/profile.json") || strings.Contains(strings.Join(w.told, ""), "seed/gate.sh") {
		t.Errorf("the gate leaves no profile at %s, or is fetched once more:\n%s", m[2], gate)
	}
}
