// Package storetest is the suite that every engine under package store must
// pass. It is the specification of the seam.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bootlane/internal/lane"
	"bootlane/internal/store"
)

// Open opens the engine under test. Called twice with the same name within one
// test it opens the same database again.
type Open func(t *testing.T, name string) store.Engine

// Start returns a running store on an engine, and what stops and closes it: once, and at
// the end of the test at the latest.
func Start(t testing.TB, e store.Engine, now func() time.Time) (*store.Store, func()) {
	t.Helper()
	s, err := store.New(t.Context(), e, now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"round trip":             roundTrip,
		"zero values":            zeroValues,
		"conflict":               conflict,
		"order of ids":           order,
		"claims":                 claims,
		"capability":             capability,
		"deadlines":              deadlines,
		"events without gaps":    eventsWithoutGaps,
		"coalescing":             coalescing,
		"record and witness":     recordAndWitness,
		"leases":                 leases,
		"many leases":            manyLeases,
		"leases of IPv6":         leases6,
		"reopen":                 reopen,
		"newer schema":           newerSchema,
		"changed schema":         changedSchema,
		"cancelled context":      cancelledContext,
		"one bad write":          oneBadWrite,
		"unknown machines bound": unknownBound,
		"one machine's bound":    machineBound,
		"strangers' bound":       strangersBound,
		"bound and rollback":     boundAndRollback,
		"unwritten evidence":     unwrittenEvidence,
		"lasting events":         lasting,
		"bundles":                bundles,
		"aliases":                aliases,
		"discovered":             discovered,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func at() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC) }

