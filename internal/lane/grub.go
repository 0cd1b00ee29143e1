package lane

import "strings"

// GRUBFailed is what GRUB says when it could not load what its configuration named.
const GRUBFailed = "failed"

// OptionalFile reports whether a boot loader asks for a file that it does without: shim for
// revocations and certificates beside itself (15.8 and later), GRUB for the lists of its
// modules, which the signed builds have in them.
func OptionalFile(name string) bool {
	return strings.HasSuffix(name, ".lst") || strings.HasSuffix(name, ".efi") && (strings.HasPrefix(name, "revocations") || strings.HasPrefix(name, "shim_certificate"))
}

// What GRUB reads from SMBIOS and sends along, in this order: it has no escapes, so that
// each value ends where the next key begins.
var grubKeys = [...]string{"uuid", "serial", "asset", "manufacturer", "product"}

// GRUBSaid is what [GRUBFacts] reads, made of one expression of GRUB's for each key.
func GRUBSaid(expression func(key string) string) string {
	var out []string
	for _, k := range grubKeys {
		out = append(out, k+"="+expression(k))
	}
	return strings.Join(out, "&")
}

// GRUBFacts adds to f what GRUB said of its machine. Whatever is not in the form of
// [GRUBSaid] is not known: no value is guessed from a text that is cut off or garbled.
func GRUBFacts(said string, f Facts) Facts {
	values := map[string]string{}
	rest := said
	for i, k := range grubKeys {
		text, ok := strings.CutPrefix(rest, k+"=")
		if !ok {
			return f
		}
		if i+1 < len(grubKeys) {
			text, rest, ok = strings.Cut(text, "&"+grubKeys[i+1]+"=")
			if !ok {
				return f
			}
			rest = grubKeys[i+1] + "=" + rest
		}
		values[k] = Clean(text, 128)
	}
	f.Serial, f.AssetTag, f.Manufacturer, f.Product = values["serial"], values["asset"], values["manufacturer"], values["product"]
	if u, err := ParseUUID(values["uuid"]); err == nil {
		f.UUID = u
	}
	return f
}
