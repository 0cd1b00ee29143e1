package lane

import (
	"fmt"
	"time"
)

// Responder is another server that was heard to answer DHCP or PXE on one of our
// interfaces. All of it is what that server says.
type Responder struct {
	Interface string    `json:"interface"`
	Server    string    `json:"server"`  // option 54, or the DUID of DHCPv6
	Address   string    `json:"address"` // that its packets come from
	MAC       MAC       `json:"mac,omitempty"`
	Gives     bool      `json:"gives"`              // it offers addresses
	PXE       bool      `json:"pxe"`                // it answers as a network boot server: option 60
	BootFile  string    `json:"bootFile,omitempty"` // the last that it named
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
	Count     int       `json:"count"`            // packets heard
	Packet    []byte    `json:"packet,omitempty"` // the last frame
}

// TwoPXEServers names the finding that somebody else boots machines where we do: which
// of the two a machine obeys is chance.
const TwoPXEServers = "two-pxe-servers"

// Finding names what is wrong with the responder being there, or nothing. That it
// gives addresses is right where we do not.
func (r Responder) Finding() string {
	if r.PXE {
		return TwoPXEServers
	}
	return ""
}

// String says what the responder does.
func (r Responder) String() string {
	s := "another DHCP server answers: " + r.Server
	if r.MAC != "" {
		s += " (" + string(r.MAC) + ")"
	}
	switch {
	case r.Gives && r.PXE:
		s += ", gives addresses and answers PXE clients"
	case r.Gives:
		s += ", gives addresses"
	case r.PXE:
		s += ", answers PXE clients"
	}
	if r.BootFile != "" {
		s += fmt.Sprintf(", boot file %q", r.BootFile)
	}
	return s
}

// Probed is what came of asking a network who answers DHCP.
type Probed struct {
	Interfaces []string    `json:"interfaces"`
	Foreign    []Responder `json:"foreign"` // who answered
}

// NetSubject is the subject of evidence about the network behind an interface.
func NetSubject(iface string) string { return "net:" + iface }
