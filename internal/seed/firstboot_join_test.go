package seed

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// joining is an installed system whose server gives a join script, and notes how it is kept.
func joining(t *testing.T, script string) (*installed, Input) {
	t.Helper()
	s, in := newInstalled(t), full(lane.SeedImage)
	in.Host.Run.Cluster = "prod"
	s.write("state/join.sh", script)
	s.write("run/here", "")
	curl := s.read("bin/curl")
	s.program("curl", strings.Replace(strings.TrimPrefix(curl, "#!/bin/sh\n"), "*) exit 3 ;;", `*/join.sh*)
	while [ "$1" != -o ]; do shift; done
	echo "JOIN $last" >> "$here/log"
	if [ -e "$here/refused" ]; then echo "not now" > "$2"; printf 403; exit 0; fi
	if [ -s "$here/late" ]; then : > "$here/late"; exit 7; fi
	cat "$here/join.sh" > "$2"
	printf 200
	;;
*) exit 3 ;;`, 1))
	return s, in
}

// TestFirstBootJoins: after ready, and before done; what holds the credential is for root alone, and goes.
func TestFirstBootJoins(t *testing.T) {
	for _, c := range []struct {
		name, script string
		edit         func(*installed)
		status       string // of the last report
		want         string // words of it
		asks         int
	}{
		{"joins", "stat -c 'modes %a' \"$0\" \"$(dirname \"$0\")\" >> \"$(dirname \"$0\")/../../state/log\"; echo kubeadm says much; echo the node node-a is in the cluster\n", nil, "ok", "the node node-a is in the cluster", 1},
		{"at the second try", "echo in\n", func(s *installed) { s.write("state/late", "once") }, "ok", "in", 2},
		{"fails", "echo token abcdef.0123456789abcdef is no good; exit 4\n", nil, "failed", "join of the cluster prod: token TOKEN is no good", 20},
		{"is refused", "echo in\n", func(s *installed) { s.write("state/refused", "") }, "failed", "the server gives no join script: 403not now", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, in := joining(t, c.script)
			s.patient = c.asks == 20
			if c.edit != nil {
				c.edit(s)
			}
			status, reports := s.boot(in)
			if status != 0 || len(reports) != 3 || said(reports[1]) != "ready 1 ok" || said(reports[2]) != "joined 1 "+c.status || !strings.Contains(reports[2].Get(lane.ReportMessage), c.want) {
				t.Fatalf("exit %d, reports %v", status, reports)
			}
			log, done := s.read("state/log"), s.read("var/lib/bootlane/done")
			if n := strings.Count(log, "JOIN "+in.Base+"/join.sh?uuid=4c4c4544-0042-3510-8051-b4c04f4d3732&mac=52:54:00:00:00:a1&serial=SN-A+1\n"); n != c.asks || n != strings.Count(log, "JOIN ") {
				t.Errorf("asked %d times, want %d:\n%s", n, c.asks, log)
			}
			if (done != "") != (c.status == "ok") || strings.Contains(log, "poweroff") {
				t.Errorf("done %q, log:\n%s", done, log)
			}
			if c.name == "joins" && !strings.Contains(log, "modes 600\nmodes 700\n") {
				t.Errorf("others can read it:\n%s", log)
			}
			for _, left := range []string{"run/bootlane/join.sh", "run/bootlane/log"} {
				if s.read(left) != "" {
					t.Errorf("%s is left", left)
				}
			}
		})
	}
}

// giveJoin answers as the server does: with the script, or with a refusal.
func (s *installed) giveJoin(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.Method != http.MethodGet || q.Get(lane.ReportUUID) != "4c4c4544-0042-3510-8051-b4c04f4d3732" || q.Get(lane.ReportMAC) != "52:54:00:00:00:a1" || q.Get(lane.ReportSerial) != "SN-A 1" {
		s.t.Errorf("%s %s", r.Method, r.URL)
	}
	if s.read("state/join.sh") == "" {
		http.Error(w, "not now", http.StatusForbidden)
		return
	}
	_, _ = io.WriteString(w, s.read("state/join.sh")) // a client that went away shows in its own log
}

// TestFirstBootJoinClients: with whatever the system has to fetch, from a real server.
func TestFirstBootJoinClients(t *testing.T) {
	for _, client := range []struct{ program, as, deb string }{{"curl", "curl", "curl"}, {"wget", "wget", "wget"}, {"busybox", "wget", "busybox-static"}} {
		for script, want := range map[string]string{"echo in\n": "joined 1 ok", "": "joined 1 failed"} {
			t.Run(client.program+" "+want, func(t *testing.T) {
				t.Parallel()
				s, in := newInstalled(t), full(lane.SeedImage)
				in.Host.Run.Cluster = "prod"
				s.write("run/here", "")
				s.write("state/join.sh", script)
				in.Base = s.serve(time.Second, true)
				s.forget("bin/curl")
				s.only("awk", "basename", "cat", "cut", "date", "dirname", "flock", "grep", "head", "mkdir", "mv", "readlink", "rm", "sed", "sh", "sort", "sync", "tail", "timeout", "touch", "tr", "wc", "chmod")
				s.have(client.as, tool(t, client.program, client.deb))
				status, reports := s.boot(in)
				if last := reports[len(reports)-1]; status != 0 || said(last) != want || script == "" && !strings.Contains(last.Get(lane.ReportMessage), "the server gives no join script") {
					t.Errorf("exit %d, %v", status, reports)
				}
			})
		}
	}
}

// TestFirstBootJoinsOnce: power fails after the join, before the server has heard of it.
func TestFirstBootJoinsOnce(t *testing.T) {
	s, in := joining(t, "echo in\n")
	s.write("state/deaf", "stage=joined")
	if status, _ := s.boot(in); status == 0 || s.read("var/lib/bootlane/done") != "" || s.read("var/lib/bootlane/joined") == "" {
		t.Fatalf("exit %d", status)
	}
	s.forget("state/deaf")
	if status, reports := s.boot(in); status != 0 || said(reports[len(reports)-1]) != "joined 1 ok" || s.read("var/lib/bootlane/done") == "" {
		t.Errorf("exit %d, %v", status, reports)
	}
	if n := strings.Count(s.read("state/log"), "JOIN "); n != 1 {
		t.Errorf("it asked %d times", n)
	}
}

// TestFirstBootJoinUnheard: a failure that the server does not hear is told again.
func TestFirstBootJoinUnheard(t *testing.T) {
	s, in := joining(t, "echo no; exit 1\n")
	s.write("state/deaf", "stage=joined")
	if status, _ := s.boot(in); status == 0 {
		t.Error("it is taken for told")
	}
}

// TestFirstBootWithoutACluster: nothing of all that.
func TestFirstBootWithoutACluster(t *testing.T) {
	if text := document(t, full(lane.SeedImage), "firstboot.sh"); strings.Contains(text, "join") {
		t.Errorf("it speaks of a join:\n%s", text)
	}
}
