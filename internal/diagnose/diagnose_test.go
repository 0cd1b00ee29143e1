package diagnose_test

import (
	"strings"
	"testing"
	"time"

	"bootlane/internal/diagnose"
	"bootlane/internal/lane"
)

func at(minutes int) time.Time { return time.Date(2026, 5, 4, 3, minutes, 0, 0, time.UTC) }

func event(kind lane.Kind, change func(*lane.Event)) lane.Event {
	e := lane.Event{Subject: "n1", Seq: 1, At: at(1), Kind: kind, By: "server", Run: "r-1", Message: "the line"}
	if change != nil {
		change(&e)
	}
	return e
}

// TestHost: each state has its rule, points at the line of evidence that says so,
// and names something to do next.
func TestHost(t *testing.T) {
	run := func(stage lane.Stage, open bool) lane.Run {
		return lane.Run{ID: "r-1", Open: open, Stage: stage, StageAt: at(1), Deadline: at(59)}
	}
	byDHCP := func(text string) func(*lane.Event) {
		return func(e *lane.Event) { e.Surface, e.Message = lane.SurfaceDHCP, text }
	}
	for name, c := range map[string]struct {
		host     lane.Host
		events   []lane.Event
		rule     string
		evidence lane.Kind
		because  string
		next     string
	}{
		"new": {lane.Host{State: lane.StateNew}, []lane.Event{event(lane.KindEnrolled, nil)}, "not-provisioned", lane.KindEnrolled, "nobody asked", "provision n1"},
		"no address": {lane.Host{State: lane.StateNew}, []lane.Event{event(lane.KindEnrolled, nil), event(lane.KindLease, byDHCP("leased")), event(lane.KindRefused, byDHCP("every address is leased"))},
			"no-address", lane.KindRefused, "every address is leased", "let the machine ask again"},
		"an address at last":      {lane.Host{State: lane.StateNew}, []lane.Event{event(lane.KindRefused, byDHCP("none")), event(lane.KindLease, byDHCP("leased"))}, "not-provisioned", lane.KindLease, "nobody asked", "provision n1"},
		"no address, then mended": {lane.Host{State: lane.StateNew}, []lane.Event{event(lane.KindRefused, byDHCP("none")), event(lane.KindUpdated, nil)}, "not-provisioned", lane.KindUpdated, "nobody asked", "provision n1"},
		"no address for its other NIC": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageInstaller, true)}, []lane.Event{event(lane.KindStage, nil), event(lane.KindRefused, byDHCP("none"))},
			"waiting-after-installer", lane.KindStage, "the disk gate passed", "progress"},
		"written in quarantine": {lane.Host{State: lane.StateQuarantine, Note: "smoke", Run: run(lane.StageDiskWritten, true)}, []lane.Event{event(lane.KindQuarantined, nil)},
			"host-quarantined", lane.KindQuarantined, "has written the disk", "release n1"},
		"no evidence": {lane.Host{State: lane.StateNew}, nil, "not-provisioned", "", "nobody asked", "provision n1"},
		"installed":   {lane.Host{State: lane.StateInstalled}, []lane.Event{event(lane.KindInstalled, nil), event(lane.KindAsked, nil)}, "installed", lane.KindInstalled, "proved itself", "nothing"},
		"retired":     {lane.Host{State: lane.StateRetired, Note: "sold"}, []lane.Event{event(lane.KindRetired, nil)}, "retired", lane.KindRetired, "sold", "host import"},
		"set aside":   {lane.Host{State: lane.StateQuarantine, Note: "smoke"}, []lane.Event{event(lane.KindQuarantined, nil)}, "host-quarantined", lane.KindQuarantined, "smoke", "release n1"},
		"disputed": {lane.Host{State: lane.StateQuarantine, Dispute: []lane.Signal{{Name: "uuid", Expected: "a", Seen: "b"}}}, []lane.Event{event(lane.KindQuarantined, nil)},
			"identity-mismatch", lane.KindQuarantined, "set aside", "host accept n1 --board"},
		"armed":                           {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, true)}, []lane.Event{event(lane.KindArmed, nil), event(lane.KindAsked, nil)}, "waiting-after-armed", lane.KindArmed, "not asked for anything yet", "boot order"},
		"SB-09 a loader that never asked": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageLoader, true)}, []lane.Event{event(lane.KindStage, nil)}, "waiting-after-loader", lane.KindStage, "has not asked for its script", "Secure Boot"},
		"Talos":                           {lane.Host{State: lane.StateProvisioning, Run: given(run(lane.StageInstaller, true))}, []lane.Event{event(lane.KindStage, nil)}, "waiting-after-installer", lane.KindStage, "reports nothing by itself", "host confirm"},
		"progress":                        {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageInstaller, true)}, []lane.Event{event(lane.KindStage, nil), event(lane.KindProgress, nil)}, "waiting-after-installer", lane.KindProgress, "for 9m0s", "progress"},
		"reported":                        {lane.Host{State: lane.StateFailed, Note: "at installer: boom", Run: run(lane.StageInstaller, false)}, []lane.Event{event(lane.KindFailed, nil)}, "reported-failure", lane.KindFailed, "boom", "provision n1"},
		"another address": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageScript, true)}, []lane.Event{event(lane.KindStage, nil), event(lane.KindAlarm, func(e *lane.Event) {
			e.Run, e.Reason, e.Message = "r-1", lane.ForeignAddress, "what opens run r-1 was used from 10.0.0.66"
		})}, "foreign-address", lane.KindAlarm, "was used from 10.0.0.66", "policy.runAddress: any"},
		"another address, and it went on": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageKernel, true)}, []lane.Event{event(lane.KindAlarm, func(e *lane.Event) {
			e.Run, e.Reason = "r-1", lane.ForeignAddress
		}), event(lane.KindStage, func(e *lane.Event) { e.Run = "r-1" })}, "waiting-after-kernel", lane.KindStage, "the installer runs", "console"},
		"checks failed": {lane.Host{State: lane.StateFailed, Note: "at ready: first boot", Run: run(lane.StageFirstBoot, false)}, []lane.Event{event(lane.KindFailed, func(e *lane.Event) {
			e.Checks = []lane.Check{{Name: lane.CheckHostname, Status: lane.CheckOK}, {Name: lane.CheckModules, Status: lane.CheckFailed, Expected: "overlay", Actual: "missing: overlay"}, {Name: lane.CheckTime, Status: lane.CheckFailed, Expected: "synchronised", Actual: "an hour off"}}
		})}, "checks-failed", lane.KindFailed, "2 of its checks failed: modules: expected overlay, it is missing: overlay; time: expected", "cloud kernel lacks many"},
		"spent": {lane.Host{State: lane.StateFailed, Run: run(lane.StageScript, false)}, []lane.Event{event(lane.KindFailed, func(e *lane.Event) { e.Reason = lane.BootsSpent })},
			"boots-spent", lane.KindFailed, "", "console"},
		"wrong disk": {lane.Host{State: lane.StateFailed, Run: run(lane.StageKernel, false)}, []lane.Event{event(lane.KindFailed, func(e *lane.Event) { e.Reason = lane.DiskMismatch })},
			"disk-mismatch", lane.KindFailed, "", "compare the disks"},
		"expired": {lane.Host{State: lane.StateFailed, Note: "the deadline passed at stage kernel", Run: run(lane.StageKernel, false)},
			[]lane.Event{event(lane.KindRefused, func(e *lane.Event) { e.Reason, e.Message = lane.RunExpired, "too late" }), event(lane.KindExpired, nil)},
			"run-expired", lane.KindExpired, "last refusal: run-expired too late", "package mirror"},
		"cancelled": {lane.Host{State: lane.StateFailed, Note: "cancelled", Run: run(lane.StageKernel, false)}, []lane.Event{event(lane.KindCancelled, nil)}, "cancelled", lane.KindCancelled, "cancelled", "provision n1"},
		"failed before a quarantine": {lane.Host{State: lane.StateFailed, Run: run(lane.StageKernel, false)}, []lane.Event{event(lane.KindFailed, nil), event(lane.KindReleased, nil)},
			"reported-failure", lane.KindFailed, "the line", "provision n1"},
		"failed, its evidence gone": {lane.Host{State: lane.StateFailed, Run: run(lane.StageKernel, false)}, nil, "reported-failure", "", "failed at stage kernel", "provision n1"},
		"evidence of an earlier run": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, true)}, []lane.Event{event(lane.KindArmed, nil), event(lane.KindStage, func(e *lane.Event) { e.Run = "r-0" })},
			"waiting-after-armed", lane.KindArmed, "", "boot order"},
		"refusal of an earlier run": {lane.Host{State: lane.StateFailed, Note: "late", Run: run(lane.StageKernel, false)},
			[]lane.Event{event(lane.KindRefused, func(e *lane.Event) { e.Run, e.Reason = "r-0", lane.RunExpired }), event(lane.KindExpired, nil)}, "run-expired", lane.KindExpired, "late: the installer runs and reported, but has not passed its disk gate", "package mirror"},
		"booted from elsewhere": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageAddress, true)}, []lane.Event{event(lane.KindArmed, nil), event(lane.KindForeign, byDHCP("it took another's offer"))},
			"other-server", lane.KindForeign, "has not fetched the loader; it took another's offer", "bootlane dhcp servers"},
		"booted from elsewhere, and then from us": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageScript, true)}, []lane.Event{event(lane.KindForeign, nil), event(lane.KindStage, nil)},
			"waiting-after-script", lane.KindStage, "", "console"},
		"booted from elsewhere before this run": {lane.Host{State: lane.StateProvisioning, Run: lane.Run{ID: "r-1", Open: true, Stage: lane.StageArmed, Armed: at(2), StageAt: at(2), Deadline: at(59)}},
			[]lane.Event{event(lane.KindForeign, nil), event(lane.KindArmed, nil)}, "waiting-after-armed", lane.KindArmed, "not asked", "boot order"},
		"booted from elsewhere until the deadline": {lane.Host{State: lane.StateFailed, Note: "the deadline passed", Run: run(lane.StageArmed, false)}, []lane.Event{event(lane.KindForeign, byDHCP("it took another's offer")), event(lane.KindExpired, nil)},
			"run-expired", lane.KindExpired, "; it took another's offer", "boot order"},
		"from later": {lane.Host{State: "melted"}, nil, "state-unknown", "", "melted", "version"},
	} {
		t.Run(name, func(t *testing.T) {
			c.host.ID = "n1"
			v := diagnose.Host(c.host, lane.BundleStatus{}, c.events, at(10))
			if v.Rule != c.rule || !strings.Contains(v.Because, c.because) || !strings.Contains(v.Next, c.next) || v.Next == "" {
				t.Errorf("%+v", v)
			}
			switch {
			case c.evidence == "" && v.Evidence != nil, c.evidence != "" && (v.Evidence == nil || v.Evidence.Kind != c.evidence):
				t.Errorf("evidence %+v, want %q", v.Evidence, c.evidence)
			}
		})
	}
}

