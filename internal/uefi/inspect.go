package uefi

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"bootlane/internal/lane"
)

// Report is all that an image says of itself.
type Report struct {
	File       string            `json:"file"`
	Machine    string            `json:"machine"`
	Subsystem  string            `json:"subsystem"`
	Format     string            `json:"format"`
	Size       int               `json:"size"`
	SHA256     string            `json:"sha256"` // Authenticode digests, not the file's
	SHA1       string            `json:"sha1"`
	Signatures []SignatureReport `json:"signatures"`
	SBAT       []Component       `json:"sbat"`
	Shim       *ShimReport       `json:"shim,omitempty"`
	Problems   []string          `json:"problems,omitempty"`
}

// SignatureReport is one signature, whoever trusts it.
type SignatureReport struct {
	Signer    string    `json:"signer"`
	Issuer    string    `json:"issuer"`
	Digest    string    `json:"digest"` // its algorithm
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Expired   bool      `json:"expired"` // firmware does not ask
	Chain     []string  `json:"chain"`   // the certificates that come with it
	Good      bool      `json:"good"`    // it is by its signer, and of these bytes
	Problem   string    `json:"problem,omitempty"`
}

// ShimReport is what a shim carries.
type ShimReport struct {
	Vendor []CertificateReport `json:"vendor"`
	// What the vendor's dbx forbids: certificates by name, and how many by digest.
	VendorDBX       []string `json:"vendorDbx"`
	VendorDBXImages int      `json:"vendorDbxImages"`
	Previous        *Level   `json:"sbatLevelPrevious,omitempty"`
	Latest          *Level   `json:"sbatLevelLatest,omitempty"`
}

// CertificateReport is one certificate.
type CertificateReport struct {
	Subject  string    `json:"subject"`
	SHA256   string    `json:"sha256"`
	NotAfter time.Time `json:"notAfter"`
}

// Inspect reads an image; now tells which certificates are expired.
func Inspect(f File, now time.Time) (Report, error) {
	im, err := ParseImage(f.Data)
	if err != nil {
		return Report{}, err
	}
	r := Report{File: f.Name, Machine: im.Machine.String(), Subsystem: im.Subsystem.String(), Format: im.Format, Size: im.Size, Signatures: []SignatureReport{}, SBAT: []Component{}}
	if _, err := im.Digest(crypto.SHA256); err != nil {
		r.Problems = append(r.Problems, err.Error())
	} else {
		r.SHA256, r.SHA1 = hex.EncodeToString(im.digest(crypto.SHA256)), hex.EncodeToString(im.digest(crypto.SHA1))
	}
	if im.TableErr != nil {
		r.Problems = append(r.Problems, im.TableErr.Error())
	}
	for _, s := range im.Signatures {
		r.Signatures = append(r.Signatures, s.report(now))
	}
	if c, err := im.sbat(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	} else if len(c) > 0 {
		r.SBAT = c
	}
	if s, err := im.Shim(); err != nil {
		r.Problems = append(r.Problems, err.Error())
	} else if s != nil {
		r.Shim = s.report()
	}
	return r, nil
}

func (s Signature) report(now time.Time) SignatureReport {
	r := SignatureReport{Chain: names(s.Certificates), Good: s.Err == nil}
	if s.Algorithm != 0 {
		r.Digest = s.Algorithm.String()
	}
	if c := s.Signer; c != nil {
		r.Signer, r.Issuer, r.NotBefore, r.NotAfter = name(c), called(c.Issuer), c.NotBefore.UTC(), c.NotAfter.UTC()
		r.Expired = now.After(c.NotAfter)
	}
	if s.Err != nil {
		r.Problem = lane.Clean(s.Err.Error(), 400)
	}
	return r
}

func (s *Shim) report() *ShimReport {
	r := &ShimReport{Vendor: []CertificateReport{}, VendorDBX: names(s.VendorDBX.Certificates), VendorDBXImages: s.VendorDBX.Hashes(), Previous: s.Previous, Latest: s.Latest}
	for _, c := range s.Vendor.Certificates {
		r.Vendor = append(r.Vendor, certificateReport(c))
	}
	return r
}

func certificateReport(c *x509.Certificate) CertificateReport {
	return CertificateReport{Subject: name(c), SHA256: fmt.Sprintf("%x", sum(crypto.SHA256, c.Raw)), NotAfter: c.NotAfter.UTC()}
}
