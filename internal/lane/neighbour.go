package lane

import "time"

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

// Probed is what came of asking a network who answers DHCP.
type Probed struct {
	Interfaces []string    `json:"interfaces"`
	Foreign    []Responder `json:"foreign"` // who answered
}

// NetSubject is the subject of evidence about the network behind an interface.
func NetSubject(iface string) string { return "net:" + iface }
