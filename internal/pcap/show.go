package pcap

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// counted is a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Text writes the report for people.
func (r Report) Text(w io.Writer) {
	probes := 0
	for _, c := range r.Clients {
		if c.Probe {
			probes++
		}
	}
	fmt.Fprintf(w, "%s, %s, %s", counted(r.Frames, "frame"), r.To.Sub(r.From).Round(time.Millisecond), counted(len(r.Clients)-probes, "client"))
	if probes > 0 {
		fmt.Fprintf(w, ", %s", counted(probes, "probe"))
	}
	if r.Cut > 0 {
		fmt.Fprintf(w, ", %s cut short", counted(r.Cut, "frame"))
	}
	fmt.Fprintln(w)
	if r.Damage != "" {
		fmt.Fprintf(w, "the file is damaged %s\n", r.Damage)
	}
	if r.Narrow && r.Frames > 0 {
		fmt.Fprintln(w, "only DHCP and TFTP requests were recorded: nothing can be said of transfers")
	}
	for _, c := range r.Clients {
		c.text(w)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(w, "\nsegment")
		findings(w, r.Findings)
	}
}

func (c Client) text(w io.Writer) {
	fmt.Fprintf(w, "\n%s", c.MAC)
	if c.UUID != "" {
		fmt.Fprintf(w, "  UUID %s", c.UUID)
	}
	if c.Probe {
		fmt.Fprint(w, "  a probe of Bootlane's: no machine, it asks who answers and takes no offer")
	}
	fmt.Fprintln(w)
	for _, s := range c.Steps {
		fmt.Fprintf(w, "  %9.3fs  #%-5d %-18s %s\n", s.After.Seconds(), s.Packet, s.By, s.Text)
	}
	if c.Probe {
		return
	}
	for _, a := range c.Attempts {
		a.text(w)
	}
	fmt.Fprintf(w, "  came to: %s\n", c.Stopped)
	findings(w, c.Findings)
	if len(c.Findings) == 0 {
		fmt.Fprintln(w, "  nothing wrong was found")
	}
}

func (a Attempt) text(w io.Writer) {
	c := a.Choice
	if c == nil {
		return
	}
	fmt.Fprintf(w, "  %s chooses by the rules of %s:\n", a.Speaker, c.By)
	for _, o := range c.Offers {
		fmt.Fprintf(w, "    #%-5d %-18s %s", o.Packet, o.Server, o.Class)
		if o.Why != "" {
			fmt.Fprintf(w, " (%s)", o.Why)
		}
		fmt.Fprintln(w)
	}
	var takes []string
	if c.Takes != 0 {
		takes = append(takes, fmt.Sprintf("the address of #%d", c.Takes))
	}
	if c.Asks.IsValid() {
		takes = append(takes, fmt.Sprintf("asks %s on port 4011", c.Asks))
	} else if c.Boots != 0 {
		takes = append(takes, fmt.Sprintf("the file %q of #%d", c.BootFile, c.Boots))
	}
	if len(takes) > 0 {
		fmt.Fprintf(w, "    takes %s: ", strings.Join(takes, ", "))
	} else {
		fmt.Fprint(w, "    ")
	}
	fmt.Fprintln(w, c.Why)
	if a.Won() != "" && a.Version == 4 {
		fmt.Fprintf(w, "    won: %s\n", a.Won())
	}
}

func findings(w io.Writer, list []Finding) {
	for _, f := range list {
		fmt.Fprintf(w, "  ! %s, #%d: %s\n      why:   %s\n      check: %s\n", f.ID, f.Packet, f.Saw, f.Why, f.Next)
	}
}
