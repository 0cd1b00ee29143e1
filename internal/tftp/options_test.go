package tftp

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNegotiate(t *testing.T) {
	oack := func(s string) []byte { return []byte("\x00\x06" + s) }
	plain := terms{block: 512, window: 1, timeout: time.Second}
	with := func(f func(*terms)) terms { w := plain; f(&w); return w }
	tests := []struct {
		id    string
		asked []option
		mtu   int // 0 is 1500
		want  terms
	}{
		{id: "TF-05 no options", want: plain},
		{id: "TF-01 EDK2", asked: []option{{"tsize", "0"}, {"blksize", "1468"}, {"windowsize", "4"}},
			want: terms{1468, 4, time.Second, oack("tsize\x0012345\x00blksize\x001468\x00windowsize\x004\x00")}},
		{id: "TF-06 unknown options only", asked: []option{{"multicast", ""}, {"rollover", "0"}, {"x", "1"}}, want: plain},
		{id: "TF-06 unknown among known", asked: []option{{"rollover", "0"}, {"tsize", "0"}},
			want: with(func(w *terms) { w.oack = oack("tsize\x0012345\x00") })},
		{id: "TF-07 mixed case", asked: []option{{"BLKSIZE", "1024"}, {"TSize", "0"}},
			want: with(func(w *terms) { w.block, w.oack = 1024, oack("BLKSIZE\x001024\x00TSize\x0012345\x00") })},
		{id: "TF-03 more than the MTU", asked: []option{{"blksize", "65464"}},
			want: with(func(w *terms) { w.block, w.oack = 1468, oack("blksize\x001468\x00") })},
		{id: "TF-03 more than RFC 2348", asked: []option{{"blksize", "99999"}}, mtu: 1 << 20,
			want: with(func(w *terms) { w.block, w.oack = 65464, oack("blksize\x0065464\x00") })},
		{id: "TF-03 an MTU of 296", asked: []option{{"blksize", "512"}}, mtu: 296,
			want: with(func(w *terms) { w.block, w.oack = 264, oack("blksize\x00264\x00") })},
		{id: "TF-26 blksize 8", asked: []option{{"blksize", "8"}},
			want: with(func(w *terms) { w.block, w.oack = 8, oack("blksize\x008\x00") })},
		{id: "TF-26 blksize 7", asked: []option{{"blksize", "7"}}, want: plain},
		{id: "TF-22 timeout", asked: []option{{"timeout", "3"}},
			want: with(func(w *terms) { w.timeout, w.oack = 3*time.Second, oack("timeout\x003\x00") })},
		{id: "TF-22 timeout 30", asked: []option{{"timeout", "30"}},
			want: with(func(w *terms) { w.timeout, w.oack = 30*time.Second, oack("timeout\x0030\x00") })},
		{id: "TF-22 timeout 31 is declined", asked: []option{{"timeout", "31"}, {"tsize", "0"}},
			want: with(func(w *terms) { w.oack = oack("tsize\x0012345\x00") })},
		{id: "TF-22 timeout 255 is declined", asked: []option{{"timeout", "255"}}, want: plain},
		{id: "TF-22 timeout 0 and 256", asked: []option{{"timeout", "0"}, {"Timeout", "256"}}, want: plain},
		{id: "window beyond the cap", asked: []option{{"windowsize", "64"}},
			want: with(func(w *terms) { w.window, w.oack = 16, oack("windowsize\x0016\x00") })},
		{id: "window 0", asked: []option{{"windowsize", "0"}}, want: plain},
		{id: "window beyond RFC 7440", asked: []option{{"windowsize", "65536"}}, want: plain},
		{id: "repeated option", asked: []option{{"blksize", "1024"}, {"blksize", "8"}},
			want: with(func(w *terms) { w.block, w.oack = 1024, oack("blksize\x001024\x00") })},
		{id: "no numbers", asked: []option{{"blksize", "+512"}, {"tsize", "-1"}, {"timeout", " 3"}, {"windowsize", "0x4"}}, want: plain},
		{id: "huge numbers", asked: []option{{"blksize", "99999999999999999999"}, {"windowsize", "9223372036854775807"}}, want: plain},
	}
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			mtu := tt.mtu
			if mtu == 0 {
				mtu = 1500
			}
			got := negotiate(tt.asked, limits{
				size: 12345, window: 16, timeout: time.Second, block: func() int { return mtu - ipv4Overhead },
			})
			if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(terms{})); d != "" {
				t.Error(d)
			}
		})
	}
	t.Run("windowsize switched off", func(t *testing.T) {
		got := negotiate([]option{{"windowsize", "4"}}, limits{window: 1, timeout: time.Second})
		if d := cmp.Diff(plain, got, cmp.AllowUnexported(terms{})); d != "" {
			t.Error(d)
		}
	})
}
