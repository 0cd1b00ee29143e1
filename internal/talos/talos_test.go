package talos

import (
	"bytes"
	"strings"
	"testing"

	blockpb "github.com/siderolabs/talos/pkg/machinery/api/resource/definitions/block"
	"github.com/siderolabs/talos/pkg/machinery/cel/celenv"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
)

const worker = `version: v1alpha1
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

// TestSet: what is there is replaced, what is not is made, and comments stay.
func TestSet(t *testing.T) {
	c, problems := Read([]byte("# kept\n" + worker))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, s := range []struct {
		value any
		keys  []string
	}{{"n: 1", []string{"machine", "network", "hostname"}}, {true, []string{"machine", "install", "wipe"}}, {[]string{"a"}, []string{"machine", "time", "servers"}}} {
		if err := Set(c.Of(""), s.value, s.keys...); err != nil {
			t.Fatal(err)
		}
	}
	text, err := c.Bytes()
	if err != nil || !bytes.Contains(text, []byte("# kept\n")) || !bytes.Contains(text, []byte("hostname: 'n: 1'\n")) || !bytes.Contains(text, []byte("wipe: true")) {
		t.Errorf("%v\n%s", err, text)
	}
	if p := Validate(text); len(p) > 0 {
		t.Errorf("%q", p)
	}
	if again, problems := Read(text); len(problems) > 0 || again.Main("machine", "time", "servers") == nil || again.Of("HostnameConfig") != nil {
		t.Errorf("%v", problems)
	}
}

// FuzzRead: whatever the text is, there is an answer, and what is read can be written and read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(worker))
	f.Add([]byte(worker + "---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: a\n"))
	f.Add([]byte("x: &a [*a]\n"))
	f.Add([]byte("---\n---\n- a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, problems := Read(text)
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Message == "" {
				t.Fatalf("%+v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		out, err := c.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		Validate(out)
		if _, problems := Read(out); len(problems) > 0 {
			t.Fatalf("%q is written as %q, and refused: %v", text, out, problems)
		}
	})
}

// TestSize: what a selector says of the disk's size, Talos' own expression compares, beside the rest.
func TestSize(t *testing.T) {
	text := strings.Replace(worker, "disk: /dev/sda", `diskSelector: {wwid: naa.1, size: ">= 475200000000"}`, 1)
	config, err := configloader.NewFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	by, err := config.Machine().Install().DiskMatchExpression()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		wwid string
		size uint64
		want bool
	}{{"naa.1", 480_000_000_000, true}, {"naa.1", 475_200_000_000, true}, {"naa.1", 475_199_999_999, false}, {"naa.1", 960_000_000_000, true}, {"naa.2", 480_000_000_000, false}} {
		got, err := by.EvalBool(celenv.DiskLocator(), map[string]any{"disk": &blockpb.DiskSpec{Wwid: c.wwid, Size: c.size, Transport: "sata"}, "system_disk": false})
		if err != nil || got != c.want {
			t.Errorf("%s of %d bytes: %v, %v", c.wwid, c.size, got, err)
		}
	}
}
