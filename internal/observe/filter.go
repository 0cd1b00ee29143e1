package observe

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"

	"bootlane/internal/pcap"
)

// filter lets the kernel hand over boot packets only: DHCP of both versions, PXE boot
// servers, and TFTP requests. The rest of a TFTP transfer has other ports, but for that of a server which has one alone:
// its clients' ACKs would fill the ring, and leave no room for what it is for.
func filter() ([]bpf.RawInstruction, error) {
	const (
		etherType = 12
		ip        = 14 // where the IP header begins
		udp       = 17
		tftp      = 69
		read      = 1 // opcodes
		write     = 2
	)
	four := slices.Concat(
		only(bpf.LoadAbsolute{Off: ip + 9, Size: 1}, udp),
		[]bpf.Instruction{bpf.LoadAbsolute{Off: ip + 6, Size: 2}, // not the first fragment: it has no ports
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: 0x1fff, SkipTrue: 1}, bpf.RetConstant{}, bpf.LoadMemShift{Off: ip}},
		take(bpf.LoadIndirect{Off: ip, Size: 2}, 67, 68, 4011),
		take(bpf.LoadIndirect{Off: ip + 2, Size: 2}, 67, 68, 4011),
		only(bpf.LoadIndirect{Off: ip + 2, Size: 2}, tftp),
		take(bpf.LoadIndirect{Off: ip + 8, Size: 2}, read, write),
		[]bpf.Instruction{bpf.RetConstant{}})
	six := slices.Concat(
		only(bpf.LoadAbsolute{Off: ip + 6, Size: 1}, udp),
		take(bpf.LoadAbsolute{Off: ip + 40, Size: 2}, 546, 547),
		take(bpf.LoadAbsolute{Off: ip + 42, Size: 2}, 546, 547),
		only(bpf.LoadAbsolute{Off: ip + 42, Size: 2}, tftp),
		take(bpf.LoadAbsolute{Off: ip + 48, Size: 2}, read, write),
		[]bpf.Instruction{bpf.RetConstant{}})
	program, err := bpf.Assemble(slices.Concat(
		[]bpf.Instruction{bpf.LoadAbsolute{Off: etherType, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0800, SkipTrue: uint8(len(four))}}, four,
		only(bpf.LoadAbsolute{Off: etherType, Size: 2}, 0x86dd), six))
	if err != nil {
		return nil, fmt.Errorf("assemble the packet filter: %w", err)
	}
	return program, nil
}

// only drops the packet unless what is loaded is v.
func only(load bpf.Instruction, v uint32) []bpf.Instruction {
	return []bpf.Instruction{load, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: 1}, bpf.RetConstant{}}
}

// take keeps the packet when what is loaded is one of the values.
func take(load bpf.Instruction, values ...uint32) []bpf.Instruction {
	out := []bpf.Instruction{load}
	for _, v := range values {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, bpf.RetConstant{Val: pcap.MaxFrame})
	}
	return out
}
