package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
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

// slow is a Source that opens "slow-N" as "size-N", but not before it is let, whatever ctx says. Of "read-N" it reads
// the second block as slowly.
type slow struct {
	Source
	t    *testing.T
	runs chan string
	let  chan struct{}
}

func (s slow) Open(ctx context.Context, r Request) (Content, error) {
	how, size, _ := strings.Cut(r.Name, "-")
	name := r.Name
	r.Name = "size-" + size
	if how == "slow" {
		s.runs <- name
		<-s.let
	}
	c, err := s.Source.Open(ctx, r)
	if how == "read" {
		c = slowFile{c, s}
	}
	return c, err
}

type slowFile struct {
	Content
	slow
}

func (f slowFile) ReadAt(b []byte, off int64) (int, error) {
	if off == 512 {
		f.runs <- "read"
		<-f.let
	}
	return f.Content.ReadAt(b, off)
}

// wants waits until one of the slow things is begun.
func (s slow) wants(name string) {
	s.t.Helper()
	select {
	case got := <-s.runs:
		if got != name {
			s.t.Errorf("%s is begun, want %s", got, name)
		}
	case <-time.After(clientPatience):
		close(s.let)
		s.t.Fatalf("%s is not begun", name)
	}
}

// TestSinglePortSlowFile: a file that is long in being opened is not sent to a client that has gone on to another one.
func TestSinglePortSlowFile(t *testing.T) {
	begin := func(t *testing.T) (*house, *client, slow) {
		s := slow{sized(), t, make(chan string, 10), make(chan struct{})}
		h := serve(t, func(c *Config) { c.SinglePort, c.Source = true, s })
		return h, h.client(), s
	}
	movedOn := func(t *testing.T, h *house) {
		t.Helper()
		if tr := h.ended(); tr.Outcome != OutcomeAborted || tr.Err == nil || !errors.Is(tr.Err, errMovedOn) {
			t.Errorf("%+v", tr)
		}
	}
	t.Run("the older one is opened last", func(t *testing.T) {
		h, c, s := begin(t)
		c.ask(request("slow-5000", "octet"))
		s.wants("slow-5000")
		c.ask(request("size-1000", "octet"))
		c.want("the newer", "DATA 1 (512)")
		s.let <- struct{}{}
		movedOn(t, h)
		c.ack(1)
		c.want("and nothing of the older", "DATA 2 (488)")
		c.ack(2)
		h.ended()
	})
	t.Run("the newer one is over by then", func(t *testing.T) {
		h, c, s := begin(t)
		c.ask(request("slow-5000", "octet"))
		s.wants("slow-5000")
		got, _ := c.get("size-1000")
		same(t, got, 1000)
		h.ended()
		s.let <- struct{}{}
		movedOn(t, h)
		c.ask("\x00\x09")
		c.want("nothing of the older", "ERROR 4 unknown operation")
	})
	t.Run("the older one does not exist", func(t *testing.T) {
		h, c, s := begin(t)
		c.ask(request("slow-missing", "octet"))
		s.wants("slow-missing")
		c.ask(request("size-1000", "octet"))
		c.want("the newer", "DATA 1 (512)")
		s.let <- struct{}{}
		for h.Stats().Active > 1 {
			runtime.Gosched()
		}
		c.ack(1)
		c.want("which no ERROR ends", "DATA 2 (488)")
		c.ack(2)
		h.ended()
	})
	t.Run("the newer one is the slow one", func(t *testing.T) {
		h, c, s := begin(t)
		c.ask(request("size-5000", "octet"))
		c.want("the older", "DATA 1 (512)")
		c.ask(request("slow-1000", "octet"))
		movedOn(t, h)
		c.ack(1) // to the older one, too late
		s.let <- struct{}{}
		c.want("the newer", "DATA 1 (512)")
		c.ack(1)
		c.want("from its beginning", "DATA 2 (488)")
		c.ack(2)
		h.ended()
	})
	t.Run("the older one is being read", func(t *testing.T) {
		h, c, s := begin(t)
		c.ask(request("read-5000", "octet"))
		c.want("the older", "DATA 1 (512)")
		c.ack(1)
		s.wants("read")
		c.ask(request("size-1000", "octet"))
		c.want("the newer", "DATA 1 (512)")
		s.let <- struct{}{}
		movedOn(t, h)
		c.ack(1)
		c.want("and nothing of the older", "DATA 2 (488)")
		c.ack(2)
		h.ended()
	})
	t.Run("back to the older one", func(t *testing.T) {
		h, c, s := begin(t)
		for _, name := range []string{"slow-5000", "slow-1000", "slow-5000"} {
			c.ask(request(name, "octet"))
			s.wants(name)
		}
		close(s.let)
		c.want("once", "DATA 1 (512)")
		c.say(5, 0, "enough\x00")
		for range 3 {
			h.ended()
		}
		c.ask("\x00\x09")
		c.want("and no more", "ERROR 4 unknown operation")
	})
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
