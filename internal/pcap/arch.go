package pcap

import (
	"fmt"
	"strings"
)

// archNames are the processor architecture types of IANA that machines boot with.
var archNames = map[int]string{
	0: "x86 BIOS", 6: "x86 UEFI", 7: "x64 UEFI", 9: "x64 UEFI (9)", 10: "ARM UEFI", 11: "ARM64 UEFI",
	15: "x86 UEFI HTTP", 16: "x64 UEFI HTTP", 17: "x64 UEFI HTTP (17)", 18: "ARM UEFI HTTP", 19: "ARM64 UEFI HTTP", 20: "x86 BIOS HTTP",
	25: "RISC-V 32 UEFI", 27: "RISC-V 64 UEFI", 28: "RISC-V 64 UEFI HTTP", 39: "LoongArch64 UEFI", 41: "Raspberry Pi",
}

func archName(n int) string {
	if s, ok := archNames[n]; ok {
		return s
	}
	return fmt.Sprintf("architecture %d", n)
}

// misfit says what a boot file is, when its name tells that it is not for an
// architecture. Most names tell nothing.
func misfit(arch int, file string) string {
	name := strings.ToLower(base(file))
	has := func(list ...string) bool {
		for _, s := range list {
			if strings.Contains(name, s) {
				return true
			}
		}
		return false
	}
	bios := strings.HasSuffix(name, ".kpxe") || strings.HasSuffix(name, ".kkpxe") || strings.HasSuffix(name, ".pxe") || strings.HasSuffix(name, ".0") || has("undionly")
	efi := strings.HasSuffix(name, ".efi") || strings.HasSuffix(name, ".efi.signed")
	arm := has("arm64", "aarch64", "aa64")
	switch {
	case arch == 0 && efi:
		return "a UEFI program"
	case arch >= 6 && bios:
		return "a BIOS program"
	case (arch == 11 || arch == 19) && has("x64", "x86_64", "amd64", "ia32", "i386"):
		return "a program for x86"
	case (arch == 6 || arch == 7 || arch == 9 || arch >= 15 && arch <= 17) && arm:
		return "a program for ARM64"
	case arch == 7 && has("ia32", "i386"):
		return "a program for 32-bit x86"
	}
	return ""
}
