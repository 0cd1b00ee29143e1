package lane

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What opens an encrypted disk at each boot, without anybody at the console.
const (
	EncryptionTPM2 = "tpm2" // the machine's own TPM 2.0, whatever the machine starts
	EncryptionTang = "tang" // a Tang server, as long as the machine reaches it
)

// Tang is a server that helps machines of its network to open their disks, and never learns a key.
type Tang struct {
	URL        string `json:"url"`        // without a slash at its end
	Thumbprint string `json:"thumbprint"` // of its signing key, as tang-show-keys prints it: base64url of SHA-1 or SHA-256
}

var tangRE = regexp.MustCompile(`^(https?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]+)*)/?#([A-Za-z0-9_-]{27}|[A-Za-z0-9_-]{43})$`)

// ParseTang reads URL#THUMBPRINT.
func ParseTang(text string) (Tang, error) {
	m := tangRE.FindStringSubmatch(text)
	if m == nil {
		return Tang{}, Errorf(Invalid, "%q is not URL#THUMBPRINT like http://tang.example.org#rQpW9oX1cKr1vuaAxX4i8jnHZyY: tang-show-keys prints the thumbprint on the server", Clean(text, 200))
	}
	return Tang{strings.TrimSuffix(m[1], "/"), m[2]}, nil
}

// String is the server as ParseTang reads it.
func (t Tang) String() string { return t.URL + "#" + t.Thumbprint }

// Encryption is what opens an encrypted disk.
type Encryption struct {
	By   string `json:"by"`             // EncryptionTPM2 or EncryptionTang
	Tang []Tang `json:"tang,omitempty"` // any one of them does
}

// String is the same for people.
func (e Encryption) String() string {
	if e.By == EncryptionTPM2 {
		return "the TPM 2.0"
	}
	var urls []string
	for _, t := range e.Tang {
		urls = append(urls, t.URL)
	}
	return "Tang, " + strings.Join(urls, " or ")
}

// maxTang is more servers than a machine has to ask.
const maxTang = 16

// Validate says why the agent could not encrypt a disk so.
func (e Encryption) Validate() (out []string) {
	switch {
	case e.By != EncryptionTPM2 && e.By != EncryptionTang:
		return []string{fmt.Sprintf("%q opens no disk: use %s, or %s", e.By, EncryptionTPM2, EncryptionTang)}
	case e.By == EncryptionTPM2 && len(e.Tang) > 0:
		return []string{"either the TPM opens the disk, or Tang servers do"}
	case e.By == EncryptionTang && len(e.Tang) == 0:
		return []string{"no Tang server is named"}
	case len(e.Tang) > maxTang:
		return []string{fmt.Sprintf("%d Tang servers are too many: name %d at most", len(e.Tang), maxTang)}
	}
	for _, t := range e.Tang {
		if _, err := ParseTang(t.String()); err != nil {
			out = append(out, err.Error())
		} else if !strings.HasPrefix(t.URL, "http://") {
			out = append(out, t.URL+" is not http://, and bootlane-agent has no certificate authorities: what a Tang server says is signed by its own key, and no secret goes over the wire")
		}
	}
	return out
}

func badEncryption(v *string) string {
	if v == nil || slices.Contains([]string{"", EncryptionTPM2, EncryptionTang}, *v) {
		return ""
	}
	return fmt.Sprintf("%q: use %s, %s, or nothing for a disk that is not encrypted", *v, EncryptionTPM2, EncryptionTang)
}
