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
	URL        string // without a slash at its end
	Thumbprint string // of its signing key, as tang-show-keys prints it: base64url of SHA-1 or SHA-256
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

func badEncryption(v *string) string {
	if v == nil || slices.Contains([]string{"", EncryptionTPM2, EncryptionTang}, *v) {
		return ""
	}
	return fmt.Sprintf("%q: use %s, %s, or nothing for a disk that is not encrypted", *v, EncryptionTPM2, EncryptionTang)
}
