package app

import (
	"context"
	"errors"
	"io"
	"net/netip"

	"bootlane/internal/control"
	"bootlane/internal/dhcp"
	"bootlane/internal/dhcp6"
	"bootlane/internal/httpboot"
	"bootlane/internal/lane"
	"bootlane/internal/tftp"
)

// boots lends control's boot files to HTTP.
type boots struct{ *control.Control }

func (b boots) Boot(ctx context.Context, p lane.BootPath, f lane.Facts) (httpboot.BootFile, error) {
	return b.Control.Boot(ctx, p, f)
}

// tftpSource lends the same files to TFTP: every read request is a question.
type tftpSource struct {
	*control.Control
	base func(local string) string
}

// sized is a boot file that knows its length, as TFTP's tsize needs it.
type sized struct {
	control.BootFile
	size int64
}

func (s sized) Size() int64 { return s.size }

// Open answers one read request. What a refusal says reaches the machine's screen.
func (t tftpSource) Open(ctx context.Context, r tftp.Request) (tftp.Content, error) {
	facts := lane.Facts{Surface: lane.SurfaceTFTP, From: r.Client.Addr().String(), Server: t.base(r.Local.String())}
	var f control.BootFile
	var err error
	if p, ok := lane.ParseRunPath(r.Name); ok && p.Asset == lane.AssetFile {
		f, err = t.runFile(ctx, p, facts)
	} else if p, ok := lane.ParseInspectPath(r.Name); ok && p.Name != "" {
		f, err = t.inspectFile(ctx, p, facts)
	} else if p, ok := lane.ParseBootPath(r.Name); ok {
		f, err = t.Control.Boot(ctx, p, facts)
	} else {
		return nil, &tftp.Error{Code: tftp.CodeNotFound, Text: "no such file"}
	}
	if err != nil {
		return nil, tftpError(err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return sized{f, size}, nil
}

// runFile opens a file of a run's bundle, for U-Boot, which has no HTTP.
func (t tftpSource) runFile(ctx context.Context, p lane.RunPath, f lane.Facts) (control.BootFile, error) {
	f.Speaker = lane.SpeakerInstaller
	bf, err := t.Control.File(ctx, p, f)
	if err != nil {
		return nil, err
	}
	return t.Bundles.Open(bf)
}

// inspectFile opens a file of the agent that looks at machines.
func (t tftpSource) inspectFile(ctx context.Context, p lane.InspectPath, f lane.Facts) (control.BootFile, error) {
	f.Speaker = lane.SpeakerInstaller
	bf, err := t.Control.InspectFile(ctx, p, f)
	if err != nil {
		return nil, err
	}
	return t.Bundles.Open(bf)
}

func tftpError(err error) error {
	switch lane.CodeOf(err) {
	case lane.NotFound:
		return &tftp.Error{Code: tftp.CodeNotFound, Text: err.Error()}
	case lane.Refused:
		return &tftp.Error{Code: tftp.CodeAccessViolation, Text: err.Error()}
	case lane.Unavailable, lane.Conflict:
		return &tftp.Error{Code: tftp.CodeUndefined, Text: "cannot decide now, try again"}
	}
	return err
}

// addressServers shows operators both DHCP servers as one. six may be nil.
type addressServers struct {
	*dhcp.Server
	six      *dhcp6.Server
	external []lane.NetworkUsage // where Bootlane speaks no DHCP
}

// State tells how full every network is.
func (s addressServers) State() lane.DHCPState {
	out := s.Server.State()
	out.Networks = append(out.Networks, s.external...)
	if s.six == nil {
		return out
	}
	six := s.six.State()
	out.Networks = append(out.Networks, six.Networks...)
	c, more := &out.Counters, six.Counters
	c.Received, c.Answered, c.Silent = c.Received+more.Received, c.Answered+more.Answered, c.Silent+more.Silent
	c.Dropped, c.Failed, c.Lost = c.Dropped+more.Dropped, c.Failed+more.Failed, c.Lost+more.Lost
	return out
}

// Release takes an address back, on an operator's word.
func (s addressServers) Release(ctx context.Context, a netip.Addr) (lane.Lease, error) {
	if s.six == nil || a.Is4() {
		return s.Server.Release(ctx, a)
	}
	l, err := s.six.Release(ctx, a)
	return lane.Lease{MAC: l.Client.MAC(), Address: l.Address, State: l.State, Granted: l.Granted, Expires: l.Expires}, err
}
