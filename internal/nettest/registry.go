package nettest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Registry starts Debian's docker-registry on loopback, and returns its address. more is put
// at the end of its configuration, which is that of its HTTP server.
func Registry(t testing.TB, more string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nhttp:\n  addr: %s\n%s", dir, addr, more)
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", dir+"/config.yml")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install Debian's docker-registry (scripts/setup)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it is ours, and has no other end
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry:\n%s", &log)
		}
	})
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close() // it listens
			return addr
		}
		time.Sleep(50 * time.Millisecond) // another process starts: there is nothing to wait on
	}
	t.Fatal("docker-registry does not listen")
	return ""
}
