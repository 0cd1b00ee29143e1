// Package api is the operators' HTTP API: its wire types, its server and its
// client. Everything an operator does goes through it, the command line included.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"

	"bootlane/internal/lane"
	"bootlane/internal/strictyaml"
)

// Inventory is the inventory file: YAML with one list.
type Inventory struct {
	Hosts []HostSpec `yaml:"hosts" json:"hosts"`
}

// HostSpec is one machine of the inventory file.
type HostSpec struct {
	ID       string              `yaml:"id" json:"id"`
	Identity lane.Identity       `yaml:"identity" json:"identity"`
	Arch     string              `yaml:"arch,omitempty" json:"arch,omitempty"`
	Role     string              `yaml:"role,omitempty" json:"role,omitempty"`
	Hostname string              `yaml:"hostname,omitempty" json:"hostname,omitempty"`
	Bundle   string              `yaml:"bundle,omitempty" json:"bundle,omitempty"`
	Disk     lane.DiskSelector   `yaml:"disk,omitempty" json:"disk,omitzero"`
	Mirror   lane.DiskSelector   `yaml:"mirror,omitempty" json:"mirror,omitzero"`
	Wipe     []lane.DiskSelector `yaml:"wipe,omitempty" json:"wipe,omitempty"` // further disks that an install clears
	Network  NetworkSpec         `yaml:"network,omitempty" json:"network,omitzero"`
	Boot     lane.BootOptions    `yaml:"boot,omitempty" json:"boot,omitzero"`
	Install  lane.InstallOptions `yaml:"install,omitempty" json:"install,omitzero"` // over its role's and the site's
	Labels   map[string]string   `yaml:"labels,omitempty" json:"labels,omitempty"`
}

// NetworkSpec is how a machine is addressed.
type NetworkSpec struct {
	Address  string `yaml:"address,omitempty" json:"address,omitempty"` // reserved for it in DHCP
	Address6 string `yaml:"address6,omitempty" json:"address6,omitempty"`
	// Interfaces are those of the installed system; none: as its installer or image does by itself.
	Interfaces []lane.Interface `yaml:"interfaces,omitempty" json:"interfaces,omitempty"`
}

// Host returns the record that the spec describes. A problem names its field.
func (s HostSpec) Host() (lane.Host, []lane.Problem) {
	h := lane.Host{ID: lane.HostID(s.ID), Identity: s.Identity, Arch: lane.Arch(s.Arch), Role: s.Role, Hostname: s.Hostname, Bundle: s.Bundle, Disk: s.Disk, Mirror: s.Mirror, Wipe: s.Wipe, Boot: s.Boot, Install: s.Install, Labels: s.Labels}
	h.Network.Interfaces = s.Network.Interfaces
	var out []lane.Problem
	for _, a := range []struct {
		field, text, like string
		into              *netip.Addr
	}{{"address", s.Network.Address, "10.0.0.21", &h.Network.Address}, {"address6", s.Network.Address6, "fd00:20::21", &h.Network.Address6}} {
		if a.text == "" {
			continue
		}
		var err error
		if *a.into, err = netip.ParseAddr(a.text); err != nil {
			out = append(out, lane.Problem{Field: "network." + a.field, Message: fmt.Sprintf("%q is not an address like %s, without a prefix length", a.text, a.like)})
		}
	}
	return h.Canonical(), out
}

// ReadInventory parses an inventory file and checks every record by itself and
// against the others of the file. The error lists every problem with its line.
func ReadInventory(file string, data []byte) (Inventory, strictyaml.Document, error) {
	var inv Inventory
	doc, problems := strictyaml.Decode(file, data, &inv)
	var more []strictyaml.Problem
	hosts := make([]lane.Host, len(inv.Hosts))
	for i, s := range inv.Hosts {
		h, found := s.Host()
		hosts[i] = h
		for _, p := range append(found, h.Validate()...) {
			more = append(more, doc.Problem(fmt.Sprintf("hosts[%d].%s", i, p.Field), p.Message))
		}
	}
	for _, p := range lane.Rivals(hosts) {
		more = append(more, doc.Problem(p.Field, p.Message))
	}
	problems = doc.Join(problems, more...)
	if len(problems) == 0 && len(inv.Hosts) == 0 {
		problems = append(problems, doc.Problem("hosts", "the list `hosts` is missing or empty"))
	}
	return inv, doc, problemsError(fmt.Sprintf("the inventory %s has problems", file), problems)
}

func problemsError(message string, problems []strictyaml.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	e := &lane.Error{Code: lane.Invalid, Message: message}
	for _, p := range problems {
		e.Problems = append(e.Problems, p.String())
	}
	return e
}

// ImportRequest asks to add and change records.
type ImportRequest struct {
	Hosts []HostSpec `json:"hosts"`
	Check bool       `json:"check,omitempty"` // only say what is wrong
	By    string     `json:"by"`
}

