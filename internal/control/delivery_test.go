package control_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// delivery is a run whose script went to 10.0.0.21, and the answer to a document fetched from elsewhere.
func delivery(t *testing.T, edit func(*rig)) (*rig, lane.Host) {
	t.Helper()
	r := newRig(t)
	if edit != nil {
		edit(r)
	}
	h := spec("node1")
	h.Network.Address = netip.MustParseAddr("10.0.0.22")
	r.enrol(h, other("node2"))
	run := r.provision("node1", lane.Provisioning{Bundle: "debian-preseed-1"})
	f := loaderFacts()
	f.From, f.MACs = "10.0.0.21", append(f.MACs, "52:54:00:00:00:77") // a NIC that the record does not have
	_, _, err := r.Script(t.Context(), f, false)
	r.must(err)
	return r, run
}

func (r *rig) document(h lane.Host, from string) error {
	r.t.Helper()
	f := installerFacts()
	f.From = from
	_, err := r.Seed(r.t.Context(), lane.RunPath{Capability: h.Run.Capability, Asset: lane.AssetSeed, Name: "preseed.cfg"}, f)
	return err
}

// alarms returns the alarms about a subject.
func (r *rig) alarms(subject string) (out []lane.Event) {
	r.t.Helper()
	r.must(r.store.Flush(r.t.Context()))
	events, err := r.store.LastEvents(r.t.Context(), subject, 1000)
	r.must(err)
	for _, e := range events {
		if e.Kind == lane.KindAlarm {
			out = append(out, e)
		}
	}
	return out
}

