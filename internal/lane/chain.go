package lane

import "time"

// BootChain is what a machine starts by network on its way to its installer: as it is
// configured and proven now, and as it was served in the host's last run.
type BootChain struct {
	Host     HostID      `json:"host"`
	Run      RunID       `json:"run,omitempty"`
	Bundle   string      `json:"bundle"`
	Firmware string      `json:"firmware,omitempty"` // whom it trusts, [SecureBoots]; empty: it was not told
	Links    []ChainLink `json:"links"`
	Others   []Fetch     `json:"others,omitempty"` // what else was served in the run
}

// ChainLink is one image, in the order in which they start.
type ChainLink struct {
	Name    string   `json:"name"`
	Digest  Digest   `json:"digest"`
	Checker string   `json:"checkedBy,omitempty"` // firmware or shim
	Proven  bool     `json:"proven"`
	Broken  []string `json:"broken,omitempty"`
	Fetched []Fetch  `json:"fetched,omitempty"` // under its name
}

// Fetch is one file as it was served.
type Fetch struct {
	At     time.Time `json:"at"`
	Name   string    `json:"name"`
	Digest Digest    `json:"digest"`
	Bytes  int64     `json:"bytes"`
	By     Surface   `json:"by"`
}

// Differs reports whether other bytes were served under the link's name than are now.
func (l ChainLink) Differs() bool {
	for _, f := range l.Fetched {
		if f.Digest != l.Digest {
			return true
		}
	}
	return false
}
