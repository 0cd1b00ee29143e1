package lane

import "testing"

func TestKubeletSkew(t *testing.T) {
	for _, c := range []struct {
		name, version string
		refused       bool
	}{
		{"kubelet=1.35.2-1.1", "v1.35.0", false}, {"kubelet=1.32-2", "v1.35.0", false}, {"kubelet=1.34.1", "v1.35.0+k3s1", false}, {"kubelet-1.36.0", "v1.35.0", false}, {"kubelet", "v1.35.0", false}, {"kubelet-extra=1.40.0", "v1.35.0", false},
		{"kubelet=1.36.0-1.1", "v1.35.0", true}, {"kubeadm=1.31.9-150500.1.1", "v1.35.0", true}, {"kubelet=0:1.36.0", "v1.35.9", true}, {"kubelet=1.36.0", "", false}, {"kubelet=1.36.0", "v2.0.0", false},
	} {
		got := KubeletSkew("site.packages", []string{"vim", c.name}, c.version)
		if len(got) > 0 != c.refused || c.refused && got[0].Field != "site.packages[1]" {
			t.Errorf("%s with %s: %v", c.name, c.version, got)
		}
	}
}
