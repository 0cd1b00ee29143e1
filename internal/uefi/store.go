package uefi

import (
	"bytes"
	"encoding/binary"
	"time"
	"unicode/utf16"

	"bootlane/internal/lane"
)

// A variable store of EDK2 with authenticated variables, as OVMF and AAVMF keep it in
// flash: MdeModulePkg/Include/Guid/VariableFormat.h.
const (
	storeFormat    = "aaf32c78-947b-439a-a180-2e144ec37792" // EFI_AUTHENTICATED_VARIABLE_GUID
	storeHeader    = 28
	variableHeader = 60
	variableStart  = 0x55aa
	stateAdded     = 0x3f // other states are values of the past
	stateDeleted   = 0x3d
)

// Stored is one variable as a store keeps it. Vendor is the GUID that its name stands
// under, Time that of its last authenticated update, zero for others.
type Stored struct {
	Name       string
	Vendor     GUID
	Attributes uint32
	Time       time.Time
	Value      []byte
}

// isStore recognises a firmware volume: EFI_FIRMWARE_VOLUME_HEADER, PI 1.8, volume 3, 3.2.1.
func isStore(data []byte) bool {
	return len(data) > 56 && string(data[40:44]) == "_FVH"
}

// storeArea returns where in the file variables may stand, from and to.
func storeArea(data []byte) (from, to uint64, ok bool) {
	le := binary.LittleEndian
	if !isStore(data) {
		return 0, 0, false
	}
	store := uint64(le.Uint16(data[48:])) // HeaderLength of the volume
	if store+storeHeader > uint64(len(data)) || guid(data[store:]) != storeFormat {
		return 0, 0, false
	}
	from, to = store+storeHeader, uint64(len(data))
	if size := uint64(le.Uint32(data[store+16:])); size >= storeHeader && store+size < to {
		to = store + size
	}
	return from, to, true
}

// walkStore calls visit with where each variable begins, and returns where the next one
// may be written.
func walkStore(data []byte, visit func(at uint64, v Stored)) (free, to uint64, ok bool) {
	at, to, ok := storeArea(data)
	for le := binary.LittleEndian; ok && at+variableHeader <= to && le.Uint16(data[at:]) == variableStart; {
		h := data[at:]
		name, value := uint64(le.Uint32(h[36:])), uint64(le.Uint32(h[40:]))
		end := at + variableHeader + name + value
		if end > to {
			return at, to, false
		}
		if h[2] == stateAdded {
			v := Stored{Attributes: le.Uint32(h[4:]), Time: efiTime(h[16:]), Vendor: GUID(h[44:60]), Value: data[at+variableHeader+name : end]}
			v.Name = fromUTF16LE(data[at+variableHeader : at+variableHeader+name])
			visit(at, v)
		}
		at = (end + 3) &^ 3
	}
	return at, to, ok
}

// storeVariable returns the newest value of db or dbx.
func storeVariable(data []byte, name string) (value []byte, found bool) {
	walkStore(data, func(_ uint64, v Stored) {
		if v.Name == name && v.Vendor == known(securityDatabase) {
			value, found = v.Value, true
		}
	})
	return value, found
}

// SetInStore returns a copy of a variable store in which the variables have these
// values, as if firmware had set them; one without a value is deleted. What firmware
// asks of updates is not asked here: whoever can write the file owns the machine.
func SetInStore(store []byte, variables ...Stored) ([]byte, error) {
	out := bytes.Clone(store)
	for _, v := range variables {
		free, to, ok := walkStore(out, func(at uint64, old Stored) {
			if old.Name == v.Name && old.Vendor == v.Vendor {
				out[at+2] = stateDeleted
			}
		})
		if !ok {
			return nil, lane.Errorf(lane.Invalid, "this is no variable store with authenticated variables, or a damaged one: OVMF_VARS_4M.fd of Debian's ovmf is one")
		}
		if len(v.Value) == 0 {
			continue
		}
		b := v.bytes()
		if free+uint64(len(b)) > to {
			return nil, lane.Errorf(lane.Invalid, "the variable store is full: %s needs %d bytes, %d are free; begin with an empty one", v.Name, len(b), to-min(free, to))
		}
		copy(out[free:], b)
	}
	return out, nil
}

// bytes is the variable as AUTHENTICATED_VARIABLE_HEADER, name and value.
func (v Stored) bytes() []byte {
	le, name := binary.LittleEndian, append(utf16LE(v.Name), 0, 0)
	b := le.AppendUint16(nil, variableStart)
	b = append(b, stateAdded, 0)
	b = le.AppendUint32(b, v.Attributes)
	b = le.AppendUint64(b, 0) // MonotonicCount is of an older kind of authentication
	if v.Time.IsZero() {
		b = append(b, make([]byte, 16)...)
	} else {
		b = append(b, toEFITime(v.Time)...)
	}
	b = le.AppendUint32(b, 0) // PubKeyIndex, of that kind too
	b = le.AppendUint32(b, uint32(len(name)))
	b = le.AppendUint32(b, uint32(len(v.Value)))
	b = append(b, v.Vendor[:]...)
	return append(append(b, name...), v.Value...)
}

// EnrolInStore returns a copy of a variable store that holds these keys, and so enforces
// Secure Boot: what a machine in setup mode becomes when it takes their updates.
func EnrolInStore(store []byte, keys []Variable, at time.Time) ([]byte, error) {
	var list []Stored
	for _, k := range keys {
		list = append(list, Stored{k.Name, k.Vendor(), keyAttributes, at, k.List()})
	}
	return SetInStore(store, list...)
}

// utf16LE is a CHAR16 string without its end.
func utf16LE(s string) (out []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// fromUTF16LE reads one, up to its end.
func fromUTF16LE(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
