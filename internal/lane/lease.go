package lane

import (
	"net/netip"
	"time"
)

// LeaseState is what became of a lease.
type LeaseState string

// The states of a lease.
const (
	LeaseActive   LeaseState = "active"   // bound until it expires
	LeaseReleased LeaseState = "released" // given back; kept so that the client gets the same address again
	LeaseDeclined LeaseState = "declined" // somebody else uses the address: not offered until it expires
)

// Lease binds an address to a hardware address. It is keyed by that and not by
// the client identifier: one network boot shows up to three of those.
type Lease struct {
	MAC     MAC        `json:"mac"`
	Address netip.Addr `json:"address"`
	State   LeaseState `json:"state"`
	Granted time.Time  `json:"granted"`
	Expires time.Time  `json:"expires"`
}
