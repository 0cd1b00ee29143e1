package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"bootlane/internal/lane"
)

// TestReach: "not there" and "no answer" are not the same, and a proxy is used when there is one.
func TestReach(t *testing.T) {
	var asked []string
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.RequestURI)
		if !strings.HasSuffix(r.URL.Path, "/Release") {
			http.NotFound(w, r)
		}
	}))
	if err := reach(t.Context(), mirror.URL+"/dists/bookworm/Release", ""); err != nil {
		t.Errorf("a release that is there: %v", err)
	}
	if err := reach(t.Context(), mirror.URL+"/dists/sid/none", ""); lane.CodeOf(err) != lane.NotFound || !strings.Contains(err.Error(), "404") {
		t.Errorf("one that is not: %v", err)
	}
	if err := reach(t.Context(), "http://mirror.example/dists/bookworm/Release", mirror.URL); err != nil {
		t.Errorf("through a proxy: %v", err)
	}
	if last := asked[len(asked)-1]; last != "HEAD http://mirror.example/dists/bookworm/Release" {
		t.Errorf("the proxy was asked %q", last)
	}
	mirror.Close()
	if err := reach(t.Context(), mirror.URL+"/Release", ""); lane.CodeOf(err) != lane.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}
