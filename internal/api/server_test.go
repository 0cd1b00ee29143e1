package api_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bootlane/internal/api"
	"bootlane/internal/lane"
)

// inventory answers imports only, and keeps what it was asked.
type inventory struct {
	api.Operator
	out      lane.Imported
	problems []lane.Problem
	err      error
	specs    []lane.Host
	by       string
	check    bool
}

func (i *inventory) Import(_ context.Context, specs []lane.Host, by string, check bool) (lane.Imported, []lane.Problem, error) {
	i.specs, i.by, i.check = specs, by, check
	return i.out, i.problems, i.err
}

// serving returns a client of a server that asks op.
func serving(t *testing.T, op api.Operator) *api.Client {
	t.Helper()
	token := strings.Repeat("t", 32)
	s, err := api.New(t.Context(), api.Config{Addr: "127.0.0.1:0", Token: token, Operator: op, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return api.NewClient("http://"+s.Addr(), token, "ann")
}

// TestImport: whoever speaks to the API without our command line may send what it would
// have refused. One bad field keeps the whole of it from being stored, and its problem is
// told together with those that only the records show, and in front of them.
func TestImport(t *testing.T) {
	good := api.HostSpec{ID: "n1", Identity: lane.Identity{MACs: []lane.MAC{"52:54:00:00:00:01"}}}
	bad := good
	bad.ID, bad.Network = "n2", api.NetworkSpec{Address: "10.0.0.0/24", Address6: "router"}
	claimed := lane.Problem{Field: "hosts[0].identity.macs", Message: "is also claimed by n0"}
	wrong := []lane.Problem{{Field: "hosts[1].network.address", Message: `"10.0.0.0/24" is not an address like 10.0.0.21, without a prefix length`},
		{Field: "hosts[1].network.address6", Message: `"router" is not an address like fd00:20::21, without a prefix length`}}
	added := lane.Imported{Added: []lane.HostID{"n1"}, Notes: []string{"a note"}}
	for _, c := range []struct {
		name     string
		specs    []api.HostSpec
		check    bool // asked for
		problems []lane.Problem
		checks   bool // what the inventory is asked
		want     []lane.Problem
	}{
		{"good", []api.HostSpec{good}, false, nil, false, nil},
		{"a check", []api.HostSpec{good}, true, nil, true, nil},
		{"a bad field", []api.HostSpec{good, bad}, false, nil, true, wrong},
		{"and a claim", []api.HostSpec{good, bad}, false, []lane.Problem{claimed}, true, append(wrong[:2:2], claimed)},
		{"only a claim", []api.HostSpec{good}, false, []lane.Problem{claimed}, false, []lane.Problem{claimed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			op := &inventory{out: added, problems: c.problems}
			got, err := serving(t, op).Import(t.Context(), c.specs, c.check)
			if err != nil {
				t.Fatal(err)
			}
			if op.check != c.checks || op.by != "op:ann" || len(op.specs) != len(c.specs) {
				t.Errorf("the inventory is asked about %d records, only to check them: %t, by %q", len(op.specs), op.check, op.by)
			}
			if diff := cmp.Diff(api.ImportReply{Imported: added, Problems: c.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestImportInPart: that a part was stored is all that the client is told, with why.
func TestImportInPart(t *testing.T) {
	full := lane.Errorf(lane.Unavailable, "disk full")
	op := &inventory{out: lane.Imported{Added: []lane.HostID{"n1"}}, err: &lane.Error{Code: lane.Unavailable, Message: "1 of 2 records were stored before this", Err: full}}
	got, err := serving(t, op).Import(t.Context(), nil, false)
	if lane.CodeOf(err) != lane.Unavailable || err.Error() != "1 of 2 records were stored before this: disk full" || len(got.Added) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestImportByNobody: every change has somebody who made it.
func TestImportByNobody(t *testing.T) {
	op := &inventory{}
	c := serving(t, op)
	c.By = "\n"
	if _, err := c.Import(t.Context(), nil, false); lane.CodeOf(err) != lane.Invalid || !strings.Contains(err.Error(), "`by` is missing") || op.by != "" {
		t.Errorf("%v, asked by %q", err, op.by)
	}
}
