package lane

import (
	"strings"
	"testing"
)

func TestEncryption(t *testing.T) {
	const thumbprint = "rQpW9oX1cKr1vuaAxX4i8jnHZyY"
	one := Tang{"http://tang-a.example.org", thumbprint}
	for _, c := range []struct {
		e    Encryption
		want string // of the problem; empty: there is none
		text string
	}{
		{Encryption{By: EncryptionTPM2}, "", "the TPM 2.0"},
		{Encryption{By: EncryptionTang, Tang: []Tang{one}}, "", "Tang, http://tang-a.example.org"},
		{Encryption{By: EncryptionTang, Tang: []Tang{one, {"http://[fd00::1]:7500/x", thumbprint}}}, "", "Tang, http://tang-a.example.org or http://[fd00::1]:7500/x"},
		{Encryption{}, `"" opens no disk: use tpm2, or tang`, ""},
		{Encryption{By: "luks"}, `"luks" opens no disk`, ""},
		{Encryption{By: EncryptionTang}, "no Tang server", ""},
		{Encryption{By: EncryptionTPM2, Tang: []Tang{one}}, "either the TPM", ""},
		{Encryption{By: EncryptionTang, Tang: make([]Tang, 17)}, "16 at most", ""},
		{Encryption{By: EncryptionTang, Tang: []Tang{{"http://a/../..", thumbprint}, {"file:///x", thumbprint}}}, "URL#THUMBPRINT", ""},
		{Encryption{By: EncryptionTang, Tang: []Tang{{"http://a", "short"}}}, "URL#THUMBPRINT", ""},
		{Encryption{By: EncryptionTang, Tang: []Tang{{"https://a", thumbprint}}}, "https://a is not http://", ""},
	} {
		if got := strings.Join(c.e.Validate(), "; "); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.e, got, c.want)
		}
		if c.text != "" && c.e.String() != c.text {
			t.Errorf("%+v is %q", c.e, c.e)
		}
	}
}