// TestRevoked: whatever became of the machine, what was revoked is said, and what to do now;
// of a bundle that is refused otherwise, an open run only.
func TestRevoked(t *testing.T) {
	const said = "sys-1 is revoked since 2026-05-04 by op:t: CVE"
	revoked := lane.BundleStatus{Bundle: lane.Bundle{Digest: "sha256:1"}, State: lane.BundleRevoked, Refused: said}
	expired := lane.BundleStatus{Bundle: lane.Bundle{Digest: "sha256:1"}, State: lane.BundleImported, Refused: "sys-1 expired"}
	mended := lane.BundleStatus{Bundle: lane.Bundle{Digest: "sha256:1"}, State: lane.BundleImported}
	run := func(stage lane.Stage, outcome string) lane.Run {
		return lane.Run{ID: "r-1", Open: outcome == "", Outcome: outcome, Stage: stage, StageAt: at(1), Deadline: at(59)}
	}
	refusal := event(lane.KindAsked, func(e *lane.Event) { e.Action, e.Reason = "local-boot", lane.BundleRefused })
	for name, c := range map[string]struct {
		host                lane.Host
		b                   lane.BundleStatus
		rule, because, next string
	}{
		"armed":                  {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, "")}, revoked, "bundle-refused", said, "`bootlane cancel n1`, then `bootlane provision n1 --bundle BUNDLE`"},
		"expired":                {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, "")}, expired, "bundle-refused", "sys-1 expired", "bundle list"},
		"lacking":                {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, "")}, lane.BundleStatus{State: lane.BundleImported, Refused: "it is being fetched"}, "bundle-missing", "its bundle is not in the store, and so its machine is told to boot its disk: it is being fetched", "the open run goes on"},
		"revoked, and collected": {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, "")}, lane.BundleStatus{State: lane.BundleRevoked, Refused: said}, "bundle-refused", said, "bootlane cancel n1"},
		"mended since":           {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageArmed, "")}, mended, "waiting-after-armed", "not asked", "boot order"},
		"written":                {lane.Host{State: lane.StateProvisioning, Run: run(lane.StageDiskWritten, "")}, revoked, "waiting-after-disk-written", said, "let the run end"},
		"installed":              {lane.Host{State: lane.StateInstalled, Run: run(lane.StageReady, "ready")}, revoked, "installed", said, "provision n1 --reinstall --bundle BUNDLE"},
		"installed, expired":     {lane.Host{State: lane.StateInstalled, Run: run(lane.StageReady, "ready")}, expired, "installed", "proved itself", "nothing"},
		"installed of another":   {lane.Host{State: lane.StateInstalled, Run: run(lane.StageArmed, "cancelled")}, revoked, "installed", "proved itself", "nothing"},
		"new":                    {lane.Host{State: lane.StateNew}, revoked, "not-provisioned", said, "mean a bundle that may be installed"},
		"failed":                 {lane.Host{State: lane.StateFailed, Run: run(lane.StageKernel, "failed")}, revoked, "reported-failure", said, "mean a bundle that may be installed"},
		"retired":                {lane.Host{State: lane.StateRetired, Note: "sold"}, revoked, "retired", "sold", "host import"},
	} {
		t.Run(name, func(t *testing.T) {
			c.host.ID = "n1"
			v := diagnose.Host(c.host, c.b, []lane.Event{event(lane.KindArmed, nil), refusal}, at(10))
			if v.Rule != c.rule || !strings.Contains(v.Because, c.because) || !strings.Contains(v.Next, c.next) {
				t.Errorf("%+v", v)
			}
			if strings.Contains(v.Because, said) && !strings.Contains(c.because, said) {
				t.Errorf("of another bundle, or of no concern: %s", v.Because)
			}
		})
	}
}

