package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"bootlane/internal/lane"
)

// Bounds of one call.
const (
	callLimit = 10 * time.Second
	maxAnswer = 16 << 20
)

// What a cluster says when it does not do what it is asked. Each has another remedy.
var (
	errUnauthorised = errors.New("the API server does not know the credentials of the kubeconfig (401): make new ones")
	errForbidden    = errors.New("forbidden (403): apply `bootlane cluster manifests`, and see `bootlane cluster check`")
	errPolicy       = errors.New("refused by an admission policy: see `bootlane cluster check`")
	errUntrusted    = errors.New("whoever answers is not of the cluster's CA: is the endpoint right, and `ca` that of this cluster?")
	errUnreachable  = errors.New("the API server cannot be reached")
	errBroken       = errors.New("the API server answers, and is not in order")
)

// api speaks to one cluster.
type api struct {
	cluster string // its name in the configuration, for people
	base    string // https://HOST:PORT
	http    *http.Client
	// token returns the bearer token of a call, or nothing: then the client's certificate speaks.
	token func() (string, error)
}

// newAPI returns a client. Credentials are read again with every call and every connection: who
// renews them in the kubeconfig's files needs no restart.
func newAPI(cluster, base, name string, ca []byte, load func() (kubeconfig, error)) (*api, error) {
	pool := x509.NewCertPool()
	list, err := certificates(ca)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		pool.AddCert(c)
	}
	t := &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12}
	a := &api{cluster: cluster, base: base, token: func() (string, error) { return "", nil }}
	if load != nil {
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			k, err := load()
			if err != nil || len(k.cert) == 0 {
				return &tls.Certificate{}, err
			}
			pair, err := tls.X509KeyPair(k.cert, k.key)
			return &pair, err
		}
		a.token = func() (string, error) {
			k, err := load()
			return k.token, err
		}
	}
	transport := &http.Transport{TLSClientConfig: t, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 2, TLSHandshakeTimeout: callLimit,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	a.http = &http.Client{Transport: transport, Timeout: callLimit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return a, nil
}

// as returns the client with a bearer token of its own.
func (a *api) as(token string, other *api) *api {
	return &api{cluster: a.cluster, base: other.base, http: other.http, token: func() (string, error) { return token, nil }}
}

// call makes one call; what says what it is for, and goes before every error. in and out may be nil.
func (a *api) call(ctx context.Context, what, method, path string, in, out any) error {
	status, data, err := a.do(ctx, method, path, in)
	if err != nil {
		return a.failed(what, err)
	}
	if status >= 200 && status < 300 {
		if out == nil {
			return nil
		}
		if err := json.Unmarshal(data, out); err != nil {
			return a.failed(what, fmt.Errorf("%w: %w", errBroken, err))
		}
		return nil
	}
	var s struct{ Message, Reason string }
	_ = json.Unmarshal(data, &s) // what is no Status has no message
	return a.refused(what, status, s.Reason, s.Message)
}

func (a *api) do(ctx context.Context, method, path string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return 0, nil, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "bootlane")
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	token, err := a.token()
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := a.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode == http.StatusUnauthorized { // a connection keeps the certificate that it was made with
		defer a.http.CloseIdleConnections()
	}
	return res.StatusCode, data, errors.Join(err, res.Body.Close())
}

// failed explains a call that got no answer.
func (a *api) failed(what string, err error) error {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	kind := errUnreachable
	switch {
	case errors.Is(err, errBroken):
		kind = nil
	case errors.As(err, &authority) || errors.As(err, &name) || errors.As(err, &invalid):
		kind = errUntrusted
	}
	if kind != nil {
		err = fmt.Errorf("%w: %s", kind, lane.Clean(err.Error(), 400))
	}
	return &lane.Error{Code: lane.Unavailable, Message: what + " in the cluster " + a.cluster, Err: err}
}

// refused explains an answer that is no success.
func (a *api) refused(what string, status int, reason, message string) error {
	code, kind := lane.Unavailable, errBroken
	switch {
	case status == http.StatusUnauthorized:
		code, kind = lane.Refused, errUnauthorised
	case strings.Contains(message, "ValidatingAdmissionPolicy") || strings.Contains(message, "admission webhook"):
		code, kind = lane.Refused, errPolicy
	case status == http.StatusForbidden:
		code, kind = lane.Refused, errForbidden
	case status == http.StatusNotFound:
		code, kind = lane.NotFound, nil
	case status == http.StatusConflict:
		code, kind = lane.Conflict, nil
	case status == http.StatusUnprocessableEntity || status == http.StatusBadRequest:
		code, kind = lane.Invalid, nil
	}
	said := fmt.Errorf("%d %s %s", status, reason, lane.Clean(lane.WithoutTokens(message), 400))
	if kind != nil {
		said = fmt.Errorf("%w: %w", kind, said)
	}
	return &lane.Error{Code: code, Message: what + " in the cluster " + a.cluster, Err: said}
}