// TestDeliveryAddress: what an open run has is given to the addresses of its machine, and from any
// other it is an alarm.
func TestDeliveryAddress(t *testing.T) {
	lease := func(r *rig, a string, m lane.MAC, state lane.LeaseState) {
		r.must(r.store.PutLease(r.t.Context(), lane.Lease{MAC: m, Address: netip.MustParseAddr(a), State: state, Granted: r.clock(), Expires: r.clock().Add(time.Hour)}, netip.Addr{}))
	}
	lease6 := func(r *rig, a string, c lane.Client) {
		r.must(r.store.PutLease6(r.t.Context(), lane.Lease6{Client: c, Address: netip.MustParseAddr(a), State: lane.LeaseActive, Granted: r.clock(), Expires: r.clock().Add(time.Hour)}))
	}
	foreign := func(n int) func(*rig) {
		return func(r *rig) { r.Networks[0].Proxy, r.Networks[0].External = n == 0, n == 1 }
	}
	for name, c := range map[string]struct {
		from string
		edit func(*rig)
		says string // of the alarm; empty: it is given
	}{
		"where the script went":               {"10.0.0.21", nil, ""},
		"the same, as IPv6 writes it":         {"::ffff:10.0.0.21", nil, ""},
		"the record's own":                    {"10.0.0.22", nil, ""},
		"another lease of its NIC":            {"10.0.0.30", func(r *rig) { lease(r, "10.0.0.30", mac1, lane.LeaseActive) }, ""},
		"a lease that it gave back":           {"10.0.0.30", func(r *rig) { lease(r, "10.0.0.30", mac1, lane.LeaseReleased) }, ""},
		"a lease of a NIC that it told of":    {"10.0.0.30", func(r *rig) { lease(r, "10.0.0.30", "52:54:00:00:00:77", lane.LeaseActive) }, ""},
		"a lease of IPv6 of its NIC":          {"fd00::30", func(r *rig) { lease6(r, "fd00::30", lane.Client(mac1)) }, ""},
		"a lease of IPv6 of its UUID":         {"fd00::30", func(r *rig) { lease6(r, "fd00::30", "uuid:"+lane.Client(uuid1)) }, ""},
		"beside the site's DHCP server":       {"10.0.0.99", foreign(0), ""},
		"where the site's server names files": {"10.0.0.99", foreign(1), ""},
		"any, if the site says so":            {"192.0.2.1", func(r *rig) { r.Policy.AnyAddress = true }, ""},

		"nobody's":                           {"10.0.0.99", nil, "was used from 10.0.0.99: its machine asked for its script from 10.0.0.21, and 10.0.0.99 is neither leased to it nor reserved for it"},
		"another machine's":                  {"10.0.0.30", func(r *rig) { lease(r, "10.0.0.30", mac2, lane.LeaseActive) }, "10.0.0.30 is leased to node2"},
		"a stranger's":                       {"10.0.0.30", func(r *rig) { lease(r, "10.0.0.30", "52:54:00:00:00:66", lane.LeaseActive) }, "10.0.0.30 is leased to mac:52:54:00:00:00:66"},
		"one that its NIC found taken":       {"10.0.0.30", func(r *rig) { lease(r, "10.0.0.30", mac1, lane.LeaseDeclined) }, "10.0.0.30 is leased to node1"},
		"another network":                    {"192.0.2.1", foreign(0), "192.0.2.1 is neither"},
		"a lease of IPv6 of another machine": {"fd00::30", func(r *rig) { lease6(r, "fd00::30", lane.Client(mac2)) }, "fd00::30 is leased to node2"},
		"no address at all":                  {"", nil, "is no address"},
	} {
		t.Run(name, func(t *testing.T) {
			r, h := delivery(t, c.edit)
			for range 3 {
				if err := r.document(h, c.from); (c.says == "") != (err == nil) || err != nil && lane.CodeOf(err) != lane.Refused {
					t.Errorf("%v", err)
				}
			}
			alarms := r.alarms("node1")
			if c.says == "" {
				if len(alarms) > 0 {
					t.Errorf("%+v", alarms)
				}
				return
			}
			// One line, however often: who knocks all day fills nothing.
			if len(alarms) != 1 || alarms[0].Count != 3 || !strings.Contains(alarms[0].Message, c.says) || alarms[0].Reason != lane.ForeignAddress || alarms[0].Run != h.Run.ID || alarms[0].Name != "seed/preseed.cfg" {
				t.Fatalf("%+v", alarms)
			}
			if strings.Contains(alarms[0].Message, h.Run.Capability) {
				t.Error("the evidence has the secret")
			}
			if got := r.host("node1"); !got.Run.Open || got.State != lane.StateProvisioning {
				t.Errorf("a stranger ended the run: %+v", got.Run)
			}
			r.must(r.document(h, "10.0.0.21"))
		})
	}
}

// TestDeliveryIPv6: a machine of IPv6 has many addresses in its network.
func TestDeliveryIPv6(t *testing.T) {
	r, h := delivery(t, nil)
	r.pass(time.Minute)
	f := loaderFacts()
	f.From = "fd00::1:21"
	_, _, err := r.Script(t.Context(), f, false)
	r.must(err)
	r.must(r.document(h, "fd00::abcd:ef01:2345:6789"))
	if err := r.document(h, "fd00:1::21"); lane.CodeOf(err) != lane.Refused {
		t.Errorf("another network: %v", err)
	}
	// That the boot before came from an address says nothing about this one.
	if err := r.document(h, "10.0.0.21"); lane.CodeOf(err) != lane.Refused {
		t.Errorf("the address of the boot before: %v", err)
	}
}

