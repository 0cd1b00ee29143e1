package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKillReachesChildren: of a server that hands each connection to a child, nothing stays.
func TestKillReachesChildren(t *testing.T) {
	l := &Lab{dir: t.TempDir()}
	file := filepath.Join(l.dir, "child")
	p, err := l.spawn(filepath.Join(l.dir, "log"), "sh", "-c", `sleep 60 & echo $! > "$1"; wait`, "sh", file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	var child int
	for range 200 {
		text, _ := os.ReadFile(file)
		if _, err := fmt.Sscan(string(text), &child); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if child == 0 || syscall.Kill(child, 0) != nil {
		t.Fatalf("no child was started: %d", child)
	}
	p.kill()
	for range 200 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil || strings.Contains(string(stat), ") Z ") { // whoever adopted it may be slow to notice
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(child, syscall.SIGKILL)
	t.Errorf("the child %d runs on", child)
}
