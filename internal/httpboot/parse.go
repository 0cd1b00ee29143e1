package httpboot

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"bootlane/internal/lane"
	"bootlane/internal/script"
)

// maxText is how many bytes of a machine's own text are kept.
const maxText = 128

// scriptFacts reads the parameters of the entry script. uuid and mac must be
// given, though uuid may be empty; none may be given twice. The texts that a
// machine says about itself are cleaned before anything else sees them.
func scriptFacts(query string, f lane.Facts) (lane.Facts, error) {
	v, err := once(query)
	if err != nil {
		return f, err
	}
	for _, k := range []string{"mac", "uuid"} {
		if _, ok := v[k]; !ok {
			return f, lane.Errorf(lane.Invalid, "the parameter %s is missing: let iPXE run %s, which sends all of them", k, lane.EntryScript)
		}
	}
	if f.MAC, err = lane.ParseMAC(v.Get("mac")); err != nil {
		return f, &lane.Error{Code: lane.Invalid, Message: "the parameter mac", Err: err}
	}
	if v.Get("uuid") != "" {
		if f.UUID, err = lane.ParseUUID(v.Get("uuid")); err != nil {
			return f, &lane.Error{Code: lane.Invalid, Message: "the parameter uuid", Err: err}
		}
	}
	for _, m := range strings.Split(v.Get("macs"), ",") {
		if mac, err := lane.ParseMAC(m); err == nil && len(f.MACs) < script.MaxNICs { // absent NICs are empty, odd ones are no Ethernet
			f.MACs = append(f.MACs, mac)
		}
	}
	f.Speaker, f.Name = lane.SpeakerLoader, "script"
	f.Serial, f.AssetTag = lane.Clean(v.Get("serial"), maxText), lane.Clean(v.Get("asset"), maxText)
	f.Manufacturer, f.Product = lane.Clean(v.Get("manufacturer"), maxText), lane.Clean(v.Get("product"), maxText)
	if a, err := lane.ParseArch(v.Get("buildarch")); err == nil {
		f.Arch = a
	}
	switch v.Get("platform") {
	case "pcbios":
		f.Firmware = lane.BIOS
	case "efi":
		f.Firmware = lane.UEFI
	}
	return f, nil
}

// once parses URL-encoded pairs and refuses a name that stands twice.
func once(raw string) (url.Values, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &lane.Error{Code: lane.Invalid, Message: "the parameters are not URL-encoded", Err: err}
	}
	for k, vs := range v {
		if len(vs) > 1 {
			return nil, lane.Errorf(lane.Invalid, "the parameter %q stands %d times", lane.Clean(k, 40), len(vs))
		}
	}
	return v, nil
}

// parseReport reads the form of a report; lane's Report constants name its fields.
func parseReport(body string, f lane.Facts) (lane.Report, error) {
	v, err := once(strings.TrimSpace(body))
	if err != nil {
		return lane.Report{}, err
	}
	r := lane.Report{Stage: lane.Stage(v.Get(lane.ReportStage)), Status: v.Get(lane.ReportStatus), Message: lane.Clean(v.Get(lane.ReportMessage), 500)}
	if !r.Stage.Known() {
		return r, lane.Errorf(lane.Invalid, "stage %q is not a stage of a run", lane.Clean(string(r.Stage), 40))
	}
	if !slices.Contains([]string{lane.StatusOK, lane.StatusProgress, lane.StatusFailed}, r.Status) {
		return r, lane.Errorf(lane.Invalid, "status %q: use ok, progress or failed", lane.Clean(r.Status, 40))
	}
	if r.Seq, err = strconv.Atoi(v.Get(lane.ReportSeq)); err != nil || r.Seq < 1 || r.Seq > 1<<30 {
		return r, lane.Errorf(lane.Invalid, "seq %q is not a number from 1 on", lane.Clean(v.Get(lane.ReportSeq), 40))
	}
	for name, into := range map[string]*int64{lane.ReportDone: &r.Done, lane.ReportTotal: &r.Total} {
		if s := v.Get(name); s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || n < 0 {
				return r, lane.Errorf(lane.Invalid, "%s %q is not a number of bytes", name, lane.Clean(s, 40))
			}
			*into = n
		}
	}
	if r.Checks, err = lane.ParseChecks(v.Get(lane.ReportChecks)); err != nil {
		return r, err
	}
	if r.Stage.AtLeast(lane.StageFirstBoot) {
		f.Speaker = lane.SpeakerFirstBoot
	}
	f.Name = "report"
	r.Facts = saidOfItself(v, f)
	return r, nil
}

// saidOfItself reads what the sender of a report, or who asks to join, says of its identity.
func saidOfItself(v url.Values, f lane.Facts) lane.Facts {
	if s := v.Get(lane.ReportSerial); !strings.HasPrefix(s, "${") { // Talos' name of a value that it does not have
		f.Serial = lane.Clean(s, maxText)
	}
	// A sender that cannot read its own UUID or MAC says nothing by it: the installer's kernel may lack DMI.
	if u, err := lane.ParseUUID(v.Get(lane.ReportUUID)); err == nil {
		f.UUID = u
	}
	if m, err := lane.ParseMAC(v.Get(lane.ReportMAC)); err == nil {
		f.MAC = m
	}
	return f
}