// TestDeliveryTimes: what opens a run is known to nobody before its script was served, and needed
// by nobody after it.
func TestDeliveryTimes(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{Bundle: "debian-preseed-1"})
	if err := r.document(h, "10.0.0.9"); lane.CodeOf(err) != lane.Refused || !strings.HasPrefix(err.Error(), "run-not-begun: ") {
		t.Errorf("before the script: %v", err)
	}
	r.script(lane.Install)
	for range 3 { // installers read again
		r.must(r.document(h, "10.0.0.9"))
	}
	if n := len(r.alarms("node1")); n != 1 {
		t.Errorf("%d alarms", n)
	}
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	r.must(r.report(h, lane.StageDiskWritten, 1, lane.StatusOK))
	if err := r.document(h, "10.0.0.9"); lane.CodeOf(err) != lane.Refused || !strings.HasPrefix(err.Error(), "disk-written: ") {
		t.Errorf("behind the disk: %v", err)
	}
	r.must(r.report(h, lane.StageReady, 1, lane.StatusOK))
	if err := r.document(h, "10.0.0.9"); lane.CodeOf(err) != lane.Refused || !strings.HasPrefix(err.Error(), "host-installed: ") {
		t.Errorf("after the run: %v", err)
	}
	if alarms := r.alarms("node1"); len(alarms) != 2 || alarms[1].Reason != lane.HostInstalled || !strings.Contains(alarms[1].Message, "what opens run "+string(h.Run.ID)+" was used from 10.0.0.9") {
		t.Errorf("%+v", alarms)
	}
	second := r.provision("node1", lane.Provisioning{Bundle: "debian-preseed-1", Reinstall: true})
	if err := r.document(h, "10.0.0.9"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("an earlier run's: %v", err)
	}
	if err := r.report(h, lane.StageKernel, 1, lane.StatusOK); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a report of an earlier run: %v", err)
	}
	if alarms := r.alarms("server"); len(alarms) != 2 || alarms[0].Message != "a capability that no run has was tried from 10.0.0.9" {
		t.Errorf("%+v", alarms)
	}
	if got := r.host("node1"); got.Run.ID != second.Run.ID || got.Run.Stage != lane.StageArmed {
		t.Errorf("the earlier run moved this one: %+v", got.Run)
	}
}

// TestOrderAddress: an agent elsewhere is told to hold, and why.
func TestOrderAddress(t *testing.T) {
	r := newRig(t)
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{})
	f := loaderFacts()
	f.From = "10.0.0.21"
	_, _, err := r.Script(t.Context(), f, false)
	r.must(err)
	for from, want := range map[string]lane.Action{"10.0.0.66": lane.Hold, "10.0.0.21": lane.Install} {
		f := installerFacts()
		f.From = from
		o, err := r.Order(t.Context(), h.Run.Capability, hardware(lane.Disk{Name: "vda", Serial: "D1", SizeBytes: 1e9}), f)
		r.must(err)
		if o.Action != want || want == lane.Hold && (o.Reason != lane.ForeignAddress || o.Image != nil || len(o.Files) > 0) {
			t.Errorf("from %s: %+v", from, o)
		}
	}
}

// TestReportAddress: an installed system may have an address of its own, if it says who it is.
func TestReportAddress(t *testing.T) {
	r, h := delivery(t, nil)
	report := lane.Report{Stage: lane.StageKernel, Seq: 1, Status: lane.StatusOK, Facts: lane.Facts{Surface: lane.SurfaceHTTP, Speaker: lane.SpeakerInstaller, From: "192.0.2.1"}}
	if err := r.Report(t.Context(), h.Run.Capability, report); lane.CodeOf(err) != lane.Refused || len(r.alarms("node1")) != 1 || r.host("node1").Run.Stage != lane.StageScript {
		t.Errorf("%v, %+v", err, r.alarms("node1"))
	}
	report.Facts.UUID = uuid1
	r.must(r.Report(t.Context(), h.Run.Capability, report))
	if got := r.host("node1").Run.Stage; got != lane.StageKernel {
		t.Errorf("at %s", got)
	}
}

