package agent

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"bootlane/internal/lane"
)

// Log is what a person sees on the machine's screen or serial line: one line a
// step, each with the seconds since the agent started.
type Log struct {
	mu    sync.Mutex
	w     io.Writer
	now   func() time.Time
	start time.Time
}

// NewLog starts a log on w.
func NewLog(w io.Writer, now func() time.Time) *Log {
	return &Log{w: w, now: now, start: now()}
}

// Banner prints the heading.
func (l *Log) Banner(text string) {
	l.raw("\r\n" + strings.Repeat("=", 72) + "\r\n " + lane.Clean(text, 70) + "\r\n" + strings.Repeat("=", 72) + "\r\n")
}

// Step prints one line about what is happening.
func (l *Log) Step(format string, args ...any) { l.line("", format, args...) }

// Fail prints one line about what went wrong.
func (l *Log) Fail(format string, args ...any) { l.line("FAILED: ", format, args...) }

// line cleans what it prints: parts of it come from the network and from disks,
// and a terminal obeys escape sequences.
func (l *Log) line(prefix, format string, args ...any) {
	text := lane.Clean(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "), 600)
	l.raw(fmt.Sprintf("[%6.1fs] %s%s\r\n", l.now().Sub(l.start).Seconds(), prefix, text))
}

// raw ignores write errors: a console that is gone must not stop an installation.
func (l *Log) raw(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, s)
}
