package lane

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVolumes(t *testing.T) {
	for _, c := range []struct {
		name string
		list []string
		want []Volume
		bad  []string
	}{
		{"none", nil, []Volume{{"/", 0}}, nil},
		{"the root takes the rest", []string{"/var=40G", "/var/log=8G"}, []Volume{{"/var", 40}, {"/var/log", 8}, {"/", 0}}, nil},
		{"another takes the rest", []string{"/srv/data=rest", "/=8G"}, []Volume{{"/", 8}, {"/srv/data", 0}}, nil},
		{"the root is said to", []string{"/=rest", "/home=1G"}, []Volume{{"/home", 1}, {"/", 0}}, nil},
		{"no size", []string{"/var"}, nil, []string{"volumes[0]: \"/var\" is not MOUNT=SIZE like /var=40G"}},
		{"another unit", []string{"/var=40M", "/var=0G", "/var=40"}, nil, []string{"volumes[0]:", "volumes[1]:", "volumes[2]:"}},
		{"what cannot be apart", []string{"/boot=1G", "/etc=1G", "/var/../etc=1G", "/varnish=1G", "/var/=1G", "/var/a b=1G"}, nil, []string{"volumes[0]: \"/boot\" cannot be", "volumes[1]:", "volumes[2]:", "volumes[3]:", "volumes[4]:", "volumes[5]:"}},
		{"twice", []string{"/var=1G", "/var=2G"}, nil, []string{"volumes[1]: /var stands twice"}},
		{"one name", []string{"/var/a_b=1G", "/var/a/b=1G", "/var/a-b=1G"}, nil, []string{"volumes[1]: /var/a/b and /var/a_b would both be called var_a_b", "volumes[2]: /var/a-b and"}},
		{"a small root", []string{"/=7G", "/var=rest"}, nil, []string{"volumes[0]: / needs at least 8 GiB"}},
		{"two rests", []string{"/=rest", "/var=rest"}, nil, []string{"volumes[1]: / already takes the rest"}},
		{"no rest", []string{"/=40G", "/var=40G"}, nil, []string{"volumes: one of them must take the rest"}},
		{"a rest and no root", []string{"/var=rest"}, nil, []string{"volumes: /var takes the rest of the disk: give / a size as well"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, bad := Volumes(c.list)
			problemsAre(t, bad, c.bad)
			if diff := cmp.Diff(c.want, got); c.bad == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := (Volume{Mount: "/var/lib/x"}).Name() + " " + (Volume{Mount: "/"}).Name(); got != "var_lib_x root" {
		t.Error(got)
	}
	problemsAre(t, InstallOptions{Layout: new("raid"), Volumes: []string{"x"}}.Validate(), []string{"layout: \"raid\": use plain, lvm", "volumes[0]:"})
}
