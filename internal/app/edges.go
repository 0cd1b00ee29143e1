package app

import (
	"context"
	"errors"
	"io"

	"bootlane/internal/control"
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
