package uefi

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Text writes the proof for people: one line a link, and beneath it what is wrong.
func (p Proof) Text(w io.Writer) {
	fmt.Fprintf(w, "firmware %s, db: %s\n", p.Firmware, orNothing(p.DB))
	if p.SBAT != "" {
		fmt.Fprintf(w, "SBAT level %s\n", p.SBAT)
	}
	for _, l := range p.Links {
		fmt.Fprintln(w)
		if l.Proven {
			fmt.Fprintf(w, "proven  %s %s, by %s: %q (%s)\n", l.Stage, l.File, l.Checker, l.By.Subject, l.By.In)
		}
		for _, b := range l.Broken {
			fmt.Fprintf(w, "BROKEN  %s %s: %s: %s\n        mend: %s\n", l.Stage, l.File, b.ID, b.Text, b.Mend)
		}
		for _, f := range l.Warnings {
			fmt.Fprintf(w, "  warning %s: %s\n", f.ID, f.Text)
			if f.Mend != "" {
				fmt.Fprintf(w, "          mend: %s\n", f.Mend)
			}
		}
	}
	fmt.Fprintln(w)
	for _, u := range p.Unknown {
		fmt.Fprintf(w, "unknown: %s\n", u)
	}
	if p.Proven {
		fmt.Fprintln(w, "the chain holds")
		return
	}
	fmt.Fprintf(w, "the chain is broken: %s\n", p.Why())
}

// Why names the first broken link in one sentence, or is empty.
func (p Proof) Why() string {
	for _, l := range p.Links {
		if len(l.Broken) > 0 {
			return fmt.Sprintf("%s does not start %s (%s)", l.Checker, l.File, l.Broken[0].ID)
		}
	}
	if len(p.Links) == 0 {
		return "there is no image in it"
	}
	return ""
}

// Text writes the report for people.
func (r Report) Text(w io.Writer) {
	fmt.Fprintf(w, "%s\n  %s, %s, %s, %d bytes\n", r.File, r.Machine, r.Subsystem, r.Format, r.Size)
	if r.SHA256 != "" {
		fmt.Fprintf(w, "  Authenticode SHA-256 %s\n  Authenticode SHA-1   %s\n", r.SHA256, r.SHA1)
	}
	if len(r.Signatures) == 0 {
		fmt.Fprintln(w, "  not signed")
	}
	for i, s := range r.Signatures {
		s.text(w, i+1)
	}
	if len(r.SBAT) == 0 {
		fmt.Fprintln(w, "  no SBAT")
	}
	for _, c := range r.SBAT {
		fmt.Fprintf(w, "  SBAT %s,%d (%s, %s %s)\n", c.Name, c.Generation, c.Vendor, c.Package, c.Version)
	}
	if r.Shim != nil {
		r.Shim.text(w)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  ! %s\n", p)
	}
}

func (s SignatureReport) text(w io.Writer, n int) {
	verdict := "good"
	if !s.Good {
		verdict = "BAD: " + s.Problem
	}
	fmt.Fprintf(w, "  signature %d, %s\n", n, verdict)
	if s.Signer == "" {
		return
	}
	expired := ""
	if s.Expired {
		expired = ", expired (firmware does not ask)"
	}
	fmt.Fprintf(w, "    by %q, issued by %q\n    digest %s; the signer's certificate is valid %s to %s%s\n    comes with: %s\n", s.Signer, s.Issuer, s.Digest,
		s.NotBefore.Format(time.DateOnly), s.NotAfter.Format(time.DateOnly), expired, strings.Join(s.Chain, ", "))
}

func (s ShimReport) text(w io.Writer) {
	fmt.Fprintln(w, "  a shim:")
	for _, c := range s.Vendor {
		fmt.Fprintf(w, "    its vendor's certificate is %q, SHA-256 %s, until %s\n", c.Subject, c.SHA256, c.NotAfter.Format(time.DateOnly))
	}
	if s.VendorDBXImages+len(s.VendorDBX) > 0 {
		fmt.Fprintf(w, "    its vendor's dbx forbids %d images by digest, and by certificate: %s\n", s.VendorDBXImages, orNothing(s.VendorDBX))
	}
	if s.Previous != nil && s.Latest != nil {
		fmt.Fprintf(w, "    SBAT level it sets by itself: %s\n    SBAT level it sets when told:  %s\n", s.Previous, s.Latest)
	}
}
