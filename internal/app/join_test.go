package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bootlane/internal/api"
	"bootlane/internal/join/jointest"
	"bootlane/internal/lane"
)

// TestJoinContract follows the way into a cluster that first boot is told of, from the seed to the
// credential's end, through the whole server. The cluster's API is a stand-in that speaks HTTPS,
// because a real one is too slow to build here: `make test-kube` has it.
func TestJoinContract(t *testing.T) {
	s := jointest.New(t)
	w := newWorld(t, fmt.Sprintf("clusters: {prod: {distribution: kubeadm, apiServerEndpoint: %q, kubeconfig: %s, user: %s}}\nroles: {worker: {cluster: prod}}\n", s.Endpoint, s.Kubeconfig, jointest.User))
	w.bundles()
	out, err := w.client.Import(t.Context(), []api.HostSpec{{ID: "node1", Role: "worker", Identity: lane.Identity{UUID: uuid, MACs: []lane.MAC{mac}, Serial: "S1"}, Disk: lane.DiskSelector{Serial: "D1"}}}, false)
	if err != nil || len(out.Problems) > 0 {
		t.Fatal(err, out.Problems)
	}
	base := w.runBase()
	report := func(stage string) {
		t.Helper()
		if res, text := ask(t, "POST", base+"/report", fmt.Sprintf("stage=%s&seq=1&status=ok&message=m&uuid=%s&mac=%s&serial=S1", stage, uuid, mac)); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", stage, res.StatusCode, text)
		}
	}
	report("kernel")
	_, seed := ask(t, "GET", base+"/seed/firstboot.sh", "")
	m := regexp.MustCompile(`(?m)^\s*url="\$base(/join\.sh\?.*)"$`).FindStringSubmatch(seed)
	if m == nil {
		t.Fatalf("first boot is not told of the join:\n%s", seed)
	}
	url := base + strings.NewReplacer("$uuid", string(uuid), "$mac", string(mac)).Replace(strings.ReplaceAll(m[1], `$(form "$serial")`, "S1"))
	if res, text := ask(t, "GET", url, ""); res.StatusCode != http.StatusForbidden || !strings.Contains(text, "not proven itself") {
		t.Errorf("before it is ready: %d %s", res.StatusCode, text)
	}
	for _, stage := range []string{"installer", "disk-written", "first-boot", "ready"} {
		report(stage)
	}
	for method, want := range map[string]int{"HEAD": http.StatusMethodNotAllowed, "POST": http.StatusMethodNotAllowed} {
		if res, _ := ask(t, method, url, ""); res.StatusCode != want || len(s.Secrets()) > 0 {
			t.Errorf("%s: %d, %v", method, res.StatusCode, s.Secrets())
		}
	}
	if res, text := ask(t, "GET", base+"/join.sh", ""); res.StatusCode != http.StatusForbidden || !strings.Contains(text, "identity-missing") || len(s.Secrets()) > 0 {
		t.Errorf("who says nothing of itself: %d %s", res.StatusCode, text)
	}
	res, script := ask(t, "GET", url, "")
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(script, "#!/bin/sh\n") || res.Header.Get("Cache-Control") != "no-store" || len(s.Secrets()) != 1 || !strings.Contains(script, s.Secrets()[0]+".") {
		t.Fatalf("%d, %v\n%s", res.StatusCode, s.Secrets(), script)
	}
	secret := regexp.MustCompile(s.Secrets()[0] + `\.([a-z0-9]{16})`).FindStringSubmatch(script)[1]
	report("joined")
	s.SetNode("node1", string(uuid), true)
	for n := 0; len(s.Secrets()) > 0; n++ { // the server looks once a second
		if n == 600 {
			t.Fatalf("left in the cluster: %v", s.Secrets())
		}
		time.Sleep(100 * time.Millisecond)
	}
	h, err := w.client.Host(t.Context(), "node1")
	must(t, err)
	if h.State != lane.StateInstalled || h.Run.Outcome != "joined" {
		t.Errorf("%s, %+v", h.State, h.Run)
	}
	w.untold(secret)
}

// untold looks for a secret in what operators are told, and in all that the server keeps.
func (w *world) untold(secret string) {
	w.Helper()
	events, err := w.client.Events(w.Context(), "node1", 0, 1000)
	must(w.T, err)
	h, err := w.client.Host(w.Context(), "node1")
	must(w.T, err)
	if strings.Contains(fmt.Sprintf("%+v %+v", events, h), secret) {
		w.Error("the secret is told")
	}
	must(w.T, filepath.Walk(filepath.Join(w.dir, "data"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), secret) {
			w.Errorf("the secret stands in %s", path)
		}
		return nil
	}))
}

// TestClusterConfiguration: everything wrong with it is told at once, each with its key.
func TestClusterConfiguration(t *testing.T) {
	s := jointest.New(t)
	for more, want := range map[string]string{
		"clusters: {prod: {distribution: k0s, apiServerEndpoint: 'api.example.org:6443', kubeconfig: /k}}\nsite: {cluster: prod}": "",
		"clusters: {prod: {distribution: k8s, apiServerEndpoint: 'https://a', tokenTTL: 1h, user: 'a b', labels: ['a b']}}\nsite: {cluster: staging}\nroles: {w: {cluster: other}}": `clusters.prod.distribution: "k8s": use kubeadm, k0s, k3s
clusters.prod.apiServerEndpoint: "https://a" is not HOST:PORT
clusters.prod.kubeconfig: is missing
clusters.prod.tokenTTL: 1h0m0s: from 1m to 30m
clusters.prod.user: "a b" is not the name
clusters.prod.labels[0]: "a b" is not the key
site.cluster: "staging" is not under
roles.w.cluster: "other" is not under`,
		"clusters: {Prod: {}}": `clusters: "Prod" is not the name of a cluster`,
	} {
		_, got := loadConfig(t, "", more)
		if want == "" && got != "" {
			t.Errorf("%s: %s", more, got)
		}
		for _, line := range strings.Split(want, "\n") {
			if !strings.Contains(got, line) {
				t.Errorf("%s\nis told\n%s\nwant %s", more, got, line)
			}
		}
	}
	c, text := loadConfig(t, "", fmt.Sprintf("clusters: {prod: {distribution: kubeadm, apiServerEndpoint: 'a:1', kubeconfig: %s}, other: {distribution: kubeadm, apiServerEndpoint: 'a:1', kubeconfig: /absent}}", s.Kubeconfig))
	if text != "" || c.Clusters["prod"].TokenTTL != lane.DefaultTokenTTL || c.Clusters["prod"].User != "bootlane" {
		t.Errorf("%s %+v", text, c.Clusters)
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "clusters.other.kubeconfig: open /absent") || strings.Contains(err.Error(), "clusters.prod") {
		t.Errorf("%v", err)
	}
}
