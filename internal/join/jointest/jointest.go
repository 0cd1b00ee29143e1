// Package jointest stands for the API server of a cluster, where the real one cannot run: a
// real one takes minutes to build, and is what `make test-kube` plays the same things against.
// It speaks HTTPS, knows bootstrap tokens, and has Secrets, Nodes and certificate requests. For
// tests only.
package jointest

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Object is any object of Kubernetes.
type Object = map[string]any

// Server is one cluster's API.
type Server struct {
	Endpoint   string // HOST:PORT
	Kubeconfig string // file with a token
	CA         []byte // PEM

	t   *testing.T
	srv *httptest.Server

	mu      sync.Mutex
	objects map[string]Object // by path
	down    bool
	deny    func(method, path string) (int, string)
	uids    int
}

// User is whom the server takes the bearer of the kubeconfig's token for.
const User = "bootlane"

const bearer = "the-token-of-bootlane"

// New starts a server, and stops it with the test.
func New(t *testing.T) *Server {
	t.Helper()
	s := &Server{t: t, objects: map[string]Object{}}
	s.srv = httptest.NewTLSServer(s)
	t.Cleanup(s.srv.Close)
	s.Endpoint = strings.TrimPrefix(s.srv.URL, "https://")
	s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.srv.Certificate().Raw})
	dir := t.TempDir()
	s.Kubeconfig = filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("clusters: [{name: c, cluster: {server: %q, certificate-authority: ca.crt}}]\nusers: [{name: u, user: {token: %s}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", s.srv.URL, bearer)
	for path, data := range map[string][]byte{s.Kubeconfig: []byte(text), filepath.Join(dir, "ca.crt"): s.CA} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Down lets the server not be reached, or be reached again.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Deny answers what it names with a status and a message; nil denies nothing.
func (s *Server) Deny(f func(method, path string) (int, string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deny = f
}

// Secrets returns the ids of the bootstrap tokens that are there.
func (s *Server) Secrets() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range s.objects {
		if _, id, ok := strings.Cut(path, "/secrets/bootstrap-token-"); ok {
			out = append(out, id)
		}
	}
	return out
}

// SetNode makes a Node as its kubelet would, or takes it away where uuid is empty.
func (s *Server) SetNode(name, uuid string, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, "/api/v1/nodes/"+name)
	if uuid == "" {
		return
	}
	status := map[bool]string{true: "True", false: "Unknown"}[ready]
	s.put("/api/v1/nodes/"+name, Object{"metadata": Object{"name": name, "creationTimestamp": "2026-05-01T00:00:00Z"},
		"status": Object{"nodeInfo": Object{"systemUUID": uuid}, "conditions": []any{Object{"type": "Ready", "status": status}}}})
}

// Request makes a request for a certificate, of the bearer of a bootstrap token.
func (s *Server) Request(name, token string, csr []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(requests+"/"+name, Object{"metadata": Object{"name": name}, "spec": Object{"request": csr, "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
		"username": "system:bootstrap:" + token, "usages": []any{"digital signature", "client auth"}}, "status": Object{}})
}

// Object returns what is at a path, or nil.
func (s *Server) Object(path string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[path]
}

const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

func (s *Server) put(path string, o Object) {
	s.uids++
	meta, ok := o["metadata"].(Object)
	if !ok {
		meta = Object{}
	}
	meta["uid"] = fmt.Sprint("uid-", s.uids)
	o["metadata"] = meta
	// As the wire has it: bytes are base64.
	b, err := json.Marshal(o)
	if err != nil {
		s.t.Error(err)
	}
	var plain Object
	if err := json.Unmarshal(b, &plain); err != nil {
		s.t.Error(err)
	}
	s.objects[path] = plain
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		s.drop(w)
		return
	}
	who := s.who(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if who == "" && r.URL.Path != "/version" && r.URL.Path != "/cacerts" {
		answer(w, http.StatusUnauthorized, status("Unauthorized", "Unauthorized"))
		return
	}
	if s.deny != nil {
		if code, message := s.deny(r.Method, r.URL.Path); code != 0 {
			answer(w, code, status("Denied", message))
			return
		}
	}
	var in Object
	if r.Body != nil {
		_ = json.NewDecoder(r.Body).Decode(&in) // a GET has none
	}
	code, out := s.serve(r, who, in)
	answer(w, code, out)
}

func status(reason, message string) Object {
	return Object{"kind": "Status", "reason": reason, "message": message}
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a client that went away
}

// who returns the user of a bearer token, or nothing.
func (s *Server) who(token string) string {
	if token == bearer {
		return User
	}
	id, _, _ := strings.Cut(token, ".")
	if s.objects["/api/v1/namespaces/kube-system/secrets/bootstrap-token-"+id] != nil {
		return "system:bootstrap:" + id
	}
	return ""
}

func (s *Server) serve(r *http.Request, who string, in Object) (int, Object) {
	path := r.URL.Path
	switch {
	case path == "/version":
		return http.StatusOK, Object{"gitVersion": "v1.35.0"}
	case strings.HasSuffix(path, "/selfsubjectreviews"):
		return http.StatusCreated, Object{"status": Object{"userInfo": Object{"username": who}}}
	case strings.HasSuffix(path, "/selfsubjectaccessreviews"):
		return http.StatusCreated, Object{"status": Object{"allowed": true}}
	case r.Method == http.MethodPost:
		meta, _ := in["metadata"].(Object)
		at := fmt.Sprint(path, "/", meta["name"])
		if s.objects[at] != nil {
			return http.StatusConflict, status("AlreadyExists", "it exists")
		}
		if r.URL.Query().Get("dryRun") == "" {
			s.put(at, in)
		}
		return http.StatusCreated, in
	case r.Method == http.MethodGet && path == requests:
		items := []any{}
		for at, o := range s.objects {
			if strings.HasPrefix(at, requests+"/") {
				items = append(items, o)
			}
		}
		return http.StatusOK, Object{"metadata": Object{}, "items": items}
	}
	o := s.objects[strings.TrimSuffix(path, "/approval")]
	if o == nil {
		return http.StatusNotFound, status("NotFound", "there is none")
	}
	switch r.Method {
	case http.MethodDelete:
		delete(s.objects, path)
	case http.MethodPut:
		s.objects[strings.TrimSuffix(path, "/approval")] = in
	case http.MethodPatch:
		merge(o, in)
	}
	return http.StatusOK, o
}

// merge is a merge patch (RFC 7386).
func merge(into, from Object) {
	for k, v := range from {
		part, ok := v.(Object)
		was, same := into[k].(Object)
		switch {
		case ok && same:
			merge(was, part)
		case v == nil:
			delete(into, k)
		default:
			into[k] = v
		}
	}
}

// drop ends the connection without an answer.
func (s *Server) drop(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Error(err)
		return
	}
	_ = c.Close() // that is the answer
}
