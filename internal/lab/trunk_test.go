package lab

import (
	"bytes"
	"testing"
)

// TestTag: a frame comes back as it was, and frames of other VLANs and untagged ones do not.
func TestTag(t *testing.T) {
	plain := []byte("\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x34\x56\x08\x00payload")
	frame := tag(append(make([]byte, tagBytes), plain...), 120)
	if want := "\x52\x54\x00\x12\x34\x56\x81\x00\x00\x78\x08\x00payload"; string(frame[6:]) != want {
		t.Fatalf("tagged: %q, want %q", frame[6:], want)
	}
	for name, other := range map[string][]byte{"untagged": plain, "VLAN 121": tag(append(make([]byte, tagBytes), plain...), 121), "cut short": frame[:macs+tagBytes], "nothing": nil} {
		if out, ok := untag(bytes.Clone(other), 120); ok {
			t.Errorf("%s: passed as %q", name, out)
		}
	}
	urgent := bytes.Clone(frame)
	urgent[macs+2] |= 7 << 5 // a priority is not another VLAN
	for _, f := range [][]byte{frame, urgent} {
		if out, ok := untag(bytes.Clone(f), 120); !ok || !bytes.Equal(out, plain) {
			t.Errorf("%q without its tag: %q %v", f, out, ok)
		}
	}
}
