package uefi

import (
	"crypto/x509"
	"slices"
	"time"

	"bootlane/internal/lane"
)

// Detached returns a detached signature of content: CMS (RFC 5652) in DER, without signed
// attributes, as iPXE's imgverify takes it. iPXE wants a certificate for code signing, which
// it trusts by the roots that it was built with (TRUST=).
func Detached(content []byte, by Signer) ([]byte, error) {
	if err := by.check(); err != nil {
		return nil, err
	}
	if !slices.Contains(by.Certificate.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
		return nil, lane.Errorf(lane.Invalid, "the certificate %q is not for code signing, which iPXE wants: issue one with extendedKeyUsage = codeSigning", name(by.Certificate))
	}
	data, err := by.signedDataOf(oidData, content, time.Time{})
	if err != nil {
		return nil, err
	}
	return der(tagSequence, oid(oidSignedData), der(tagExplicit0, data)), nil
}