// TestOtherArchitecture: a machine that is told to boot its disk has asked, and is told why.
func TestOtherArchitecture(t *testing.T) {
	h := lane.Host{ID: "n1", State: lane.StateProvisioning, Run: lane.Run{ID: "r-1", Open: true, Stage: lane.StageArmed, StageAt: at(1), Deadline: at(59)}}
	mismatch := event(lane.KindAsked, func(e *lane.Event) {
		e.Action, e.Reason, e.Message = "local-boot", lane.ArchMismatch, "the machine is arm64, its record says x86_64"
	})
	v := diagnose.Host(h, lane.BundleStatus{Bundle: lane.Bundle{Digest: "sha256:1"}}, []lane.Event{event(lane.KindArmed, nil), mismatch}, at(10))
	if v.Rule != "arch-mismatch" || !strings.Contains(v.Because, mismatch.Message) || !strings.Contains(v.Next, "correct `arch`") || v.Evidence == nil || v.Evidence.Reason != lane.ArchMismatch {
		t.Errorf("%+v", v)
	}
	granted := event(lane.KindAsked, func(e *lane.Event) { e.Action, e.Reason = "install", lane.Granted })
	if v := diagnose.Host(h, lane.BundleStatus{Bundle: lane.Bundle{Digest: "sha256:1"}}, []lane.Event{event(lane.KindArmed, nil), mismatch, granted}, at(10)); v.Rule == "arch-mismatch" {
		t.Errorf("mended since: %+v", v)
	}
}

