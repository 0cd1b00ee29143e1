package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

// TestSinglePort downloads from the port that was asked, several at once, over a path that loses packets.
func TestSinglePort(t *testing.T) {
	h := serve(t, func(c *Config) { c.SinglePort, c.Timeout = true, 0 })
	var wg sync.WaitGroup
	for i := range 6 {
		c := h.client()
		wg.Go(func() {
			lost := map[int64]bool{}
			c.letData = func(n int64) bool { once := n%17 == int64(i) && !lost[n]; lost[n] = true; return !once }
			size := int64(20000 + i)
			got, _ := c.get(fmt.Sprintf("size-%d", size), "blksize", "512", "windowsize", fmt.Sprint(1+i))
			same(t, got, size)
			if c.tid != h.Addr() {
				t.Errorf("answered from %s", c.tid)
			}
		})
	}
	wg.Wait()
	for range 6 {
		if tr := h.ended(); tr.Outcome != OutcomeComplete {
			t.Errorf("%+v", tr)
		}
	}
	// EDK2 asks for the size, hangs up, and asks again, here from the same port.
	c := h.client()
	c.ask(request("size-700", "octet", "tsize", "0"))
	c.want("probe", "OACK tsize=700")
	c.ask("\x00\x05\x00\x08User aborted\x00")
	if tr := h.ended(); tr.Outcome != OutcomeProbe {
		t.Errorf("%+v", tr)
	}
	got, _ := c.get("size-900")
	same(t, got, 900)
	h.ended()
	c.ask("\x00\x04\x00\x02") // once more, too late
	got, _ = c.get("size-901")
	same(t, got, 901)
}

// TestSinglePortNextFile: who asks for another file from the same port wants no more of the first.
func TestSinglePortNextFile(t *testing.T) {
	h := serve(t, func(c *Config) { c.SinglePort = true })
	c := h.client()
	c.ask(request("size-5000", "octet"))
	c.want("first file", "DATA 1 (512)")
	c.ask(request("size-1000", "octet"))
	c.want("second file", "DATA 1 (512)")
	if first := h.ended(); first.Size != 5000 || first.Outcome != OutcomeAborted || !errors.Is(first.Err, errMovedOn) {
		t.Errorf("%+v", first)
	}
	c.ack(1)
	c.want("and nothing about the first", "DATA 2 (488)")
	c.ack(2)
	outcomes := map[int64]Outcome{}
	tr := h.ended()
	outcomes[tr.Size] = tr.Outcome
	if outcomes[1000] != OutcomeComplete {
		t.Errorf("%v", outcomes)
	}
}

func TestMaxBlock(t *testing.T) {
	h := serve(t, func(c *Config) { c.MaxBlock = 1024 })
	c := h.client()
	got, oack := c.get("size-5000", "blksize", "1468")
	same(t, got, 5000)
	if oack != "OACK blksize=1024" {
		t.Errorf("%s", oack)
	}
	if _, err := New(Config{Source: sized(), Now: hourly(), MaxBlock: 100}); err == nil || !strings.Contains(err.Error(), "MaxBlock 100") {
		t.Errorf("%v", err)
	}
}

// texts answers with the name itself.
type texts struct{}

type text struct{ *strings.Reader }

func (text) Close() error { return nil }

func (texts) Open(_ context.Context, r Request) (Content, error) {
	return text{strings.NewReader(strings.ReplaceAll(r.Name, "/", "\n"))}, nil
}

// TestNetascii: TF-20, the line ends of RFC 764, and no more than a text.
func TestNetascii(t *testing.T) {
	h := serve(t, func(c *Config) { c.Source = texts{} })
	for mode, want := range map[string]string{"octet": "a\nb\nc", "NetASCII": "a\r\nb\r\nc"} {
		c := h.client()
		c.ask(request("a/b/c", mode, "tsize", "0"))
		c.want("size", fmt.Sprintf("OACK tsize=%d", len(want)))
		c.ack(0)
		if r := c.next(); string(r.body) != want {
			t.Errorf("%s: %q, want %q", mode, r.body, want)
		}
		c.ack(1)
		h.ended()
	}
	c, err := toNetascii(text{strings.NewReader("a\rb")})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size())); err != nil || string(b) != "a\r\x00b" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestNetasciiLoader: a loader in that mode would be damaged, and is refused with the way out. Done is told, as of
// everything that was opened.
func TestNetasciiLoader(t *testing.T) {
	h := serve(t, nil)
	d := h.client()
	d.ask(request(fmt.Sprintf("size-%d", maxNetascii+1), "netascii"))
	d.want("a loader", "ERROR 4 mode netascii is for texts of up to 1024 KiB: ask for octet")
	var refused *Error
	if tr := h.ended(); tr.Outcome != OutcomeAborted || !errors.As(tr.Err, &refused) || refused.Code != CodeIllegal {
		t.Errorf("%+v", tr)
	}
}