// running starts a store and stops it when the test ends, or when stop is called.
func running(t *testing.T, open Open, name string) (s *store.Store, stop func()) {
	t.Helper()
	s, err := store.New(t.Context(), open(t, name), at)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, s.Close()); err != nil {
				t.Errorf("stop the store: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

func event(subject, message string) lane.Event {
	return lane.Event{Subject: subject, At: at(), Kind: lane.KindUpdated, By: "test", Message: message}
}

// unwritable is an event that fails every transaction: JSON has no such year. A Conflict
// does not.
func unwritable() lane.Event {
	e := event("h", "never")
	e.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	return e
}

func put(t *testing.T, s *store.Store, h lane.Host) lane.Host {
	t.Helper()
	h, _, err := s.Append(t.Context(), h, event(string(h.ID), "put"))
	if err != nil {
		t.Fatalf("append %s: %v", h.ID, err)
	}
	return h
}

func full(id string) lane.Host {
	f := lane.Facts{MAC: "52:54:00:00:00:01", UUID: "00112233-4455-6677-8899-aabbccddeeff", Speaker: lane.SpeakerLoader}
	return lane.Host{ID: lane.HostID(id), State: lane.StateProvisioning, Arch: lane.X86_64, Role: "worker", Hostname: id, Bundle: "b-1",
		Identity: lane.Identity{UUID: "00112233-4455-6677-8899-aabbccddeeff", MACs: []lane.MAC{"52:54:00:00:00:01", "52:54:00:00:00:02"}, Serial: "S/1 \"x\"", AssetTag: "A'1"},
		Disk:     lane.DiskSelector{WWN: "0x5002538e00000001", SizeGB: 960}, Network: lane.Network{Address: netip.MustParseAddr("10.0.0.9")},
		Install: lane.InstallOptions{Timezone: new("Europe/Berlin"), NTP: []string{}, Packages: []string{"htop"}}, // no time servers is not the same as nothing said
		Labels:  map[string]string{"ünï": "cödé"}, Note: "note", Dispute: []lane.Signal{{Name: "uuid", Expected: "a", Seen: "b", Host: "h"}}, Seen: &f, Resume: lane.StateNew, Changed: at(),
		Run: lane.Run{ID: "r-1", Open: true, By: "op:x", Bundle: "sha256:00", BundleName: "b-1", Armed: at(), Deadline: at().Add(time.Hour), Boots: 2, BootsUsed: 1,
			LastBoot: at(), Stage: lane.StageKernel, StageAt: at(), Reports: map[lane.Stage]int{lane.StageKernel: 3}, Capability: strings.Repeat("c", 32), From: lane.StateNew}}
}

func roundTrip(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	want := put(t, s, full("h1"))
	if want.Rev != 1 {
		t.Errorf("first revision is %d, want 1", want.Rev)
	}
	got, err := s.Host(t.Context(), "h1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("the record changed on its way (-want +got):\n%s", diff)
	}
	if _, err := s.Host(t.Context(), "h2"); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a missing record gives %v, want not-found", err)
	}
}

func zeroValues(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	h := put(t, s, lane.Host{ID: "z"})
	got, err := s.Host(t.Context(), "z")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func conflict(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	h := put(t, s, full("h"))
	stale := h
	h.Note = "first"
	h = put(t, s, h)
	stale.Note = "second"
	if _, _, err := s.Append(t.Context(), stale, event("h", "stale")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("a stale revision gives %v, want conflict", err)
	}
	if _, _, err := s.Append(t.Context(), lane.Host{ID: "h"}, event("h", "again")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("a second creation gives %v, want conflict", err)
	}
	got, err := s.Host(t.Context(), "h")
	if err != nil || got.Note != "first" || got.Rev != h.Rev {
		t.Errorf("record is %q at %d after the conflicts, want \"first\" at %d; %v", got.Note, got.Rev, h.Rev, err)
	}
	events, err := s.Events(t.Context(), "h", 0, 100)
	if err != nil || len(events) != 2 {
		t.Errorf("%d events, want 2: a refused write leaves none; %v", len(events), err)
	}
}

func order(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	ids := []string{"a", "a-1", "a0", "a1", "aa", "b", "z9"}
	for i := range ids {
		put(t, s, lane.Host{ID: lane.HostID(ids[(i*3+1)%len(ids)])})
	}
	var got []string
	after := lane.HostID("")
	for {
		page, err := s.Hosts(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, h := range page {
			got = append(got, string(h.ID))
			after = h.ID
		}
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("hosts are not in byte order (-want +got):\n%s", diff)
	}
}

func claims(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	h := put(t, s, full("h1"))
	other := put(t, s, lane.Host{ID: "h2", Hostname: "h2", Identity: lane.Identity{Serial: "S2"}})
	find := func(want []string, keys ...string) {
		t.Helper()
		hosts, err := s.Claimants(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range hosts {
			got = append(got, string(h.ID))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("claimants of %v (-want +got):\n%s", keys, diff)
		}
	}
	find(nil)
	find(nil, "mac:52:54:00:00:00:99")
	find([]string{"h1"}, "mac:52:54:00:00:00:02", "uuid:00112233-4455-6677-8899-aabbccddeeff")
	find([]string{"h1"}, "uuid:33221100-5544-7766-8899-aabbccddeeff")
	find([]string{"h1"}, "address:10.0.0.9")
	find([]string{"h1", "h2"}, "serial:S2", "hostname:h1")
	h.Identity.MACs = h.Identity.MACs[:1]
	put(t, s, h)
	find(nil, "mac:52:54:00:00:00:02")
	other.Identity.MACs = []lane.MAC{"52:54:00:00:00:02"}
	put(t, s, other)
	find([]string{"h2"}, "mac:52:54:00:00:00:02")
	third := put(t, s, lane.Host{ID: "h0", Hostname: "h0", Identity: lane.Identity{Serial: "S2"}})
	find([]string{"h0", "h2"}, "serial:S2")
	other, err := s.Host(t.Context(), "h2")
	if err != nil {
		t.Fatal(err)
	}
	other.Identity.Serial = ""
	put(t, s, other) // the first to claim it gives it up
	find([]string{"h0"}, "serial:S2")
	third.Identity.Serial = ""
	put(t, s, third)
	find(nil, "serial:S2")
	if _, _, err := s.Append(t.Context(), lane.Host{ID: "h0", Identity: lane.Identity{Serial: "S9"}}, event("h0", "stale")); lane.CodeOf(err) != lane.Conflict {
		t.Errorf("a second first record of h0 gives %v", err)
	}
	find(nil, "serial:S9")
}

func capability(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	put(t, s, lane.Host{ID: "none"})
	h := put(t, s, full("h"))
	if got, err := s.ByCapability(t.Context(), h.Run.Capability); err != nil || got.ID != "h" {
		t.Errorf("capability leads to %q, %v", got.ID, err)
	}
	old := h.Run.Capability
	h.Run.Capability = strings.Repeat("d", 32)
	put(t, s, h)
	for _, c := range []string{old, "", "x"} {
		if _, err := s.ByCapability(t.Context(), c); lane.CodeOf(err) != lane.NotFound {
			t.Errorf("capability %q gives %v, want not-found", c, err)
		}
	}
}

func deadlines(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	h := put(t, s, full("h"))
	count := func(when time.Time) int {
		hosts, err := s.Due(t.Context(), when)
		if err != nil {
			t.Fatal(err)
		}
		return len(hosts)
	}
	if n := count(h.Run.Deadline.Add(-time.Microsecond)); n != 0 {
		t.Errorf("%d due before the deadline", n)
	}
	if n := count(h.Run.Deadline); n != 1 {
		t.Errorf("%d due at the deadline, want 1", n)
	}
	h.Run.Open = false
	put(t, s, h)
	if n := count(h.Run.Deadline.Add(time.Hour)); n != 0 {
		t.Errorf("%d due although the run is closed", n)
	}
}

func eventsWithoutGaps(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := s.Witness(t.Context(), event("shared", fmt.Sprintf("%d/%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	events, err := s.Events(t.Context(), "shared", 0, 10000)
	if err != nil || len(events) != writers*each {
		t.Fatalf("%d events, want %d; %v", len(events), writers*each, err)
	}
	if bad, ok := lane.VerifyChain(events); !ok {
		t.Errorf("the chain breaks at %d", bad.Seq)
	}
	lastOnes, err := s.LastEvents(t.Context(), "shared", 5)
	if err != nil || len(lastOnes) != 5 || lastOnes[4].Seq != writers*each || lastOnes[0].Seq != writers*each-4 {
		t.Errorf("last five are %v, %v", lastOnes, err)
	}
	rest, err := s.Events(t.Context(), "shared", writers*each-3, 10)
	if err != nil || len(rest) != 3 {
		t.Errorf("%d events after all but three; %v", len(rest), err)
	}
}

func coalescing(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	ask := lane.Event{Subject: "h", At: at(), Kind: lane.KindAsked, By: "dhcp", Surface: lane.SurfaceDHCP, Reason: lane.HostNew, Action: "local-boot"}
	for i := range 10 {
		ask.At = at().Add(time.Duration(i) * time.Second)
		s.Record(ask)
		if i%3 == 0 {
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := ask
	other.Reason = lane.HostFailed
	s.Record(other)
	late := ask
	late.At = at().Add(2 * time.Minute)
	s.Record(late)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(t.Context(), "h", 0, 100)
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, want 3: ten repetitions, another answer, a late one; %v", len(events), err)
	}
	if e := events[0]; e.Count != 10 || !e.LastAt.Equal(at().Add(9*time.Second)) {
		t.Errorf("count %d until %s, want 10 until +9s", e.Count, e.LastAt)
	}
	if _, ok := lane.VerifyChain(events); !ok {
		t.Error("counting broke the chain")
	}
}

func recordAndWitness(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	s.Record(event("h", "queued"))
	if err := s.Witness(t.Context(), event("h", "witnessed")); err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(t.Context(), "h", 0, 10)
	if err != nil || len(events) != 2 || events[0].Message != "queued" {
		t.Errorf("events are %v, want the queued one first; %v", events, err)
	}
}

func leases(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	lease := func(mac lane.MAC, address string, state lane.LeaseState) lane.Lease {
		return lane.Lease{MAC: mac, Address: netip.MustParseAddr(address), State: state, Granted: at(), Expires: at().Add(time.Hour)}
	}
	first := lease("52:54:00:00:00:01", "10.0.0.10", lane.LeaseActive)
	second := lease("52:54:00:00:00:02", "10.0.0.10", lane.LeaseActive)
	third := lease("52:54:00:00:00:02", "10.0.0.11", lane.LeaseReleased)
	declined := lease("52:54:00:00:00:02", "10.0.0.9", lane.LeaseDeclined)
	elsewhere := lease("52:54:00:00:00:02", "172.16.0.9", lane.LeaseActive) // of another network
	elsewhere.Granted = at().Add(-time.Minute)
	for _, l := range []lane.Lease{elsewhere, first, second, declined} {
		if err := s.PutLease(t.Context(), l, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, instead := range []lane.Lease{second, declined} {
		if err := s.PutLease(t.Context(), third, instead.Address); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]lane.Lease{elsewhere, third, declined}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("an address has one holder, a client what it did not give up for another, and what it declined, by when it was granted (-want +got):\n%s", diff)
	}
	six := lane.Lease6{Client: "duid:0001", Address: netip.MustParseAddr("fd77::5"), State: lane.LeaseActive, Granted: at(), Expires: at().Add(time.Hour)}
	if err := s.PutLease6(t.Context(), six); err != nil {
		t.Fatal(err)
	}
	with6 := lane.LeaseOf{Lease: lease("", "fd77::5", lane.LeaseActive), Client: six.Client}
	for after, want := range map[string][]lane.LeaseOf{"": {{Lease: third}}, "10.0.0.11": {{Lease: declined}}, "10.0.0.9": {{Lease: elsewhere}}, "172.16.0.9": {with6}, "fd77::5": nil} {
		if got, err := s.LeasesAfter(t.Context(), after, 1); err != nil || cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})) != "" {
			t.Errorf("after %q: %v, %v", after, got, err)
		}
	}
	for address, want := range map[string]lane.LeaseOf{"10.0.0.10": {}, elsewhere.Address.String(): {Lease: elsewhere}, "fd77::5": with6} {
		got, err := s.LeaseAt(t.Context(), netip.MustParseAddr(address))
		if unknown := want.MAC == "" && want.Client == ""; unknown != (lane.CodeOf(err) == lane.NotFound) || cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})) != "" {
			t.Errorf("the lease of %s: %v, %v", address, got, err)
		}
	}
	if err := s.DropLease(t.Context(), declined.Address); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LeaseAt(t.Context(), declined.Address); lane.CodeOf(err) != lane.NotFound {
		t.Errorf("a lease that was dropped: %v, %v", got, err)
	}
	if got, err = s.Leases(t.Context()); err != nil || len(got) != 2 || got[1].Address != third.Address {
		t.Errorf("after one was dropped: %v, %v", got, err)
	}
}

// manyLeases grants many at once, some to the same client or of the same address: what was
// granted last counts, and who was told so finds it stored.
func manyLeases(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	const clients = 203
	mac := func(i int) lane.MAC { return lane.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255)) }
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			var instead netip.Addr
			for _, a := range []netip.Addr{address(i), address(1000 + i), address(2000 + i)} {
				l := lane.Lease{MAC: mac(i), Address: a, State: lane.LeaseActive, Granted: at(), Expires: at().Add(time.Hour)}
				if i == 7 && a == address(7) {
					l.State = lane.LeaseDeclined
				}
				if err := s.PutLease(t.Context(), l, instead); err != nil {
					t.Errorf("%s: %v", a, err)
				}
				instead = a
			}
		})
	}
	wg.Wait()
	taken := lane.Lease{MAC: mac(5000), Address: address(9000), State: lane.LeaseActive, Granted: at(), Expires: at().Add(time.Hour)}
	for _, m := range []lane.MAC{mac(6000), taken.MAC} {
		l := taken
		l.MAC = m
		if err := s.PutLease(t.Context(), l, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Leases(t.Context())
	if err != nil || len(got) != clients+2 {
		t.Fatalf("%d leases, want one a client, one that is set aside and the last; %v", len(got), err)
	}
	for _, l := range got {
		switch {
		case l.State == lane.LeaseDeclined && l.Address == address(7), l.MAC == taken.MAC && l.Address == taken.Address:
		case l.Address.Less(address(2000)) || l.Address == taken.Address:
			t.Errorf("%s still has %s", l.MAC, l.Address)
		}
	}
}

func leases6(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	lease := func(client lane.Client, address string, state lane.LeaseState, minute int) lane.Lease6 {
		granted := at().Add(time.Duration(minute) * time.Minute)
		return lane.Lease6{Client: client, Address: netip.MustParseAddr(address), State: state, Granted: granted, Expires: granted.Add(time.Hour)}
	}
	const nic, unnamed = lane.Client("52:54:00:00:00:01"), lane.Client("duid:00020000ab11")
	one, two := lease(nic, "fd77::100", lane.LeaseActive, 0), lease(nic, "fd77::101", lane.LeaseActive, 0)
	gone := lease(nic, "fd77::102", lane.LeaseActive, 0)
	taken, declined, dropped := lease(unnamed, "fd77::102", lane.LeaseReleased, 2), lease(unnamed, "fd77::99", lane.LeaseDeclined, 1), lease(unnamed, "fd77::98", lane.LeaseDeclined, 1)
	for _, group := range [][]lane.Lease6{{one, two, gone}, {taken}, {declined, dropped}} {
		if err := s.PutLease6(t.Context(), group...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DropLease6(t.Context(), dropped.Address); err != nil {
		t.Fatal(err)
	}
	got, err := s.Leases6(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]lane.Lease6{one, two, declined, taken}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("an address has one holder, a client any number of addresses (-want +got):\n%s", diff)
	}
}

func reopen(t *testing.T, open Open) {
	s, stop := running(t, open, "same")
	put(t, s, full("h"))
	s.Record(event("mac:52:54:00:00:00:09", "seen"))
	stop()
	s, _ = running(t, open, "same")
	if _, err := s.Host(t.Context(), "h"); err != nil {
		t.Errorf("the record is gone: %v", err)
	}
	subjects, err := s.Strangers(t.Context())
	if err != nil || len(subjects) != 1 {
		t.Errorf("queued evidence is gone after an orderly stop: %v, %v", subjects, err)
	}
	events, err := s.Events(t.Context(), "h", 0, 10)
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if err := s.Witness(t.Context(), event("h", "next")); err != nil {
		t.Fatal(err)
	}
	events, err = s.Events(t.Context(), "h", 0, 10)
	if _, ok := lane.VerifyChain(events); err != nil || !ok || len(events) != 2 {
		t.Errorf("the chain does not go on: %v", err)
	}
}

func newerSchema(t *testing.T, open Open) {
	_, stop := running(t, open, "newer")
	stop()
	e := open(t, "newer")
	if _, err := e.Write.ExecContext(t.Context(), `INSERT INTO schema_version (version, checksum, applied) VALUES (9999, 'x', 0)`); err != nil {
		t.Fatal(err)
	}
	_, err := store.New(t.Context(), e, at)
	if lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer database gives %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func changedSchema(t *testing.T, open Open) {
	_, stop := running(t, open, "changed")
	stop()
	e := open(t, "changed")
	if _, err := e.Write.ExecContext(t.Context(), `UPDATE schema_version SET checksum = 'other' WHERE version = 1`); err != nil {
		t.Fatal(err)
	}
	if _, err := store.New(t.Context(), e, at); lane.CodeOf(err) != lane.Invalid {
		t.Errorf("a foreign schema gives %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func cancelledContext(t *testing.T, open Open) {
	s, stop := running(t, open, "db")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Host(ctx, "h"); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("a cancelled read gives %v, want unavailable", err)
	}
	stop()
	if err := s.Witness(t.Context(), event("h", "late")); lane.CodeOf(err) != lane.Unavailable {
		t.Errorf("a write to a stopped store gives %v, want unavailable", err)
	}
}

// oneBadWrite: writes that meet in one group must not suffer from each other.
func oneBadWrite(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	h := put(t, s, full("h"))
	stale := h
	stale.Rev = 77
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for i := range 90 {
		wg.Go(func() {
			var err error
			switch i % 3 {
			case 0:
				_, _, err = s.Append(t.Context(), stale, event("h", "stale"))
			case 1:
				err = s.Witness(t.Context(), unwritable())
			default:
				err = s.Witness(t.Context(), event("other", fmt.Sprint(i)))
			}
			mu.Lock()
			defer mu.Unlock()
			got[fmt.Sprint(i%3, " ", err != nil, " ", lane.CodeOf(err))]++
		})
	}
	wg.Wait()
	if diff := cmp.Diff(map[string]int{"0 true conflict": 30, "1 true ": 30, "2 false ": 30}, got); diff != "" {
		t.Errorf("conflicts, broken and good writes (-want +got):\n%s", diff)
	}
	events, err := s.Events(t.Context(), "other", 0, 100)
	if _, ok := lane.VerifyChain(events); err != nil || !ok || len(events) != 30 {
		t.Errorf("%d events beside the others, want 30 in an unbroken chain; %v", len(events), err)
	}
}

// unknownBound: a segment that invents addresses cannot fill the disk, and what
// is shed is counted.
func unknownBound(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	for i := range 10100 {
		s.Record(event(fmt.Sprintf("mac:52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255), "flood"))
	}
	for range 2 { // the first flush writes the flood, the second what it shed
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	subjects, err := s.Strangers(t.Context())
	if err != nil || len(subjects) != 10000 {
		t.Errorf("%d unknown machines are kept, want 10000; %v", len(subjects), err)
	}
	gaps, err := s.Events(t.Context(), "server", 0, 10)
	if err != nil || len(gaps) != 1 || gaps[0].Kind != lane.KindGap || gaps[0].Count != 100 {
		t.Errorf("the gap is %v, want one event that counts 100; %v", gaps, err)
	}
}

// machineBound floods the store in one machine's name: an hour's budget is kept,
// the rest is counted, and what changes the record is kept all the same.
func machineBound(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	const flood, budget = 1500, 1000
	for i := range flood {
		e := event("loud", "asked")
		e.Kind, e.Name = lane.KindAsked, fmt.Sprint(i)
		s.Record(e)
	}
	calm := event("calm", "asked")
	calm.Kind = lane.KindAsked
	s.Record(calm)
	put(t, s, lane.Host{ID: "loud", Hostname: "loud"})
	events, err := s.Events(t.Context(), "loud", 0, 2*flood)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := lane.VerifyChain(events); !ok || len(events) != budget+2 {
		t.Fatalf("%d events, want %d, one that counts the rest, and the change; chain unbroken: %t", len(events), budget, ok)
	}
	if gap := events[budget]; gap.Kind != lane.KindGap || gap.Count != flood-budget {
		t.Errorf("the shed lines are told by %s with count %d, want %s with %d", gap.Kind, gap.Count, lane.KindGap, flood-budget)
	}
	if events, err := s.Events(t.Context(), "calm", 0, 10); err != nil || len(events) != 1 {
		t.Errorf("another machine has %d lines, want its one: %v", len(events), err)
	}
}

// strangersBound floods the store in the names of machines that nobody knows:
// together they have one budget, and one line counts the rest.
func strangersBound(t *testing.T, open Open) {
	s, stop := running(t, open, "db")
	const machines, each, budget = 30, 700, 20000
	for m := range machines {
		for i := range each {
			e := event(fmt.Sprintf("mac:52:54:00:00:00:%02x", m), "asked")
			e.Kind, e.Name = lane.KindAsked, fmt.Sprint(i)
			s.Record(e)
		}
	}
	stop() // what the last commit sheds is told as well
	s, _ = running(t, open, "db")
	kept := 0
	for m := range machines {
		events, err := s.Events(t.Context(), fmt.Sprintf("mac:52:54:00:00:00:%02x", m), 0, each+1)
		if err != nil {
			t.Fatal(err)
		}
		kept += len(events)
	}
	gaps, err := s.Events(t.Context(), "server", 0, 10)
	if err != nil || kept != budget || len(gaps) != 1 || gaps[0].Count != machines*each-budget {
		t.Errorf("%d lines are kept, want %d; the gap is %+v, %v", kept, budget, gaps, err)
	}
}

// boundAndRollback: evidence that shares its commit with a write that fails is
// written once, and charged once.
func boundAndRollback(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	const rounds, each = 18, 50
	for r := range rounds {
		for i := range each {
			e := event("loud", "asked")
			e.Kind, e.Name = lane.KindAsked, fmt.Sprint(r, i)
			s.Record(e)
		}
		if err := s.Witness(t.Context(), unwritable()); err == nil {
			t.Fatal("a write that fails is confirmed")
		}
	}
	events, err := s.Events(t.Context(), "loud", 0, 2*rounds*each)
	if err != nil || len(events) != rounds*each || events[len(events)-1].Kind == lane.KindGap {
		t.Errorf("%d of %d lines are kept; %v", len(events), rounds*each, err)
	}
}

// unwrittenEvidence: where the database takes no evidence, that is told as soon as it
// does again: how much, and once, though the first try to tell it failed as well.
func unwrittenEvidence(t *testing.T, open Open) {
	e := open(t, "db")
	s, _ := Start(t, e, at)
	do := func(text string) {
		t.Helper()
		if _, err := e.Write.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	do(`ALTER TABLE events RENAME TO elsewhere`)
	asked := lane.Event{Subject: "h", At: at(), Kind: lane.KindAsked, By: "dhcp"}
	for range 5 {
		s.Record(asked) // one line that stands for all
	}
	s.Record(event("i", "lost"))
	for range 3 {
		if err := s.Flush(t.Context()); err != nil {
			t.Errorf("what needs no evidence fails with it: %v", err)
		}
	}
	do(`ALTER TABLE elsewhere RENAME TO events`)
	s.Record(asked)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	gaps, err := s.Events(t.Context(), "server", 0, 10)
	if err != nil || len(gaps) != 1 || gaps[0].Kind != lane.KindGap || gaps[0].Count != 6 {
		t.Errorf("the gap is %v, want one event that counts 6; %v", gaps, err)
	}
	if events, err := s.Events(t.Context(), "h", 0, 10); err != nil || len(events) != 1 || events[0].Count != 1 {
		t.Errorf("after it there is %v, want what was said since; %v", events, err)
	}
}

// lasting finds what changed a record below any heap of questions.
func lasting(t *testing.T, open Open) {
	s, _ := running(t, open, "db")
	put(t, s, lane.Host{ID: "h", Hostname: "h"})
	for i := range 20 {
		for _, k := range []lane.Kind{lane.KindAsked, lane.KindServed, lane.KindRefused, lane.KindLease, lane.KindProgress} {
			e := event("h", "talk")
			e.Kind, e.Name = k, fmt.Sprint(i)
			s.Record(e)
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	events, err := s.LastingEvents(t.Context(), "h", 10)
	if err != nil || len(events) != 1 || events[0].Message != "put" {
		t.Errorf("%v, %v", events, err)
	}
}