// TestCluster: what is left to do in a cluster, and how a run stands still or ends there.
func TestCluster(t *testing.T) {
	host := func(state lane.State, stage lane.Stage, outcome string, j lane.Join) lane.Host {
		j.Run, j.Cluster, j.Node, j.Token = "r-1", "prod", "n1", "abcdef"
		return lane.Host{ID: "n1", State: state, Run: lane.Run{ID: "r-1", Open: outcome == "", Outcome: outcome, Cluster: "prod", Stage: stage, StageAt: at(1), Deadline: at(59)}, Join: &j}
	}
	told := func(kind lane.Kind, message string) lane.Event {
		return event(kind, func(e *lane.Event) { e.Message = message })
	}
	for name, c := range map[string]struct {
		host                lane.Host
		events              []lane.Event
		rule, because, next string
	}{
		"waits":       {host(lane.StateProvisioning, lane.StageReady, "", lane.Join{Issued: at(1)}), []lane.Event{told(lane.KindStage, "ready"), told(lane.KindCluster, "not done yet: unreachable")}, "waiting-after-ready", "it is not in its cluster yet: not done yet: unreachable", "cluster check prod"},
		"failed":      {host(lane.StateFailed, lane.StageReady, "failed", lane.Join{Ended: at(2)}), []lane.Event{told(lane.KindFailed, "no kubeadm")}, "reported-failure", "no kubeadm", "cluster check prod"},
		"expired":     {host(lane.StateFailed, lane.StageReady, "expired", lane.Join{Ended: at(2)}), []lane.Event{told(lane.KindAlarm, "csr-1 is not approved"), told(lane.KindExpired, "late")}, "run-expired", "csr-1 is not approved", "cluster check prod"},
		"done":        {host(lane.StateInstalled, lane.StageJoined, "joined", lane.Join{Joined: at(2), Ended: at(2), Marked: at(2)}), []lane.Event{told(lane.KindInstalled, "in")}, "installed", "the node n1 of the cluster prod", "nothing"},
		"lives":       {host(lane.StateInstalled, lane.StageJoined, "joined", lane.Join{Joined: at(2), Expires: at(40)}), []lane.Event{told(lane.KindInstalled, "in")}, "credential-lives", "opens the cluster until 2026-05-04 03:40:00Z", "cluster check prod"},
		"no labels":   {host(lane.StateInstalled, lane.StageJoined, "joined", lane.Join{Joined: at(2), Ended: at(2)}), []lane.Event{told(lane.KindInstalled, "in")}, "node-not-labelled", "not labelled yet", "cluster check prod"},
		"an alarm":    {host(lane.StateInstalled, lane.StageJoined, "joined", lane.Join{Joined: at(2), Ended: at(2), Marked: at(2)}), []lane.Event{told(lane.KindInstalled, "in"), told(lane.KindAlarm, "it is another machine")}, "node-alarm", "but it is another machine", "look at the Node"},
		"just joined": {host(lane.StateInstalled, lane.StageJoined, "joined", lane.Join{Joined: at(10)}), []lane.Event{told(lane.KindInstalled, "in")}, "installed", "the node n1", "nothing"},
	} {
		v := diagnose.Host(c.host, lane.BundleStatus{Bundle: lane.Bundle{Digest: "sha256:1"}}, c.events, at(10))
		if v.Rule != c.rule || !strings.Contains(v.Because, c.because) || !strings.Contains(v.Next, c.next) || v.Evidence == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestEveryStageHasACheck: wherever a run stands still, somebody is told where to look.
func TestEveryStageHasACheck(t *testing.T) {
	seen := map[string]lane.Stage{}
	for _, s := range lane.Stages() {
		h := lane.Host{ID: "n1", State: lane.StateProvisioning, Run: lane.Run{ID: "r-1", Open: true, Stage: s, StageAt: at(1), Deadline: at(59)}}
		v := diagnose.Host(h, lane.BundleStatus{}, nil, at(2))
		if s == lane.StageJoined {
			continue // no run stays open there
		}
		if v.Next == "" || v.Next == "nothing" || v.Rule != "waiting-after-"+string(s) {
			t.Errorf("%s: %+v", s, v)
		}
		if other, ok := seen[v.Next]; ok {
			t.Errorf("%s and %s are told the same: %s", s, other, v.Next)
		}
		seen[v.Next] = s
	}
}

func TestUnknown(t *testing.T) {
	f := &lane.Facts{MAC: "52:54:00:00:00:01"}
	asked := event(lane.KindAsked, func(e *lane.Event) { e.Facts, e.Reason = f, lane.UnknownMachine })
	v := diagnose.Unknown("mac:52:54:00:00:00:01", []lane.Event{asked, event(lane.KindLease, nil)})
	if v.Rule != "unknown-machine" || v.Evidence == nil || v.Evidence.Facts != f || !strings.Contains(v.Next, "host import") {
		t.Errorf("%+v", v)
	}
	asked.Reason, asked.Message, asked.Mismatch = lane.IdentityAmbiguous, "two records", []lane.Signal{{Name: "uuid"}}
	if v := diagnose.Unknown("mac:x", []lane.Event{asked}); v.Rule != "identity-ambiguous" || v.Because != "two records" || len(v.Mismatch) != 1 {
		t.Errorf("%+v", v)
	}
	if v := diagnose.Unknown("mac:x", nil); v.Rule != "unknown-machine" || v.Evidence != nil {
		t.Errorf("%+v", v)
	}
}

// TestConformance has the cases that only the evidence shows.
func TestConformance(t *testing.T) {
	t.Run("LB-06 an installed machine boots by network again and again", func(t *testing.T) {
		ask := func(e *lane.Event) {
			e.Surface, e.Speaker, e.Name, e.Action = lane.SurfaceDHCP, lane.SpeakerROM, "DISCOVER", "local-boot"
		}
		events := []lane.Event{event(lane.KindInstalled, nil)}
		for range 6 {
			events = append(events, event(lane.KindAsked, ask))
		}
		h := lane.Host{ID: "n1", State: lane.StateInstalled}
		if v := diagnose.Host(h, lane.BundleStatus{}, events, at(10)); v.Rule != "boots-again" || !strings.Contains(v.Next, "BMC") {
			t.Errorf("%+v", v)
		}
		if v := diagnose.Host(h, lane.BundleStatus{}, events[:4], at(10)); v.Rule != "installed" {
			t.Errorf("one boot through several NICs: %+v", v)
		}
	})
	t.Run("HB-16 an offer that nobody came for", func(t *testing.T) {
		h := lane.Host{ID: "n1", State: lane.StateProvisioning, Run: lane.Run{ID: "r-1", Open: true, Stage: lane.StageAddress, StageAt: at(1), Deadline: at(59)}}
		asked := event(lane.KindAsked, func(e *lane.Event) { e.Facts = &lane.Facts{HTTPBoot: true} })
		if v := diagnose.Host(h, lane.BundleStatus{}, []lane.Event{event(lane.KindStage, nil), asked}, at(2)); !strings.Contains(v.Next, "HTTP Boot") || !strings.Contains(v.Next, "http://") {
			t.Errorf("%+v", v)
		}
		if v := diagnose.Host(h, lane.BundleStatus{}, []lane.Event{event(lane.KindStage, nil)}, at(2)); !strings.Contains(v.Next, "TFTP") {
			t.Errorf("%+v", v)
		}
	})
}

// given is a run whose machine was given its configuration of Talos.
func given(r lane.Run) lane.Run {
	r.Delivered = r.StageAt
	return r
}
