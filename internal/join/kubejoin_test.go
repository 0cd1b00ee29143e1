//go:build kube

package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/store/storetest"
)

// TestMain lets the test's program be the kubelet of a machine that joins.
func TestMain(m *testing.M) {
	if os.Getenv("BOOTLANE_TEST_KUBELET") != "" {
		playKubelet(os.Getenv("BOOTLANE_TEST_KUBELET"))
		return
	}
	os.Exit(m.Run())
}

// playKubelet does what a kubelet does of a join, and no more: it has no containers to run. What
// kubeadm wrote leads it: to a certificate that it waits for, to its own kubeconfig, to its Node.
func playKubelet(systemUUID string) {
	go func() {
		_ = http.ListenAndServe("127.0.0.1:10248", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // healthy
	}()
	ctx := context.Background()
	k := must(readKubeconfig("/etc/kubernetes/bootstrap-kubelet.conf"))
	flags := string(must(os.ReadFile("/var/lib/kubelet/kubeadm-flags.env")))
	_, rest, _ := strings.Cut(flags, "--hostname-override=")
	name := strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == '"' || r == '\n' })[0]
	a := must(newAPI("prod", k.server, "", k.ca, func() (kubeconfig, error) { return k, nil }))
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	csr := object{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": object{"generateName": "csr-"}, "spec": object{"signerName": lane.CSRSigner, "usages": []string{"digital signature", "client auth"},
		"request": pemOf("CERTIFICATE REQUEST", must(x509.CreateCertificateRequest(rand.Reader, kubelet(name), key)))}}
	var o struct {
		Metadata struct{ Name string }
		Status   struct{ Certificate []byte }
	}
	check(a.call(ctx, "ask for a certificate", http.MethodPost, requestsPath, csr, &o))
	for len(o.Status.Certificate) == 0 {
		time.Sleep(200 * time.Millisecond)
		check(a.call(ctx, "read the certificate", http.MethodGet, requestsPath+"/"+o.Metadata.Name, nil, &o))
	}
	const pair = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	check(os.MkdirAll(filepath.Dir(pair), 0o700))
	check(os.WriteFile(pair, append(o.Status.Certificate, keyPEM(key)...), 0o600))
	conf := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q, certificate-authority: /etc/kubernetes/pki/ca.crt}}]\nusers: [{name: u, user: {client-certificate: %s, client-key: %s}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", k.server, pair, pair)
	check(os.WriteFile("/etc/kubernetes/kubelet.conf", []byte(conf), 0o600))
	own := must(newAPI("prod", k.server, "", k.ca, func() (kubeconfig, error) { return readKubeconfig("/etc/kubernetes/kubelet.conf") }))
	nodes := strings.TrimSuffix(nodesPath, "/")
	check(own.call(ctx, "register", http.MethodPost, nodes, object{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": name, "labels": object{"kubernetes.io/hostname": name}}}, nil))
	check(own.call(ctx, "tell its status", http.MethodPatch, nodesPath+name+"/status", nodeStatus(systemUUID, "True"), nil))
	// What it may not do: take a label that others rely on, or another's Node.
	if err := own.call(ctx, "label", http.MethodPatch, nodesPath+name, object{"metadata": object{"labels": object{"node-restriction.kubernetes.io/rack": "R1"}}}, nil); err == nil {
		panic("the kubelet sets a restricted label")
	}
	time.Sleep(time.Hour) // until it is killed
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func nodeStatus(uuid, ready string) object {
	now := time.Now().UTC().Format(time.RFC3339)
	return object{"status": object{"conditions": []object{{"type": "Ready", "status": ready, "reason": "x", "message": "x", "lastHeartbeatTime": now, "lastTransitionTime": now}},
		"nodeInfo": object{"systemUUID": uuid, "machineID": "", "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "v1.35.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"}}}
}

const (
	nodeUUID = lane.UUID("4c4c4544-0042-3510-8051-b4c04f4d3732")
	nodeMAC  = lane.MAC("52:54:00:00:00:01")
)

// server is Bootlane, as far as a join needs it, with the real clock and store.
type server struct {
	*control.Control
	k     *kube
	store *store.Store
}

func newServer(k *kube) *server {
	t := k.t
	e := must(sqlite.Open(t.Context(), filepath.Join(k.dir, "bootlane.db")))
	s := &server{k: k}
	s.store, _ = storetest.Start(t, e, time.Now)
	bundles := must(bundle.NewStore(filepath.Join(k.dir, "bundles"), nil))
	loader := k.file("snponly.efi", []byte("a loader"))
	s.Control = control.New(control.Config{Store: s.store, Bundles: bundles, Now: time.Now, Rand: rand.Reader, BaseURL: "http://10.0.0.1:8080", Site: lane.InstallOptions{SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ops@example.org"}},
		Networks: []control.Network{{Subnet: lane.Subnet{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Server: netip.MustParseAddr("10.0.0.1")}}}, Loaders: map[lane.Platform][]string{{Arch: lane.X86_64, Firmware: lane.UEFI}: {loader}},
		Clusters: map[string]control.Cluster{"prod": must(Open(k.config()))}})
	dir := filepath.Join(k.dir, "bundle")
	k.must(os.MkdirAll(dir, 0o755))
	for _, f := range []string{"linux", "initrd", "disk.raw"} {
		k.must(os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644))
	}
	m := bundle.Manifest{Name: "image", Version: "1", OS: "debian", Release: "bookworm", Arch: "x86_64", Seed: lane.SeedImage, BundleVariant: lane.BundleVariant{Kernel: "linux", Initrd: "initrd"}}
	m.Image = &lane.BundleImage{File: "disk.raw", Compression: "zstd", RawDigest: lane.Digest("sha256:" + strings.Repeat("0", 64)), RawBytes: 2 << 20, RootLabel: "root"}
	k.must(bundle.WriteManifest(dir, m))
	must(bundle.Build(t.Context(), dir))
	must(s.BundleImport(t.Context(), lane.BundleImport{Dir: dir, By: "op:t"}))
	_, problems, err := s.Import(t.Context(), []lane.Host{{ID: "node-a", Identity: lane.Identity{UUID: nodeUUID, MACs: []lane.MAC{nodeMAC}, Rack: "R7"}, Disk: lane.DiskSelector{Serial: "D1"}, Bundle: "image-1", Install: lane.InstallOptions{Cluster: new("prod")}}}, "op:t", false)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunJoins(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func facts() lane.Facts {
	return lane.Facts{Surface: lane.SurfaceHTTP, UUID: nodeUUID, MAC: nodeMAC}
}

// ready installs node-a as far as ready, and returns its record.
func (s *server) ready(p lane.Provisioning) lane.Host {
	ctx := s.k.t.Context()
	p.By, p.Reinstall = "op:t", true
	h := must(s.Provision(ctx, "node-a", p))
	f := facts()
	f.Speaker, f.Arch, f.Firmware = lane.SpeakerLoader, lane.X86_64, lane.UEFI
	if _, d, err := s.Script(ctx, f, false); err != nil || d.Action != lane.Install {
		s.k.t.Fatal(d, err)
	}
	for _, stage := range []lane.Stage{lane.StageKernel, lane.StageInstaller, lane.StageDiskWritten, lane.StageFirstBoot, lane.StageReady} {
		s.report(h, stage)
	}
	return h
}

func (s *server) report(h lane.Host, stage lane.Stage) {
	s.k.t.Helper()
	s.k.must(s.Report(s.k.t.Context(), h.Run.Capability, lane.Report{Stage: stage, Seq: 1, Status: lane.StatusOK, Message: "m", Facts: facts()}))
}

func (s *server) events(kinds ...lane.Kind) string {
	var out []string
	for _, e := range must(s.Events(s.k.t.Context(), "node-a", 0, 1000)) {
		for _, kind := range kinds {
			if e.Kind == kind {
				out = append(out, string(e.Kind)+": "+e.Message)
			}
		}
	}
	return strings.Join(out, "\n")
}

// machine runs a join script as a machine would, as root: with the real kubeadm, in a mount
// namespace in which /etc and /var/lib are its own. It has no systemd and no container runtime:
// stand-ins start the kubelet above, and kubeadm is told not to look for the runtime.
func (k *kube) machine(script []byte) string {
	k.t.Helper()
	dir := k.t.TempDir()
	bin := filepath.Join(dir, "bin")
	k.must(os.MkdirAll(bin, 0o755))
	for name, text := range map[string]string{
		"kubelet": "echo Kubernetes v1.35.0",
		"kubeadm": fmt.Sprintf("case $1 in join) set -- \"$@\" --ignore-preflight-errors=all ;; esac\nexec %s/kubeadm \"$@\"", os.Getenv("BOOTLANE_KUBE")),
		"systemctl": fmt.Sprintf(`case "$*" in
*start*kubelet*)
	BOOTLANE_TEST_KUBELET=%s setsid %s >%s/kubelet.log 2>&1 &
	echo $! >%s/kubelet.pid
	;;
esac`, nodeUUID, must(os.Executable()), dir, dir),
	} {
		k.must(os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	}
	file := filepath.Join(dir, "join.sh")
	k.must(os.WriteFile(file, script, 0o600))
	k.t.Cleanup(func() { k.end(dir) })
	enter := fmt.Sprintf("cp -a /etc %[1]s/etc && mount --bind %[1]s/etc /etc && mount -t tmpfs none /var/lib && sh %[1]s/join.sh && sh %[1]s/join.sh", dir)
	cmd := exec.CommandContext(k.t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", enter)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "kubelet.log")) // there may be none
		k.t.Fatalf("%v\n%s\nkubelet:\n%s", err, out, log)
	}
	if left := must(filepath.Glob("/run/bootlane-join.*")); len(left) > 0 {
		k.t.Errorf("left: %v", left)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	k.t.Logf("the machine says, at its end:\n%s", strings.Join(lines[max(0, len(lines)-14):], "\n"))
	return dir
}

// end kills the kubelet of a machine.
func (k *kube) end(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "kubelet.pid"))
	if err != nil {
		return // it never started
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
	_ = os.Remove(filepath.Join(dir, "kubelet.pid"))
}

// TestKubeJoin: a machine that is ready joins by the script that it is given, and nobody else by
// its token; and once more when it is installed again.
func TestKubeJoin(t *testing.T) {
	k := startKube(t)
	k.prepare()
	s := newServer(k)
	cl := must(Open(k.config()))
	k.apply(must(cl.Manifests()))
	k.eventually("the manifests are in force", func() error {
		for _, f := range must(cl.Check(t.Context(), time.Now())).Findings {
			if !f.OK {
				return fmt.Errorf("%s: %s", f.What, f.Got)
			}
		}
		return nil
	})
	h := s.ready(lane.Provisioning{})
	path := lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetJoin}
	script := must(s.Join(t.Context(), path, facts()))
	_, rest, _ := strings.Cut(string(script), `token: "`)
	id, secret, _ := strings.Cut(rest[:23], ".")
	thief := cl.api.as(id+"."+secret, cl.anonymous())
	_, err := k.request(thief, "thief", kubelet("victim-node"))
	k.must(err)
	dir := k.machine(script)
	s.report(h, lane.StageJoined)
	s.settled(t, k, thief, secret)
	if got := s.events(lane.KindAlarm); !strings.Contains(got, "thief is not approved") || strings.Count(got, "\n") > 0 {
		t.Errorf("alarms: %s", got)
	}

	if _, err := s.Provision(t.Context(), "node-a", lane.Provisioning{By: "op:t", Reinstall: true}); lane.CodeOf(err) != lane.Refused || !strings.Contains(err.Error(), "that is Ready") {
		t.Errorf("its Node is Ready: %v", err)
	}
	before := must(cl.Node(t.Context(), "node-a"))
	k.end(dir)
	k.must(k.admin.call(t.Context(), "miss", http.MethodPatch, nodesPath+"node-a/status", nodeStatus(string(nodeUUID), "Unknown"), nil)) // as the node controller does after 50 s
	h = s.ready(lane.Provisioning{})
	path.Capability = h.Run.Capability
	k.machine(must(s.Join(t.Context(), path, facts())))
	s.report(h, lane.StageJoined)
	s.settled(t, k, nil, "")
	if after := must(cl.Node(t.Context(), "node-a")); after.UID == before.UID || !strings.Contains(s.events(lane.KindCluster), "the stale Node node-a of the cluster prod") {
		t.Errorf("%+v, then %+v", before, after)
	}
	t.Logf("evidence:\n%s", s.events(lane.KindArmed, lane.KindIssued, lane.KindEnded, lane.KindCluster, lane.KindAlarm, lane.KindInstalled))
}

// settled waits until nothing is left to do for node-a, and holds the cluster against that.
func (s *server) settled(t *testing.T, k *kube, thief *api, secret string) {
	t.Helper()
	ctx := t.Context()
	k.eventually("nothing is left to do", func() error {
		if h := must(s.Host(ctx, "node-a")); h.State != lane.StateInstalled || h.Run.Outcome != "joined" || h.Join.Pending() {
			return fmt.Errorf("%s, %+v\n%s", h.State, h.Join, s.events(lane.KindCluster, lane.KindAlarm))
		}
		return nil
	})
	j := must(s.Host(ctx, "node-a")).Join
	if err := k.admin.call(ctx, "read", http.MethodGet, secretsPath+"/"+secretPrefix+j.Token, nil, nil); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("its Secret is there: %v", err)
	}
	var o struct {
		Metadata struct{ Labels map[string]string }
	}
	k.must(k.admin.call(ctx, "read", http.MethodGet, nodesPath+"node-a", nil, &o))
	if o.Metadata.Labels["node-restriction.kubernetes.io/inventory-uuid"] != string(nodeUUID) || o.Metadata.Labels["node-restriction.kubernetes.io/rack"] != "R7" {
		t.Errorf("%v", o.Metadata.Labels)
	}
	if thief == nil {
		return
	}
	var stolen csrObject
	k.must(k.admin.call(ctx, "read", http.MethodGet, requestsPath+"/thief", nil, &stolen))
	if len(stolen.Status.Conditions) > 0 {
		t.Errorf("the thief's request: %v", stolen.Status.Conditions)
	}
	k.eventually("the token opens nothing", func() error {
		if _, err := whoAmI(ctx, thief); err == nil || !strings.Contains(err.Error(), "401") {
			return fmt.Errorf("it is let in: %v", err)
		}
		return nil
	})
	if text := s.events(lane.KindArmed, lane.KindIssued, lane.KindEnded, lane.KindCluster, lane.KindAlarm, lane.KindInstalled, lane.KindServed); strings.Contains(text, secret) {
		t.Errorf("the secret is told:\n%s", text)
	}
}
