package httpboot

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bootlane/internal/lane"
)

// taken is whoever takes reports.
type taken struct{ reports []lane.Report }

func (t *taken) Report(_ context.Context, _ string, r lane.Report) error {
	t.reports = append(t.reports, r)
	return nil
}

func (*taken) Join(context.Context, lane.RunPath, lane.Facts) ([]byte, error) { return nil, nil }

func (*taken) Order(context.Context, string, lane.Hardware, lane.Facts) (lane.Order, error) {
	return lane.Order{}, nil
}

// TestReportSize: the longest list of checks fits into a report, and what is longer is refused whole.
func TestReportSize(t *testing.T) {
	var into taken
	s, err := New(t.Context(), Config{Listeners: []Listener{{Addr: "127.0.0.1:0", BaseURL: func(string) string { return "" }}}, Reports: &into, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.lis[0].Close() }() // nobody connects
	post := func(body string) (int, string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/run/"+strings.Repeat("a", 32)+"/report", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	const begin = "stage=ready&seq=1&status=failed&checks="
	var list strings.Builder
	for n := range 20 { // first boot makes 15, with texts of 200 bytes at most
		fmt.Fprintf(&list, "check-%d%%09failed%%09%s%%09%s%%0A", n, strings.Repeat("e", 200), strings.Repeat("%25", 200))
	}
	if code, said := post(begin + list.String()); code != http.StatusOK || len(into.reports) != 1 || len(into.reports[0].Checks) != 20 || len(into.reports[0].Checks[19].Actual) != 200 {
		t.Errorf("%d %s, %d reports", code, said, len(into.reports))
	}
	if code, said := post(begin + strings.Repeat("x", maxForm)); code != http.StatusBadRequest || !strings.Contains(said, "at most 32768 bytes") || len(into.reports) != 1 {
		t.Errorf("%d %s, %d reports", code, said, len(into.reports))
	}
}
