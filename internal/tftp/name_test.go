package tftp

import (
	"strings"
	"testing"
)

func TestNormaliseName(t *testing.T) {
	tests := []struct {
		id, in, want string
		code         uint16 // of the refusal, when want is empty
	}{
		{id: "plain", in: "ipxe.efi", want: "ipxe.efi"},
		{id: "TF-15 DOS separators", in: `boot\efi\grubx64.efi`, want: "boot/efi/grubx64.efi"},
		{id: "TF-15 DOS root", in: `\Boot\BCD`, want: "Boot/BCD"},
		{id: "TF-16 leading slash", in: "/ipxe.efi", want: "ipxe.efi"},
		{id: "TF-16 many slashes", in: "//x//ipxe.efi", want: "x/ipxe.efi"},
		{id: "TF-16 dots", in: "./x/./ipxe.efi", want: "x/ipxe.efi"},
		{id: "TF-16 trailing slash", in: "x/", want: "x"},
		{id: "TF-16 URL", in: "tftp://192.0.2.1/x/ipxe.efi", want: "x/ipxe.efi"},
		{id: "TF-16 URL behind a slash", in: "/TFTP://[2001:db8::1]:69//ipxe.efi", want: "ipxe.efi"},
		{id: "TF-16 URL without a file", in: "tftp://192.0.2.1", code: CodeNotFound},
		{id: "TF-16 no URL", in: "tftp:/x", want: "tftp:/x"},
		{id: "TF-17 0xFF", in: "ipxe.efi\xff", want: "ipxe.efi"},
		{id: "TF-17 NUL", in: "ipxe.efi\x00\x00", want: "ipxe.efi"},
		{id: "TF-17 blanks", in: "ipxe.efi \t\r\n", want: "ipxe.efi"},
		{id: "TF-17 everything", in: "x \xff/ipxe.efi\x00\xff \x7f/", want: "x/ipxe.efi"},
		{id: "TF-18 up", in: "../../etc/passwd", code: CodeAccessViolation},
		{id: "TF-18 up with DOS separators", in: `..\..\etc\passwd`, code: CodeAccessViolation},
		{id: "TF-18 up in the middle", in: "a/../b", code: CodeAccessViolation},
		{id: "TF-18 up at the end", in: "a/..", code: CodeAccessViolation},
		{id: "TF-18 up with a blank", in: "a/.. /b", code: CodeAccessViolation},
		{id: "TF-18 up encoded", in: "%2e%2e/etc/passwd", code: CodeAccessViolation},
		{id: "TF-18 up half encoded", in: ".%2E/etc/passwd", code: CodeAccessViolation},
		{id: "TF-18 slash encoded", in: "a%2f..%2Fpasswd", code: CodeAccessViolation},
		{id: "TF-18 backslash encoded", in: "a%5C..%5cpasswd", code: CodeAccessViolation},
		{id: "TF-18 up encoded twice", in: "%252e%252e%252fpasswd", code: CodeAccessViolation},
		{id: "TF-18 up encoded without end", in: "%2525252525252e./passwd", code: CodeAccessViolation},
		{id: "TF-18 up with encoded NUL", in: "..%00/passwd", code: CodeAccessViolation},
		{id: "TF-18 up behind a URL", in: "tftp://x/../passwd", code: CodeAccessViolation},
		{id: "three dots are a name", in: ".../..a/a..", want: ".../..a/a.."},
		{id: "percent signs stay", in: "100%/a%20b%2ec", want: "100%/a%20b%2ec"},
		{id: "empty", in: "", code: CodeNotFound},
		{id: "only slashes", in: `/\//.`, code: CodeNotFound},
		{id: "control character", in: "a\nb", code: CodeAccessViolation},
		{id: "longest", in: strings.Repeat("x", 1024), want: strings.Repeat("x", 1024)},
		{id: "too long", in: strings.Repeat("x", 1025), code: CodeAccessViolation},
	}
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			got, err := normaliseName(tt.in)
			if got != tt.want {
				t.Errorf("%q becomes %q, want %q", tt.in, got, tt.want)
			}
			if refused := err != nil; refused != (tt.want == "") {
				t.Fatalf("%q: refusal %v", tt.in, err)
			}
			if err != nil && (err.Code != tt.code || err.Text == "") {
				t.Errorf("%q: refused with %v, want code %d", tt.in, err, tt.code)
			}
		})
	}
}

// FuzzName asks of every name that comes out what Request.Name promises.
func FuzzName(f *testing.F) {
	for _, s := range []string{
		"ipxe.efi", `boot\efi\..\x`, "//x//", "tftp://h/x", "%2e%2e/", "%25%32%65./", "a/. / /.", "\xff", "x\x00 ", "é/ü",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := normaliseName(raw)
		if err != nil {
			if name != "" || err.Text == "" {
				t.Errorf("%q: refused as %q with %v", raw, name, err)
			}
			return
		}
		if name == "" || len(name) > maxNameSize || strings.Contains(name, `\`) {
			t.Errorf("%q becomes %q", raw, name)
		}
		for segment := range strings.SplitSeq(name, "/") {
			if segment == "" || segment == "." || segment == ".." {
				t.Errorf("%q becomes %q", raw, name)
			}
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q becomes %q", raw, name)
		}
		lower := strings.ToLower(name)
		for _, up := range []string{"/%2e%2e/", "/.%2e/", "/%2e./", "/..%2f"} {
			if strings.Contains("/"+lower+"/", up) {
				t.Errorf("%q becomes %q", raw, name)
			}
		}
		if again, err := normaliseName(name); again != name || err != nil {
			t.Errorf("%q becomes %q, and that %q: %v", raw, name, again, err)
		}
	})
}
