package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"bootlane/internal/lane"
)

const (
	stallLimit   = 60 * time.Second // a connection that moves no byte for this long is dead
	dialLimit    = 10 * time.Second
	reasonBytes  = 4 << 10 // of an error answer that is read and shown
	orderBytes   = 8 << 20
	messageBytes = 500 // of a report; part of the wire contract
	firstBackoff = time.Second
	lastBackoff  = 15 * time.Second
)

// refusal is an answer that asking again will not change.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the server answered %d %s: %s", r.status, http.StatusText(r.status), lane.Clean(strings.ReplaceAll(r.reason, "\n", "; "), 400))
}

// client speaks to the one server that the kernel command line names.
type client struct {
	base  *url.URL
	http  *http.Client
	now   func() time.Time
	sleep func(context.Context, time.Duration) error
	log   *Log
	who   url.Values // identity fields of every report

	mu    sync.Mutex
	seq   map[lane.Stage]int
	stage lane.Stage // of the last report
}

func newClient(base *url.URL, hw lane.Hardware, cfg Config, log *Log) *client {
	who := url.Values{}
	for name, v := range map[string]string{lane.ReportUUID: string(hw.UUID), lane.ReportMAC: string(hw.BootMAC), lane.ReportSerial: hw.Serial} {
		if v != "" {
			who.Set(name, v)
		}
	}
	dialer := &net.Dialer{Timeout: dialLimit}
	transport := &http.Transport{
		DisableCompression: true, // the digest is of the bytes on the wire
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, now: cfg.Now, limit: stallLimit}, nil
		},
		ReadBufferSize: 256 << 10,
		// A kept connection to a server that was restarted costs one more failure.
		IdleConnTimeout: 5 * time.Second,
	}
	refuseRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{
		base: base, now: cfg.Now, sleep: cfg.Sleep, log: log, who: who,
		http: &http.Client{Transport: transport, CheckRedirect: refuseRedirect},
		seq:  map[lane.Stage]int{}, stage: lane.StageKernel,
	}
}

// stallConn gives every read and write of a connection its own time limit: an
// image may take hours, but a server that vanished without a word must be noticed.
type stallConn struct {
	net.Conn
	now   func() time.Time
	limit time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(c.now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(c.now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// retry runs try until it succeeds, is refused, or limit has passed.
func (c *client) retry(ctx context.Context, what string, limit time.Duration, try func() error) error {
	began, wait := c.now(), firstBackoff
	for n := 1; ; n++ {
		err := try()
		var no *refusal
		if err == nil || errors.As(err, &no) || ctx.Err() != nil {
			return err
		}
		if c.now().Add(wait).Sub(began) > limit {
			return fmt.Errorf("%s: gave up after %d tries: %w", what, n, err)
		}
		c.log.Step("%s: try %d: %v; again in %s", what, n, err, wait)
		if serr := c.sleep(ctx, wait); serr != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		wait = min(2*wait, lastBackoff)
	}
}

// checkStatus turns an answer that is not want into an error: a [refusal] when
// the server understood and said no, otherwise one that is worth another try.
func checkStatus(resp *http.Response, want ...int) error {
	for _, w := range want {
		if resp.StatusCode == w {
			return nil
		}
	}
	reason, _ := io.ReadAll(io.LimitReader(resp.Body, reasonBytes)) // what came of it is better than nothing
	no := &refusal{resp.StatusCode, string(reason)}
	switch {
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooManyRequests:
		return errors.New(no.Error())
	}
	return no
}

// report posts one report and returns when the server has acknowledged it.
func (c *client) report(ctx context.Context, stage lane.Stage, status, message string, limit time.Duration) error {
	form := c.form(stage, status, message, 0, 0)
	return c.retry(ctx, fmt.Sprintf("report %s %s", stage, status), limit, func() error { return c.post(ctx, form) })
}

// fail posts that the work ended badly, in the stage of the last report.
func (c *client) fail(ctx context.Context, err error) error {
	c.mu.Lock()
	stage := c.stage
	c.mu.Unlock()
	return c.report(ctx, stage, lane.StatusFailed, err.Error(), failPatient)
}

// progress posts one progress report and does not insist on it.
func (c *client) progress(ctx context.Context, message string, done, total int64) error {
	return c.post(ctx, c.form(lane.StageInstaller, lane.StatusProgress, message, done, total))
}

// form builds a report. Its sequence number is taken once: when the answer to a
// report is lost, the same report is sent again.
func (c *client) form(stage lane.Stage, status, message string, done, total int64) url.Values {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq[stage]++
	c.stage = stage
	form := url.Values{}
	for k, v := range c.who {
		form[k] = v
	}
	form.Set(lane.ReportStage, string(stage))
	form.Set(lane.ReportSeq, strconv.Itoa(c.seq[stage]))
	form.Set(lane.ReportStatus, status)
	form.Set(lane.ReportMessage, lane.Clean(strings.ReplaceAll(message, "\n", "; "), messageBytes))
	if status == lane.StatusProgress {
		form.Set(lane.ReportDone, strconv.FormatInt(done, 10))
		form.Set(lane.ReportTotal, strconv.FormatInt(total, 10))
	}
	return form
}

func (c *client) post(ctx context.Context, form url.Values) error {
	resp, err := c.send(ctx, "report", "application/x-www-form-urlencoded", []byte(form.Encode()))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return checkStatus(resp, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent)
}

func (c *client) send(ctx context.Context, name, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath(name).String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	return c.do(req)
}

// do sends a request. The URL of its error is taken away: the run's capability is
// in it, and the console and the server's log are no place for that.
func (c *client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	var long *url.Error
	if errors.As(err, &long) {
		return nil, long.Err
	}
	return resp, err
}

// order posts what the machine is made of and returns what the server orders.
func (c *client) order(ctx context.Context, hw lane.Hardware) (lane.Order, error) {
	body, err := json.Marshal(hw)
	if err != nil {
		return lane.Order{}, fmt.Errorf("encode the hardware: %w", err)
	}
	var order lane.Order
	err = c.retry(ctx, "order", serverPatient, func() error {
		text, err := c.answer(ctx, "order", body)
		if err != nil {
			return err
		}
		order, err = decodeOrder(text)
		return err
	})
	return order, err
}

// answer posts JSON and returns what comes back with 200, one byte more than is taken at most.
func (c *client) answer(ctx context.Context, name string, body []byte) ([]byte, error) {
	resp, err := c.send(ctx, name, "application/json", body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, orderBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer to the %s: %w", name, err)
	}
	return text, nil
}

// decodeOrder reads an order that arrived whole. One that makes no sense is a
// refusal: the server will not write it better the next time.
func decodeOrder(text []byte) (lane.Order, error) {
	if len(text) > orderBytes {
		return lane.Order{}, &refusal{http.StatusOK, fmt.Sprintf("an order of more than %d bytes", orderBytes)}
	}
	var order lane.Order
	if err := json.Unmarshal(text, &order); err != nil {
		return lane.Order{}, &refusal{http.StatusOK, "not an order: " + err.Error()}
	}
	return order, nil
}
