package httpboot

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"log/slog"

	"bootlane/internal/iso/isotest"
	"bootlane/internal/lane"
)

// TestTree serves files out of an ISO image, as installers ask: by name, by range, and for
// some that are not there.
func TestTree(t *testing.T) {
	rpm := strings.Repeat("a package ", 5000)
	image := isotest.ISO(t, isotest.Files(t, map[string]string{".treeinfo": "[general]\n", "images/install.img": "stage 2", "Packages/a/a+b-1.0~rc1.el9.x86_64.rpm": rpm, "latest": "-> images"}))
	file := oneFile{image}
	s, err := New(t.Context(), Config{Listeners: []Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "" }}}, Runs: file, Files: file, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.lis[0].Close() }() // nobody connects
	ask := func(method, path string, headers ...string) (*http.Response, string) {
		t.Helper()
		r := httptest.NewRequest(method, "/run/"+strings.Repeat("a", 32)+path, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		body, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Result(), string(body)
	}
	for path, want := range map[string]string{"/tree/.treeinfo": "[general]\n", "/tree/images/install.img": "stage 2", "/tree//latest/install.img": "stage 2", "/tree/Packages/a/a+b-1.0~rc1.el9.x86_64.rpm": rpm} {
		if r, got := ask("GET", path); r.StatusCode != 200 || got != want || r.ContentLength != int64(len(want)) {
			t.Errorf("%s: %d, %d bytes", path, r.StatusCode, len(got))
		}
		if r, got := ask("HEAD", path); r.StatusCode != 200 || got != "" || r.ContentLength != int64(len(want)) {
			t.Errorf("HEAD %s: %d, %d bytes", path, r.StatusCode, r.ContentLength)
		}
	}
	r, _ := ask("GET", "/tree/images/install.img")
	if r, got := ask("GET", "/tree/images/install.img", "Range", "bytes=6-", "If-Range", r.Header.Get("ETag")); r.StatusCode != http.StatusPartialContent || got != "2" {
		t.Errorf("a range: %d %q", r.StatusCode, got)
	}
	for path, want := range map[string]string{"/tree/images/product.img": "no file images/product.img", "/tree/images": "only its files", "/tree": "nothing is served", "/tree/": "nothing is served",
		"/tree/images/../.treeinfo": "nothing is served", "/tree/../report": "nothing is served"} {
		if r, got := ask("GET", path); r.StatusCode != http.StatusNotFound || !strings.Contains(got, want) {
			t.Errorf("%s: %d %q", path, r.StatusCode, got)
		}
	}
	if r, _ := ask("POST", "/tree/.treeinfo"); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.StatusCode)
	}
	if _, got := ask("GET", lane.RunPath{Asset: lane.AssetTree, Name: "nothing"}.Under("")); !strings.Contains(got, "no file nothing") {
		t.Errorf("what RunPath writes is not what is read: %q", got)
	}
}
