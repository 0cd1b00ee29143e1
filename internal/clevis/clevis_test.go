package clevis

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/nettest"

	"github.com/google/go-tpm/tpmutil"
)

const passphrase = "kR3vL0wq-passphrase_of_a_key_slot"

func (j JWE) compact() string {
	return strings.Join([]string{j.Protected, j.EncryptedKey, j.IV, j.Ciphertext, j.Tag}, ".")
}

// decrypt has the real Clevis open what was sealed.
func decrypt(t *testing.T, j JWE, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("clevis", "decrypt")
	cmd.Env, cmd.Stdin = append(os.Environ(), env...), strings.NewReader(j.compact())
	out, err := cmd.Output()
	return string(out), err
}

// header returns the names in the header of a JWE, and what its `clevis` says.
func header(t *testing.T, j JWE) (all map[string]any) {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(j.Protected)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sameShape compares the names of two headers, and the values of those that are no keys.
func sameShape(t *testing.T, at string, ours, theirs any) {
	t.Helper()
	own, ok := ours.(map[string]any)
	their, both := theirs.(map[string]any)
	if !ok || !both {
		return
	}
	for k := range their {
		if _, ok := own[k]; !ok {
			t.Errorf("Clevis writes %s.%s", at, k)
		}
	}
	for k, v := range own {
		if _, ok := their[k]; !ok {
			t.Errorf("Clevis does not write %s.%s", at, k)
		}
		sameShape(t, at+"."+k, v, their[k])
	}
	for _, k := range []string{"alg", "enc", "kid", "pin", "url", "hash", "key", "crv", "kty"} {
		if own[k] != their[k] {
			t.Errorf("%s.%s is %v, and by Clevis %v", at, k, own[k], their[k])
		}
	}
}

// real has the real Clevis seal by the same pin.
func real(t *testing.T, pin, config string, env ...string) JWE {
	t.Helper()
	cmd := exec.Command("clevis", "encrypt", pin, config)
	cmd.Env, cmd.Stdin = append(os.Environ(), env...), strings.NewReader(passphrase)
	out, err := cmd.Output()
	parts := strings.Split(strings.TrimSpace(string(out)), ".")
	if err != nil || len(parts) != 5 {
		t.Fatal(err, string(out))
	}
	return JWE{Protected: parts[0], EncryptedKey: parts[1], IV: parts[2], Ciphertext: parts[3], Tag: parts[4]}
}

func TestTang(t *testing.T) {
	server := nettest.StartTang(t)
	tang := Tang{http.DefaultClient, server.URL, server.Thumbprint}
	j, err := tang.Seal(t.Context(), rand.Reader, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(t, j); err != nil || got != passphrase {
		t.Errorf("Clevis opens it to %q, %v", got, err)
	}
	sameShape(t, "header", header(t, j), header(t, real(t, "tang", `{"url":"`+server.URL+`","thp":"`+server.Thumbprint+`"}`)))
	out, err := exec.Command("sh", "-c", `jose jwk thp -a S1 -i "$(grep -l ES512 "$0"/*.jwk)"`, server.Keys).Output()
	if err != nil {
		t.Fatal(err)
	}
	tang.Thumbprint = strings.TrimSpace(string(out))
	if len(tang.Thumbprint) != 27 {
		t.Errorf("by SHA-1 it is %q", tang.Thumbprint)
	}
	if _, err := tang.Seal(t.Context(), rand.Reader, []byte(passphrase)); err != nil {
		t.Errorf("by the thumbprint of SHA-1: %v", err)
	}
	tang.Thumbprint = nettest.StartTang(t).Thumbprint
	if _, err := tang.Seal(t.Context(), rand.Reader, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "tang-show-keys prints") {
		t.Errorf("another's key: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(t, j); err == nil {
		t.Errorf("without its server it opens to %q", got)
	}
	if _, err := tang.Seal(t.Context(), rand.Reader, []byte(passphrase)); err == nil || !strings.Contains(err.Error(), "ask the Tang server") {
		t.Errorf("no server: %v", err)
	}
}

// TestTangIsJudged: a server between us and the real one changes what it says.
func TestTangIsJudged(t *testing.T) {
	server, other := nettest.StartTang(t), nettest.StartTang(t)
	ask := func(method, url string, body io.Reader) []byte {
		req, err := http.NewRequest(method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	advertised := ask("GET", server.URL+"/adv", nil)
	var jws, others map[string]string
	if err := errors.Join(json.Unmarshal(advertised, &jws), json.Unmarshal(ask("GET", other.URL+"/adv", nil), &others)); err != nil {
		t.Fatal(err)
	}
	with := func(change func(m map[string]string)) []byte {
		m := map[string]string{}
		for k, v := range jws {
			m[k] = v
		}
		change(m)
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	payload := func(text string) func(map[string]string) {
		return func(m map[string]string) { m["payload"] = encode([]byte(text)) }
	}
	for name, c := range map[string]struct {
		adv  []byte
		rec  func(body io.Reader) []byte // nil: the real one
		want string
	}{
		"as it is":          {advertised, nil, ""},
		"another's payload": {with(func(m map[string]string) { m["payload"] = others["payload"] }), nil, "has not signed it"},
		"another's all":     {with(func(m map[string]string) { m["payload"], m["signature"] = others["payload"], others["signature"] }), nil, "the key " + server.Thumbprint + " has not signed it"},
		"no signature":      {with(func(m map[string]string) { delete(m, "signature") }), nil, "has not signed it"},
		"short signature":   {with(func(m map[string]string) { m["signature"] = m["signature"][:40] }), nil, "has not signed it"},
		"another algorithm": {with(func(m map[string]string) { m["protected"] = encode([]byte(`{"alg":"none"}`)) }), nil, "has not signed it"},
		"a payload of none": {with(payload(`{"keys":[]}`)), nil, "has not signed it: compare"},
		"no keys":           {with(payload(`[]`)), nil, "no set of keys"},
		"an odd key":        {with(payload(`{"keys":[7]}`)), nil, "cannot be read"},
		"a key of RSA":      {with(payload(`{"keys":[{"kty":"RSA","key_ops":["verify"]}]}`)), nil, "has not signed it"},
		"no base64":         {with(func(m map[string]string) { m["payload"] = "*" }), nil, "no base64url"},
		"no JSON":           {[]byte("<html>"), nil, "no JWS"},
		"endless":           {[]byte(strings.Repeat(" ", answerBytes+1)), nil, "more than"},
		"it does not help":  {advertised, func(io.Reader) []byte { return []byte("<html>") }, "answers no key"},
		"it helps wrongly":  {advertised, func(body io.Reader) []byte { b, _ := io.ReadAll(body); return b }, "does not recover"},
	} {
		t.Run(name, func(t *testing.T) {
			man := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, "/adv/"):
					_, _ = w.Write(c.adv)
				case c.rec != nil:
					_, _ = w.Write(c.rec(r.Body))
				default:
					_, _ = w.Write(ask("POST", server.URL+r.URL.Path, r.Body))
				}
			}))
			defer man.Close()
			_, err := Tang{man.Client(), man.URL, server.Thumbprint}.Seal(t.Context(), rand.Reader, []byte(passphrase))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := (Tang{http.DefaultClient, server.URL, server.Thumbprint}).Seal(ctx, rand.Reader, nil); err == nil {
		t.Error("it does not end with its context")
	}
	if _, err := (Tang{http.DefaultClient, server.URL, server.Thumbprint}).Seal(t.Context(), strings.NewReader("few"), nil); err == nil || !strings.Contains(err.Error(), "random bytes") {
		t.Error(err)
	}
}

// TestTangMayAnswerLater: who answers nothing, or for a server that is not up, is told apart from a server that says no.
func TestTangMayAnswerLater(t *testing.T) {
	for status, later := range map[int]bool{http.StatusServiceUnavailable: true, http.StatusTooManyRequests: true, http.StatusNotFound: false, 0: true} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status == 0 { // breaks off
				w.Header().Set("Content-Length", "100")
				return
			}
			w.WriteHeader(status)
		}))
		_, err := Tang{Client: server.Client(), URL: server.URL, Thumbprint: "x"}.Seal(t.Context(), rand.Reader, []byte("p"))
		if got := errors.As(err, new(*NoAnswerError)); err == nil || got != later {
			t.Errorf("%d: %v, which may be another later: %v", status, err, got)
		}
		server.Close()
	}
}