// TestProgressMovesTheDeadline: a run that gets on is given time, up to its limit; one that does
// not is failed, with the stage and the last that was heard of it.
func TestProgressMovesTheDeadline(t *testing.T) {
	r := newRig(t)
	r.Policy.Limit, r.Policy.Stages = 5*time.Hour, map[lane.Stage]time.Duration{lane.StageDiskWritten: 20 * time.Minute}
	r.enrol(spec("node1"))
	h := r.provision("node1", lane.Provisioning{For: time.Hour})
	start := r.clock()
	deadline := func(want time.Duration) {
		t.Helper()
		if got := r.host("node1").Run.Deadline.Sub(start); got != want {
			t.Errorf("the deadline is %s after the grant, want %s", got, want)
		}
	}
	deadline(time.Hour)
	r.pass(50 * time.Minute)
	r.script(lane.Install)
	deadline(110 * time.Minute)
	r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
	for i := 1; i <= 3; i++ {
		r.pass(50 * time.Minute)
		r.must(r.report(h, lane.StageInstaller, i, lane.StatusProgress))
		r.must(r.Expire(t.Context()))
	}
	deadline(260 * time.Minute)
	r.pass(10 * time.Minute)
	r.must(r.report(h, lane.StageInstaller, 3, lane.StatusProgress)) // again: no progress
	deadline(260 * time.Minute)
	r.must(r.report(h, lane.StageDiskWritten, 1, lane.StatusOK))
	deadline(230 * time.Minute)
	r.pass(15 * time.Minute)
	r.must(r.report(h, lane.StageFirstBoot, 1, lane.StatusOK))
	deadline(285 * time.Minute)
	r.pass(40 * time.Minute)
	r.must(r.report(h, lane.StageFirstBoot, 2, lane.StatusProgress))
	deadline(5 * time.Hour)
	r.pass(35 * time.Minute)
	r.must(r.Expire(t.Context()))
	got := r.host("node1")
	if got.State != lane.StateFailed || !strings.HasPrefix(got.Note, "the deadline passed at stage first-boot, 5h0m0s after the grant: a run never lasts longer: the last that was heard, at ") || !strings.HasSuffix(got.Note, ": m") {
		t.Errorf("%s: %s", got.State, got.Note)
	}

	r.provision("node1", lane.Provisioning{For: time.Hour})
	r.script(lane.Install)
	r.pass(time.Hour)
	r.must(r.Expire(t.Context()))
	if got := r.host("node1"); got.State != lane.StateFailed || !strings.HasPrefix(got.Note, "the deadline passed at stage script: the last that was heard, at ") || !strings.Contains(got.Note, "install script served: network boot 1 of 2") {
		t.Errorf("%s: %s", got.State, got.Note)
	}
}

// TestCrashLoop: a machine that boots by network more often than it was granted has not installed;
// its run ends, says why, and nothing of it can be had any more. What follows is the site's choice.
func TestCrashLoop(t *testing.T) {
	for name, hold := range map[string]bool{"local boot": false, "hold": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.Policy.HoldFailed = hold
			r.enrol(spec("node1"))
			h := r.provision("node1", lane.Provisioning{Boots: 3})
			for i := range 3 {
				r.script(lane.Install)
				r.must(r.report(h, lane.StageKernel, 1, lane.StatusOK))
				if got := r.host("node1"); got.Run.BootsUsed != i+1 || !got.Run.Open {
					t.Fatalf("boot %d: %+v", i+1, got.Run)
				}
				r.pass(2 * time.Minute)
			}
			want := map[bool]lane.Action{false: lane.LocalBoot, true: lane.Hold}[hold]
			for range 2 {
				r.script(want)
			}
			got := r.host("node1")
			if got.State != lane.StateFailed || got.Run.Open || got.Run.BootsUsed != 3 || !strings.Contains(got.Note, "another network boot after all of its grant, and had not written the disk: it reached kernel") {
				t.Errorf("%s: %s, %+v", got.State, got.Note, got.Run)
			}
			if err := r.document(h, "10.0.0.9"); lane.CodeOf(err) != lane.Refused {
				t.Error(err)
			}
			v, err := r.Why(t.Context(), "node1")
			r.must(err)
			if v.Rule != string(lane.BootsSpent) {
				t.Errorf("%+v", v)
			}
			if d, err := r.Ask(t.Context(), romFacts()); err != nil || d.Action != want || d.Reason != lane.HostFailed {
				t.Errorf("its firmware is told %+v, %v", d, err)
			}
		})
	}
}
