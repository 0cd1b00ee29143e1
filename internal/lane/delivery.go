package lane

import (
	"net/netip"
	"slices"
)

// Booting notes where the script of a counted boot went to.
func (r *Run) Booting(f Facts, registered []MAC) {
	r.Peer = f.From
	r.NICs = slices.DeleteFunc(f.AllMACs(), func(m MAC) bool { return slices.Contains(registered, m) })
}

// Near reports whether an address can be taken for that of the run's machine without asking
// who has it: its script was asked from there, or from the same network of IPv6, in which a
// machine has many addresses and changes them (RFC 8981); or the record reserves or gives it. Of a run
// whose script came from nowhere, nothing can be said: there, any address is near.
func (h Host) Near(from string) bool {
	if h.Run.Peer == "" || from == h.Run.Peer {
		return true
	}
	a, peer := plainAddr(from), plainAddr(h.Run.Peer)
	switch {
	case !a.IsValid():
		return false
	case a == peer || a == h.Network.Address || a == h.Network.Address6 || slices.Contains(h.Network.Static(), a):
		return true
	}
	return a.Is6() && peer.Is6() && netip.PrefixFrom(a, 64).Masked() == netip.PrefixFrom(peer, 64).Masked()
}

// Leased reports whether a lease is of a NIC of the host's machine, as the record has them or the
// machine told when it asked for its script.
func (h Host) Leased(l LeaseOf) bool {
	if l.State == LeaseDeclined {
		return false
	}
	return l.MAC != "" && (slices.Contains(h.Identity.MACs, l.MAC) || slices.Contains(h.Run.NICs, l.MAC)) ||
		h.Identity.UUID != "" && l.Client == Client("uuid:"+string(h.Identity.UUID))
}

// plainAddr is an address without a zone, and of IPv4 in its own form; not valid where it is none.
func plainAddr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