func TestTPM2(t *testing.T) {
	dir := t.TempDir()
	socket, stop := nettest.StartTPM(t, filepath.Join(dir, "one"))
	defer func() { stop() }()
	j, err := SealTPM2(tpmutil.NewEmulatorReadWriteCloser(socket), rand.Reader, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	env := "TPM2TOOLS_TCTI=swtpm:path=" + socket
	if got, err := decrypt(t, j, env); err != nil || got != passphrase {
		t.Errorf("Clevis opens it to %q, %v", got, err)
	}
	sameShape(t, "header", header(t, j), header(t, real(t, "tpm2", "{}", env)))
	if out, err := exec.Command("env", env, "tpm2_getcap", "handles-transient").Output(); err != nil || len(out) > 0 {
		t.Errorf("the TPM still has %s, %v", out, err)
	}
	if _, err := SealTPM2(tpmutil.NewEmulatorReadWriteCloser(socket), strings.NewReader("few"), nil); err == nil || !strings.Contains(err.Error(), "random bytes") {
		t.Error(err)
	}
	if out, err := exec.Command("env", env, "tpm2_changeauth", "-c", "owner", "secret").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if _, err := SealTPM2(tpmutil.NewEmulatorReadWriteCloser(socket), rand.Reader, nil); err == nil || !strings.Contains(err.Error(), "primary key of the TPM's owner") {
		t.Errorf("a TPM that is another's: %v", err)
	}
	stop()
	if _, err := SealTPM2(tpmutil.NewEmulatorReadWriteCloser(socket), rand.Reader, nil); err == nil {
		t.Error("a TPM that is gone took it")
	}
	socket, stop = nettest.StartTPM(t, filepath.Join(dir, "another"))
	if got, err := decrypt(t, j, "TPM2TOOLS_TCTI=swtpm:path="+socket); err == nil {
		t.Errorf("another TPM opens it to %q", got)
	}
}

// FuzzAdvertisement: whatever a server says, it is read or refused.
func FuzzAdvertisement(f *testing.F) {
	for _, seed := range []string{
		`{"payload":"eyJrZXlzIjpbXX0","signatures":[{"protected":"e30","signature":"AA"}]}`,
		`{"payload":"eyJrZXlzIjpbeyJhbGciOiJFUzUxMiIsImNydiI6IlAtNTIxIiwia2V5X29wcyI6WyJ2ZXJpZnkiXSwia3R5IjoiRUMiLCJ4IjoiQUEiLCJ5IjoiQUEifV19","protected":"eyJhbGciOiJFUzUxMiJ9","signature":"AA"}`,
		`null`, `[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if adv, err := parseAdvertisement(text, "rQpW9oX1cKr1vuaAxX4i8jnHZyY"); err == nil {
			t.Errorf("nobody has that key, and yet it is believed: %s", adv.keys)
		}
		var k jwk
		if json.Unmarshal(text, &k) == nil {
			_, _, _ = k.exchange()
			k.signed("x", signature{"e30", "AA"})
		}
	})
}
