package lab

import (
	"path/filepath"

	"bootlane/internal/lane"
)

// Board is a kind of machine that QEMU plays.
type Board string

// The boards. The firmware of a PC is what [Machine.Firmware] says; the others have one.
const (
	PC    Board = ""      // x86_64, with OVMF or SeaBIOS
	IA32  Board = "ia32"  // UEFI of 32 bits
	ARM64 Board = "arm64" // UEFI
	UBoot Board = "uboot" // arm64, with U-Boot
	// Secure is x86_64 whose UEFI enforces Secure Boot with the keys that servers are sold with.
	Secure Board = "secure"
)

// hardware is a board as QEMU is told, and as the records call it.
type hardware struct {
	arch     lane.Arch
	program  string
	options  []string
	code     string // UEFI firmware, and the variables that it begins with
	vars     string
	name     string   // of the firmware
	packages []string // of Debian: the firmware's, what stands beside it, and the emulator's
}

// Files of the firmware, where Debian's packages put them.
const (
	ovmfCode   = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	secureCode = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd"
	ia32Code   = "/usr/share/OVMF/OVMF32_CODE_4M.secboot.fd"
	armCode    = "/usr/share/AAVMF/AAVMF_CODE.fd"
	ubootCode  = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
)

// x86 is the processor: of what QEMU can emulate, "max" costs each boot a tenth more, for
// page tables of five levels and vector units that nothing here needs.
const x86 = "EPYC"

// nic returns what QEMU calls the machine's NICs. U-Boot 2023.01 misreads the MAC of a
// virtio NIC, and in the middle of a transfer stops hearing it.
func (m *Machine) nic() string {
	if m.Board == UBoot {
		return "e1000"
	}
	return "virtio-net-pci"
}

// hardware returns what the machine is made of.
func (m *Machine) hardware() hardware {
	pc := []string{"-machine", "q35,accel=tcg,graphics=off", "-cpu", x86}
	arm := []string{"-machine", "virt,accel=tcg", "-cpu", "cortex-a57"}
	// Firmware that keeps its variables in system management mode.
	smm := []string{"-machine", "q35,accel=tcg,graphics=off,smm=on", "-cpu", x86, "-global", "driver=cfi.pflash01,property=secure,value=on"}
	switch {
	case m.Board == Secure:
		return hardware{lane.X86_64, "qemu-system-x86_64", smm, secureCode, "/usr/share/OVMF/OVMF_VARS_4M.ms.fd", "OVMF, x64, Secure Boot", []string{"ovmf", "qemu-system-x86"}}
	case m.Board == Owned:
		return hardware{lane.X86_64, "qemu-system-x86_64", smm, secureCode, filepath.Join(m.lab.dir, ownedStore), "OVMF, x64, own keys", []string{"ovmf", "qemu-system-x86"}}
	case m.Board == IA32:
		return hardware{lane.I386, "qemu-system-x86_64", smm, ia32Code, "/usr/share/OVMF/OVMF32_VARS_4M.fd", "OVMF, IA32", []string{"ovmf-ia32", "qemu-system-x86"}}
	case m.Board == ARM64:
		return hardware{lane.ARM64, "qemu-system-aarch64", arm, armCode, "/usr/share/AAVMF/AAVMF_VARS.fd", "AAVMF, arm64", []string{"qemu-efi-aarch64", "qemu-system-arm"}}
	case m.Board == UBoot:
		return hardware{lane.ARM64, "qemu-system-aarch64", append(arm, "-bios", ubootCode), "", "", "U-Boot, arm64", []string{"u-boot-qemu", "qemu-system-arm"}}
	case m.Firmware == lane.UEFI:
		return hardware{lane.X86_64, "qemu-system-x86_64", pc, ovmfCode, "/usr/share/OVMF/OVMF_VARS_4M.fd", "OVMF, x64", []string{"ovmf", "qemu-system-x86"}}
	}
	return hardware{lane.X86_64, "qemu-system-x86_64", pc, "", "", "SeaBIOS, iPXE as the NIC's ROM", []string{"seabios", "ipxe-qemu", "qemu-system-x86"}}
}
