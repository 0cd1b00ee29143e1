package clevis

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// answerBytes is more than any server has to say.
const answerBytes = 64 << 10

// signature is one of those of a JWS.
type signature struct {
	Protected string `json:"protected"`
	Signature string `json:"signature"`
}

// advertisement is what a Tang server tells of its keys.
type advertisement struct {
	keys     json.RawMessage // all of them, as they were signed
	exchange jwk             // the one that passphrases are sealed to
}

// parseAdvertisement reads a JWS of a set of keys, and believes it if every key that signs has
// signed it, and the pinned one is among them: what clevis-encrypt-tang asks as well.
func parseAdvertisement(text []byte, thumbprint string) (advertisement, error) {
	var jws struct {
		Payload    string      `json:"payload"`
		Signatures []signature `json:"signatures"`
		signature              // where there is one only
	}
	if err := json.Unmarshal(text, &jws); err != nil {
		return advertisement{}, fmt.Errorf("it is no JWS: %w", err)
	}
	signatures := jws.Signatures
	if len(signatures) == 0 {
		signatures = []signature{jws.signature}
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return advertisement{}, fmt.Errorf("its payload is no base64url: %w", err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(payload, &set); err != nil {
		return advertisement{}, fmt.Errorf("its payload is no set of keys: %w", err)
	}
	var out advertisement
	pinned := false
	for _, raw := range set.Keys {
		var k jwk
		if err := json.Unmarshal(raw, &k); err != nil {
			return advertisement{}, fmt.Errorf("one of its keys cannot be read: %w", err)
		}
		if k.can("verify") {
			if !slices.ContainsFunc(signatures, func(s signature) bool { return k.signed(jws.Payload, s) }) {
				return advertisement{}, fmt.Errorf("its key %s has not signed it", k.thumbprints()[0])
			}
			pinned = pinned || slices.Contains(k.thumbprints(), thumbprint)
		}
		if k.can("deriveKey") && out.exchange.Kty == "" {
			out.exchange = k
		}
	}
	switch {
	case !pinned:
		return advertisement{}, fmt.Errorf("the key %s has not signed it: compare that thumbprint with what tang-show-keys prints on the server", thumbprint)
	case out.exchange.Kty == "":
		return advertisement{}, errors.New("it has no key to exchange with")
	}
	out.keys, err = json.Marshal(set)
	return out, err
}

// Tang is one server, and the key that is known to be its own.
type Tang struct {
	Client     *http.Client
	URL        string // without a slash at its end
	Thumbprint string // of a signing key
}

// Seal seals a passphrase so that the server has to help whoever opens it, without learning it.
func (t Tang) Seal(ctx context.Context, random io.Reader, passphrase []byte) (JWE, error) {
	text, err := t.ask(ctx, http.MethodGet, "/adv/"+t.Thumbprint, nil)
	if err != nil {
		return JWE{}, err
	}
	adv, err := parseAdvertisement(text, t.Thumbprint)
	if err != nil {
		return JWE{}, fmt.Errorf("what %s tells of its keys is not believed: %w", t.URL, err)
	}
	c, server, err := adv.exchange.exchange()
	if err != nil {
		return JWE{}, err
	}
	own, err := newKey(random, c)
	if err != nil {
		return JWE{}, err
	}
	shared, err := own.ECDH(server)
	if err != nil {
		return JWE{}, fmt.Errorf("agree upon a key with %s: %w", t.URL, err)
	}
	kid := adv.exchange.thumbprints()[0]
	if err := t.helps(ctx, random, c, server, kid); err != nil {
		return JWE{}, err
	}
	header := map[string]any{"alg": "ECDH-ES", "enc": contentAlgorithm, "kid": kid, "epk": jwkOf(c, own.PublicKey()),
		"clevis": map[string]any{"pin": "tang", "tang": map[string]any{"url": t.URL, "adv": adv.keys}}}
	return seal(random, agreed(shared), header, passphrase)
}

// helps has the server do what it is asked for at each boot, on a key of this moment: to multiply
// the point that it is sent by its own secret. What it gives for a point that we know the secret
// of we can compute as well, so its answer is judged; and it is the same secret for every point.
func (t Tang) helps(ctx context.Context, random io.Reader, c curve, server *ecdh.PublicKey, kid string) error {
	probe, err := newKey(random, c)
	if err != nil {
		return err
	}
	want, err := probe.ECDH(server)
	if err != nil {
		return err
	}
	ask := jwkOf(c, probe.PublicKey())
	ask.Alg = "ECMR"
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	text, err := t.ask(ctx, http.MethodPost, "/rec/"+kid, body)
	if err != nil {
		return err
	}
	var answer jwk
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("%s answers no key: %w", t.URL, err)
	}
	if got, point, err := answer.point(); err != nil || got.name != c.name || !bytes.Equal(point[1:1+c.bytes], want) {
		return fmt.Errorf("%s does not recover what is sealed to its key %s", t.URL, kid)
	}
	return nil
}

// NoAnswerError is of a server that may answer later.
type NoAnswerError struct{ cause error }

func (e *NoAnswerError) Error() string { return e.cause.Error() }

// Unwrap returns what the connection, or who answered in the server's place, says.
func (e *NoAnswerError) Unwrap() error { return e.cause }

// ask sends a request, and returns what a server answers that takes it.
func (t Tang) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, t.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Close = true // tangd is one process for each connection, and we have two questions
	if body != nil {
		req.Header.Set("Content-Type", "application/jwk+json")
	}
	resp, err := t.Client.Do(req)
	if err != nil {
		return nil, &NoAnswerError{fmt.Errorf("ask the Tang server: %w", err)}
	}
	defer func() { _ = resp.Body.Close() }()
	if s := resp.StatusCode; s >= http.StatusInternalServerError || s == http.StatusRequestTimeout || s == http.StatusTooManyRequests {
		return nil, &NoAnswerError{fmt.Errorf("the Tang server %s answers %s to %s %s", t.URL, resp.Status, method, path)}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the Tang server %s answers %s to %s %s: it has no such key, or is no Tang server; tang-show-keys prints its thumbprints there", t.URL, resp.Status, method, path)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes+1))
	if err != nil {
		return nil, &NoAnswerError{fmt.Errorf("read the answer of the Tang server: %w", err)}
	}
	if len(text) > answerBytes {
		return nil, fmt.Errorf("the Tang server %s answers more than %d bytes", t.URL, answerBytes)
	}
	return text, nil
}
