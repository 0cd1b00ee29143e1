package lane

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGRUBFacts(t *testing.T) {
	before := Facts{MAC: "52:54:00:12:34:56", Serial: "from elsewhere"}
	for said, want := range map[string]Facts{
		"uuid=4C4C4544-0042-3510-8051-B4C04F4D3732&serial=SN 1/2&asset=&manufacturer=A & B=C&product=P": {MAC: before.MAC, UUID: "4c4c4544-0042-3510-8051-b4c04f4d3732",
			Serial: "SN 1/2", Manufacturer: "A & B=C", Product: "P"},
		"uuid=&serial=&asset=&manufacturer=&product=":          {MAC: before.MAC}, // GRUB has no module for SMBIOS
		"uuid=nonsense&serial=S&asset=&manufacturer=&product=": {MAC: before.MAC, Serial: "S"},
		"uuid=&serial=a\x1b[2J&asset=&manufacturer=&product=":  {MAC: before.MAC, Serial: "a[2J"},
		"serial=S&uuid=&asset=&manufacturer=&product=":         before,
		"uuid=&serial=S": before,
		"failed":         before,
	} {
		if diff := cmp.Diff(want, GRUBFacts(said, before)); diff != "" {
			t.Errorf("%q: -want +got:\n%s", said, diff)
		}
	}
}

// TestGRUBSaid: what the entry configuration sends is what is read.
func TestGRUBSaid(t *testing.T) {
	said := GRUBSaid(func(key string) string { return "<" + key + ">" })
	if got, want := GRUBFacts(said, Facts{}), (Facts{Serial: "<serial>", AssetTag: "<asset>", Manufacturer: "<manufacturer>", Product: "<product>"}); cmp.Diff(want, got) != "" {
		t.Errorf("%q reads as %+v", said, got)
	}
}

func TestOptionalFile(t *testing.T) {
	for _, n := range []string{"revocations.efi", "revocations_sbat.efi", "shim_certificate_0.efi", "command.lst"} {
		if !OptionalFile(n) {
			t.Errorf("%s is", n)
		}
	}
	for _, n := range []string{"grubx64.efi", "mmx64.efi", "shimx64.efi", "lst", "revocations"} {
		if OptionalFile(n) {
			t.Errorf("%s is not", n)
		}
	}
}

func FuzzGRUBFacts(f *testing.F) {
	f.Add("uuid=1&serial=2&asset=3&manufacturer=4&product=5")
	f.Fuzz(func(t *testing.T, said string) {
		got := GRUBFacts(said, Facts{})
		if strings.ContainsFunc(got.Serial+got.AssetTag+got.Product+got.Manufacturer, unprintable) || len(got.Serial) > 128 {
			t.Errorf("%q reads as %+v", said, got)
		}
	})
}
