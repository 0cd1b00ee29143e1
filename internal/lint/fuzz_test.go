package lint

import (
	"slices"
	"strings"
	"testing"
)

// fuzz gives a format's judge any bytes: it answers, in order, with places that are in the file,
// and the same way twice.
func fuzz(f *testing.F, format Format) {
	f.Add(base()[format])
	f.Add("\r\r-\u0085\u2028- a")
	for _, p := range pairs() {
		if p.format == format {
			f.Add(strings.Replace(strings.Replace(base()[format], p.old, p.bad, 1), "§", "", 1))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		found := File("f", []byte(text), format, Options{})
		lines := 2 // as YAML counts them
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(text, end)
		}
		for i, x := range found {
			if x.Line < 1 || x.Line > lines || x.Column < 1 || x.Message == "" || x.Severity == "" || i > 0 && found[i-1].Line > x.Line {
				t.Fatalf("%+v", found)
			}
		}
		if !slices.Equal(found, File("f", []byte(text), format, Options{})) {
			t.Fatal("two answers to one file")
		}
		Detect("f", []byte(text))
	})
}

// TestOtherKinds: wherever a value stands, another kind of value, or none, is no surprise. The
// fuzzer seldom gets so far.
func TestOtherKinds(t *testing.T) {
	others := []string{"{}", "[]", `""`, "null", "5", "[[]]", "[{}]", `{"a": 1}`, "&a [*a]", "*a"}
	for _, f := range []Format{Autoinstall, CloudConfig, MetaData, NetworkConfig, Agama, Ignition, Butane, Talos, AutoYaST} {
		type part struct {
			text     string
			from, to int
		}
		parts := []part{{base()[f], 0, len(base()[f])}}
		for _, p := range pairs() {
			if bad := strings.Replace(p.bad, "§", "", 1); p.format == f {
				from := strings.Index(base()[f], p.old)
				parts = append(parts, part{strings.Replace(base()[f], p.old, bad, 1), from, from + len(bad)})
			}
		}
		for _, p := range parts {
			text := p.text
			for i := p.from; i < p.to; i++ {
				end, before := valueEnd(text[i:]), ""
				if f != AutoYaST && strings.HasPrefix(text[i:], ":\n") {
					end, before = blockEnd(text, i), ": "
				}
				for _, other := range others {
					if end > 0 {
						File("f", []byte(text[:i]+before+other+text[i+end:]), f, Options{})
					}
				}
				if end := strings.IndexByte(text[i:], '<'); f == AutoYaST && text[i] == '>' && end > 0 {
					File("f", []byte(text[:i+1]+text[i+end:]), f, Options{})
				}
			}
		}
	}
}

// blockEnd is how far what stands below the key goes that ends at i.
func blockEnd(text string, i int) int {
	start := strings.LastIndexByte(text[:i], '\n') + 1
	indent := text[start : len(text)-len(strings.TrimLeft(text[start:], " -"))]
	end := i + 1
	for end < len(text) {
		line, _, _ := strings.Cut(text[end+1:], "\n")
		if len(line)-len(strings.TrimLeft(line, " -")) <= len(indent) {
			break
		}
		end += 1 + len(line)
	}
	return end - i
}

// valueEnd is where the value ends with which a text begins, or 0.
func valueEnd(text string) int {
	depth := 0
	for i, c := range text {
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			if i == 0 {
				return strings.IndexByte(text[1:], '"') + 2
			}
		}
		if depth == 0 {
			if i == 0 {
				return 0
			}
			return i + 1
		}
	}
	return 0
}

func FuzzAutoinstall(f *testing.F)   { fuzz(f, Autoinstall) }
func FuzzCloudConfig(f *testing.F)   { fuzz(f, CloudConfig) }
func FuzzMetaData(f *testing.F)      { fuzz(f, MetaData) }
func FuzzKickstart(f *testing.F)     { fuzz(f, Kickstart) }
func FuzzPreseed(f *testing.F)       { fuzz(f, Preseed) }
func FuzzNetworkConfig(f *testing.F) { fuzz(f, NetworkConfig) }
func FuzzAutoYaST(f *testing.F)      { fuzz(f, AutoYaST) }
func FuzzAgama(f *testing.F)         { fuzz(f, Agama) }
func FuzzIgnition(f *testing.F)      { fuzz(f, Ignition) }
func FuzzButane(f *testing.F)        { fuzz(f, Butane) }
func FuzzTalos(f *testing.F)         { fuzz(f, Talos) }
func FuzzCommandLine(f *testing.F)   { fuzz(f, CommandLine) }
func FuzzIPXE(f *testing.F)          { fuzz(f, IPXE) }
func FuzzGRUB(f *testing.F)          { fuzz(f, GRUB) }
