package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"

	"golang.org/x/sys/unix"
)

// openBytes reads a content ahead from a server, which hands over to the given one first, if there is one.
func openBytes(t *testing.T, content []byte, wrong http.HandlerFunc) *ahead {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wrong != nil {
			wrong(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + lane.RunBase(strings.Repeat("a", 32)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Now: time.Now, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
	log := NewLog(io.Discard, time.Now)
	img := lane.Image{Path: lane.RunPath{Capability: strings.Repeat("a", 32), Asset: lane.AssetFile, Digest: digest(content), Name: "image"}.String(), Digest: digest(content), SizeBytes: int64(len(content)), Compression: lane.CompressionNone}
	a, err := newClient(u, lane.Hardware{}, cfg, log).openAhead(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// noise is content of which no part is like another: a buffer that is used twice shows.
func noise(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(out) // never fails
	return out
}

// TestAhead: what was sent comes whole and in order, through more than all buffers, by either way to take it.
func TestAhead(t *testing.T) {
	for name, n := range map[string]int{"many buffers and a half": (3*aheadBuffers)*aheadBytes + aheadBytes/2 + 3, "whole buffers": 2 * aheadBuffers * aheadBytes, "less than one": 1000} {
		content := noise(n)
		for _, way := range []string{"read", "each"} {
			a := openBytes(t, content, nil)
			var got bytes.Buffer
			var err error
			head := make([]byte, 777) // both go on where the head ended
			if _, err = io.ReadFull(a, head); err == nil {
				got.Write(head)
				if way == "each" {
					err = a.each(func(b []byte) error { got.Write(b); return nil })
				} else {
					_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{a}, make([]byte, 99_991))
				}
			}
			if verr := a.verify(); err != nil || verr != nil || !bytes.Equal(got.Bytes(), content) {
				t.Errorf("%s, %s: %d bytes, the same: %v; %v, %v", name, way, got.Len(), bytes.Equal(got.Bytes(), content), err, verr)
			}
			a.Close()
		}
	}
}

// TestAheadEnds: a refusal, a consumer that stops, and a server that is silent end it, each in its own words.
func TestAheadEnds(t *testing.T) {
	content := noise((aheadBuffers + 2) * aheadBytes)
	a := openBytes(t, content, answerText(http.StatusGone, "the run was cancelled"))
	if _, err := io.ReadAll(a); err == nil || !strings.Contains(err.Error(), "410") {
		t.Errorf("refused: %v", err)
	}
	a.Close()

	a = openBytes(t, content, nil)
	stop := errors.New("the disk is full")
	if err := a.each(func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	if err := a.verify(); err == nil || !strings.Contains(err.Error(), "ends inside its transfer") {
		t.Errorf("of a part: %v", err)
	}
	a.Close()

	stalled := make(chan struct{})
	a = openBytes(t, content, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000000")
		_, _ = w.Write(content[:10])
		_ = http.NewResponseController(w).Flush()
		close(stalled)
		<-r.Context().Done()
	})
	<-stalled
	a.Close() // returns
}

func answerText(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }
}

// TestDiskWrites: aligned or not, past the page cache or through it, and where the disk refuses the former, what is
// written is read back, by the same disk and by another opener.
func TestDiskWrites(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name   string
		direct int // flags of the second opening; -1: there is none
	}{{"past the cache", os.O_WRONLY | unix.O_DIRECT}, {"through it", -1}, {"refused", os.O_RDONLY}} {
		path := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-"))
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		const size = 4 * chunk
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		d := &diskTarget{File: f, path: path, size: size, sector: 512}
		if c.direct >= 0 {
			if d.direct, err = os.OpenFile(path, c.direct, 0); err != nil {
				t.Fatal(err)
			}
		}
		want, data := make([]byte, size), noise(chunk+1)
		for _, w := range []struct{ from, n, at int }{{0, chunk, 0}, {1, chunk, chunk}, {0, chunk, 2*chunk + 512}, {0, 512, 512}, {0, chunk - 4096, 3 * chunk}} {
			b := data[w.from : w.from+w.n]
			if c.name == "refused" && w.from == 0 && w.at%directAlign == 0 && w.n >= chunk/4 {
				if _, err := d.WriteAt(b, int64(w.at)); err == nil {
					t.Error("the error of a write past the cache is lost")
				}
				continue
			}
			if n, err := d.WriteAt(b, int64(w.at)); n != w.n || err != nil {
				t.Errorf("%s: %+v: %d, %v", c.name, w, n, err)
			}
			copy(want[w.at:], b)
			got := make([]byte, w.n)
			if _, err := d.ReadAt(got, int64(w.at)); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: %+v is not read back: %v", c.name, w, err)
			}
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil || d.direct != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the file is another: %v", c.name, err)
		}
	}
}