// ImportReply is the answer. With problems, nothing was stored.
type ImportReply struct {
	lane.Imported
	Problems []lane.Problem `json:"problems,omitempty"`
}

// Refusal returns the problems as an error that names the lines of the inventory
// file, or nil when there is none.
func (r ImportReply) Refusal(file string, doc strictyaml.Document) error {
	var problems []strictyaml.Problem
	for _, p := range r.Problems {
		problems = append(problems, doc.Problem(p.Field, p.Message))
	}
	return problemsError(fmt.Sprintf("the inventory %s is refused, nothing was changed", file), problems)
}

// ActRequest goes with every verb on one host.
type ActRequest struct {
	By   string           `json:"by"`
	Why  string           `json:"why,omitempty"`
	What lane.Replacement `json:"what,omitempty"` // accept: board or nic
	Rev  int64            `json:"rev,omitempty"`  // accept: the record's revision when its dispute was looked at
	For  time.Duration    `json:"for,omitempty"`  // inspect: nanoseconds that the wish stands
}

// ProvisionRequest asks for a grant.
type ProvisionRequest struct {
	lane.Provisioning
	By string `json:"by"`
}

// ErrorReply is the body of every error.
type ErrorReply struct {
	Code     lane.Code `json:"code"`
	Message  string    `json:"message"`
	Problems []string  `json:"problems,omitempty"`
}

// Version says what serves.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// Operator is what the API is a door to. Every method's error has a lane code,
// or is internal.
type Operator interface {
	inventory
	runs
	evidence
	bundles
	leases
	clusters
	discoveries
}

type discoveries interface {
	Discovered(ctx context.Context) ([]lane.Discovered, error)
	DiscoveredAs(ctx context.Context, name string) (lane.Discovered, error)
	Adopt(ctx context.Context, name string, a lane.Adoption, by string) (lane.Adopted, error)
	Inspect(ctx context.Context, id lane.HostID, within time.Duration, by, why string) (lane.Host, error)
}

type leases interface {
	Leases(ctx context.Context, after string, limit int) ([]lane.LeaseOf, error)
	Released(ctx context.Context, l lane.Lease, by, why string) error
	ExportDHCP(ctx context.Context, e lane.DHCPExport) (lane.Rendered, error)
}

type inventory interface {
	Host(ctx context.Context, id lane.HostID) (lane.Host, error)
	Hosts(ctx context.Context, after lane.HostID, limit int) ([]lane.Host, error)
	Import(ctx context.Context, specs []lane.Host, by string, check bool) (lane.Imported, []lane.Problem, error)
}

type runs interface {
	Provision(ctx context.Context, id lane.HostID, p lane.Provisioning) (lane.Host, error)
	Preflight(ctx context.Context, q lane.Inspection) (lane.Preflown, error)
	Cancel(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error)
	Confirm(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error)
	Quarantine(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error)
	Release(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error)
	Retire(ctx context.Context, id lane.HostID, by, why string) (lane.Host, error)
	Accept(ctx context.Context, id lane.HostID, what lane.Replacement, rev int64, by, why string) (lane.Host, error)
}

type evidence interface {
	Events(ctx context.Context, subject string, after int64, limit int) ([]lane.Event, error)
	Unknown(ctx context.Context) ([]lane.Stranger, error)
	Why(ctx context.Context, subject string) (lane.Verdict, error)
	Chain(ctx context.Context, id lane.HostID) (lane.BootChain, error)
	WhatIf(ctx context.Context, id lane.HostID) ([]lane.Foresight, error)
	WhatIfAll(ctx context.Context) (lane.Census, error)
	Render(ctx context.Context, id lane.HostID) ([]lane.Rendered, error)
	Explain(ctx context.Context, id lane.HostID) ([]lane.Origin, error)
	FirstBoot(ctx context.Context, id lane.HostID) (lane.FirstBoot, error)
}

// DHCP is what the API needs of the DHCP server. Release: NotFound when nobody has the address.
type DHCP interface {
	State() lane.DHCPState
	Release(ctx context.Context, a netip.Addr) (lane.Lease, error)
}

// Observer is what is heard on the boot networks.
type Observer interface {
	Responders() []lane.Responder
	Probe(ctx context.Context, iface string) (lane.Probed, error)
	Export(w io.Writer, iface string, macs []lane.MAC) error
}

// ProbeRequest asks who answers DHCP on an interface, or on all.
type ProbeRequest struct {
	Interface string `json:"interface,omitempty"`
}

// Recording is what was recorded of a machine, or of a network.
type Recording struct {
	PCAPNG []byte `json:"pcapng"`
}

// public returns the record as operators see it: without the capability of its run, and of
// a password's hash only the kind.
func public(h lane.Host) lane.Host {
	h.Run.Capability, h.Install = "", h.Install.Masked()
	return h
}

func decode[T any](body []byte) (T, error) {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return v, &lane.Error{Code: lane.Invalid, Message: "the request body is not the JSON that this call takes", Err: err}
	}
	return v, nil
}
