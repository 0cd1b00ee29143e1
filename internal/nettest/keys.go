package nettest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Tang is Debian's own Tang server on loopback, which serves one connection, on its input and output.
type Tang struct {
	net.Listener
	URL        string
	Thumbprint string
	Keys       string // their directory
}

// StartTang starts one that has keys of its own.
func StartTang(t testing.TB) *Tang {
	t.Helper()
	keys := t.TempDir()
	if out, err := exec.Command("/usr/libexec/tangd-keygen", keys).CombinedOutput(); err != nil {
		t.Fatalf("%v %s (packages tang, jose)", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f, err := conn.(*net.TCPConn).File()
			if err == nil {
				cmd := exec.Command("/usr/libexec/tangd", keys)
				cmd.Stdin, cmd.Stdout = f, f
				_ = cmd.Run() // the client says what it did not get
				_ = f.Close()
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	out, err := exec.Command("tang-show-keys", port).Output()
	if err != nil {
		t.Fatal(err)
	}
	return &Tang{l, "http://127.0.0.1:" + port, strings.TrimSpace(string(out)), keys}
}

// String is the server as the inventory names it.
func (s *Tang) String() string { return s.URL + "#" + s.Thumbprint }

// StartTPM starts a TPM 2.0 of software, until the function that it returns is called: the same
// one as before where the directory has its state. It listens at the socket, as the tools' TCTI
// `swtpm:path=SOCKET` has it.
func StartTPM(t testing.TB, state string) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(state, "sock")
	if err := errors.Join(os.MkdirAll(state, 0o755), os.RemoveAll(socket)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (package swtpm)", err)
	}
	Eventually(t, "the TPM listens", func() bool { _, err := os.Stat(socket); return err == nil })
	return socket, func() {
		_ = cmd.Process.Kill() // it may have ended, and then there is nothing to end
		_ = cmd.Wait()
	}
}

// Decrypt returns the content of a LUKS2 container of AES-XTS, decrypted by OpenSSL with its key, which lies in
// a file of its own.
func Decrypt(t testing.TB, container, key string) []byte {
	t.Helper()
	const program = `
import sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
key = open(sys.argv[2], 'rb').read()
data = open(sys.argv[1], 'rb'); data.seek(16 << 20)
n = 0
while sector := data.read(512):
    d = Cipher(algorithms.AES(key), modes.XTS(n.to_bytes(16, 'little'))).decryptor()
    sys.stdout.buffer.write(d.update(sector) + d.finalize())
    n += 1
`
	out, err := exec.Command("/usr/bin/python3", "-c", program, container, key).Output()
	if err != nil {
		t.Fatalf("%v (package python3-cryptography)", err)
	}
	return out
}
