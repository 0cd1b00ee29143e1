package lane

import "time"

// This file holds what is told to operators: the values that every operator
// surface shows the same way.

// Imported says what an import did.
type Imported struct {
	Added     []HostID `json:"added"`
	Changed   []HostID `json:"changed"`
	Unchanged []HostID `json:"unchanged"`
	Notes     []string `json:"notes,omitempty"` // what is not wrong, and will be missed later
}

// Stranger is a machine without a record that left evidence.
type Stranger struct {
	Subject string    `json:"subject"` // see [UnknownSubject]
	Lines   int       `json:"lines"`
	Heard   time.Time `json:"heard"`          // last
	Host    HostID    `json:"host,omitempty"` // the record that it has since
}

// Provisioning is an operator's wish to install a host.
type Provisioning struct {
	Bundle    string        `json:"bundle,omitempty"` // NAME-VERSION; empty: the record's
	For       time.Duration `json:"for,omitempty"`    // nanoseconds until the deadline; 0: two hours
	Boots     int           `json:"boots,omitempty"`  // network boots granted; 0: two
	Reinstall bool          `json:"reinstall,omitempty"`
	// ReplaceNode goes on although the machine's cluster has a Node of its name that is Ready,
	// or cannot be asked. It needs a Why.
	ReplaceNode bool   `json:"replaceNode,omitempty"`
	Why         string `json:"why,omitempty"`
	By          string `json:"-"`
}

// WithDefaults fills in what is not said.
func (p Provisioning) WithDefaults() Provisioning {
	if p.For == 0 {
		p.For = DefaultDeadline
	}
	if p.Boots == 0 {
		p.Boots = DefaultBoots
	}
	return p
}

// Validate refuses a grant that is no grant, or one that stands open for ever.
func (p Provisioning) Validate() error {
	if p.For < time.Minute || p.For > 7*24*time.Hour || p.Boots < 1 || p.Boots > 20 {
		return Errorf(Invalid, "a grant lasts from one minute to seven days, and has 1 to 20 network boots")
	}
	if p.ReplaceNode && p.Why == "" {
		return Errorf(Invalid, "to go on although the Node may be alive needs a reason: give --why")
	}
	return nil
}

// Inspection is an operator's wish to know what would forbid to install hosts now.
type Inspection struct {
	Hosts     []HostID `json:"hosts,omitempty"`  // none: all that stand to be installed
	Bundle    string   `json:"bundle,omitempty"` // NAME-VERSION or an alias; empty: each record's
	Reinstall bool     `json:"reinstall,omitempty"`
}

// Inspected is what a preflight found of one host. Without problems it may be provisioned.
type Inspected struct {
	Host     HostID    `json:"host"`
	State    State     `json:"state"`
	Role     string    `json:"role,omitempty"`
	Rack     string    `json:"rack,omitempty"`
	Bundle   string    `json:"bundle,omitempty"` // NAME-VERSION that would be installed; as the record names it where there is none
	Problems []Problem `json:"problems,omitempty"`
}

// Preflown is what a preflight of several hosts found, in the order of their ids.
type Preflown struct {
	Hosts   []Inspected   `json:"hosts"`
	LeftOut map[State]int `json:"leftOut,omitempty"` // hosts that do not stand to be installed, and nobody named
}

// Verdict is the answer to "why": where a machine's lane stopped, the rule that
// says so, the evidence, and what to check next.
type Verdict struct {
	Subject  string    `json:"subject"`
	State    State     `json:"state,omitempty"`
	Run      RunID     `json:"run,omitempty"`
	Stage    Stage     `json:"stage,omitempty"` // the last stage reached
	StageAt  time.Time `json:"stageAt,omitzero"`
	Outcome  string    `json:"outcome,omitempty"` // how the run ended; empty while it is open
	Ended    time.Time `json:"ended,omitzero"`
	Rule     string    `json:"rule"`
	Because  string    `json:"because"`
	Evidence *Event    `json:"evidence,omitempty"`
	Mismatch []Signal  `json:"mismatch,omitempty"`
	Next     string    `json:"next"`
}

// Foresight is what one surface would answer if it were asked now.
type Foresight struct {
	Surface Surface `json:"surface"`
	Speaker Speaker `json:"speaker"`
	Asks    string  `json:"asks"`
	Action  Action  `json:"action"`
	Reason  Reason  `json:"reason"`
	Detail  string  `json:"detail,omitempty"`
}

// Erased is one host that would lose its disk if it rebooted now.
type Erased struct {
	Host     HostID         `json:"host"`
	Run      RunID          `json:"run"`
	Bundle   string         `json:"bundle"`
	Disk     DiskSelector   `json:"disk"`
	Mirror   DiskSelector   `json:"mirror,omitzero"`
	Wipe     []DiskSelector `json:"wipe,omitempty"`
	Deadline time.Time      `json:"deadline"`
}

// Census is the answer to "what if everything rebooted now".
type Census struct {
	Hosts  int            `json:"hosts"`
	Counts map[Reason]int `json:"counts"`
	Erased []Erased       `json:"erased"`
}

// Transfer is one file of a run on its way to a machine, in bytes.
type Transfer struct {
	Name  string `json:"name"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// Rendered is one file that would be served: its path below an output directory, and its text.
type Rendered struct {
	Path string `json:"path"`
	Body string `json:"body"`
	Note string `json:"note,omitempty"` // what its user has to do besides
}

// BundleImport is an operator's wish to store a bundle.
type BundleImport struct {
	Dir           string `json:"dir"` // on the server's machine
	AllowRollback bool   `json:"allowRollback,omitempty"`
	Why           string `json:"why,omitempty"`
	By            string `json:"-"`
}

// AliasMove is an operator's wish to point an alias at a bundle.
type AliasMove struct {
	Bundle        string `json:"bundle"` // NAME-VERSION or digest
	AllowRollback bool   `json:"allowRollback,omitempty"`
	Why           string `json:"why,omitempty"`
	By            string `json:"-"`
}
