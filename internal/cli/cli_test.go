package cli_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bootlane/internal/cli"
	"bootlane/internal/join/jointest"
	"bootlane/internal/nettest"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md and the sessions' expected output")

type inNamespace struct{ *testing.M }

func (m inNamespace) Run() int { return nettest.Main(m.M) }

func TestMain(m *testing.M) {
	testscript.Main(inNamespace{m}, map[string]func(){"bootlane": func() { os.Exit(run(os.Args[1:])) }})
}

func run(args []string) int {
	return cli.Main(context.Background(), args, cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Now: time.Now, Rand: rand.Reader, Version: "test"})
}

// TestSessions plays operators' sessions against a whole server. They run at
// once in one namespace: those with a server have ports of their own.
func TestSessions(t *testing.T) {
	cluster := jointest.New(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("BOOTLANE_TOKEN_FILE", filepath.Join(e.WorkDir, "data", "operator.token"))
			e.Setenv("BOOTLANE_OPERATOR", "alice")
			e.Setenv("TZ", "UTC")
			e.Setenv("CLUSTER_ENDPOINT", cluster.Endpoint)
			e.Setenv("CLUSTER_KUBECONFIG", cluster.Kubeconfig)
			captures, err := filepath.Abs("../pcap/testdata")
			e.Setenv("CAPTURES", captures)
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ready":         ready,
			"code":          code,
			"fetch":         fetch,
			"machine":       machine,
			"agent":         agent,
			"waitfor-armed": armed,
		},
	})
}

// ready waits until the server answers: ready [URL].
func ready(ts *testscript.TestScript, _ bool, args []string) {
	base := "http://" + nettest.Server + ":8080"
	if len(args) > 0 {
		base = args[0]
	}
	for range 600 {
		res, err := http.Get(base + "/healthz")
		if err == nil {
			ts.Check(res.Body.Close())
			return
		}
		time.Sleep(50 * time.Millisecond) // another process starts: there is nothing to wait on
	}
	ts.Fatalf("the server does not answer")
}

// code runs `bootlane` and expects an exit code: code 3 provision node1.
func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("bootlane", args[1:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("run bootlane: %v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("bootlane %s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// fetch asks the machines' port for a path, or for a URL, and prints the answer.
func fetch(ts *testscript.TestScript, _ bool, args []string) {
	if strings.HasPrefix(args[0], "/") {
		args = []string{"http://" + nettest.Server + ":8080" + args[0]}
	}
	res, err := http.Get(args[0])
	ts.Check(err)
	buf := new(strings.Builder)
	ts.Check(res.Write(buf))
	ts.Check(res.Body.Close())
	_, err = ts.Stdout().Write([]byte(buf.String()))
	ts.Check(err)
}

// agent plays an agent that looks at its machine: agent URL-OF-SCRIPT HARDWARE.json takes the
// script, and tells what stands in the file under the ticket that the script leads to. It
// prints the answer.
func agent(ts *testscript.TestScript, _ bool, args []string) {
	res, err := http.Get(args[0])
	ts.Check(err)
	body, err := io.ReadAll(res.Body)
	ts.Check(errors.Join(err, res.Body.Close()))
	_, rest, ok := strings.Cut(string(body), "bootlane.inspect=")
	if !ok {
		ts.Fatalf("the script leads to no agent:\n%s", body)
	}
	res, err = http.Post(strings.Fields(rest)[0]+"/report", "application/json", strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	_, err = io.Copy(ts.Stdout(), res.Body)
	ts.Check(errors.Join(err, res.Body.Close()))
}

// machine plays a machine's installer: machine URL-OF-SCRIPT STAGE:STATUS... takes
// the script, and reports each stage under the run that the script leads to. What stands
// behind the status is a file with the list of checks.
func machine(ts *testscript.TestScript, _ bool, args []string) {
	base := "http://" + nettest.Server + ":8080"
	res, err := http.Get(base + args[0])
	ts.Check(err)
	body, err := io.ReadAll(res.Body)
	ts.Check(errors.Join(err, res.Body.Close()))
	_, rest, ok := strings.Cut(string(body), "bootlane.url=")
	if !ok {
		ts.Fatalf("no install script:\n%s", body)
	}
	run := strings.Fields(rest)[0]
	for _, a := range args[1:] {
		stage, status, _ := strings.Cut(a, ":")
		form := url.Values{"stage": {stage}, "seq": {"1"}, "message": {"played by a test"}, "done": {"5"}, "total": {"10"}}
		status, checks, _ := strings.Cut(status, ":")
		if form.Set("status", status); checks != "" {
			form.Set("checks", ts.ReadFile(checks))
		}
		res, err := http.PostForm(run+"/report", form)
		ts.Check(err)
		ts.Check(res.Body.Close())
		if res.StatusCode != http.StatusOK {
			ts.Fatalf("report %s: %s", a, res.Status)
		}
	}
}

// armed waits until node1 has an open run.
func armed(ts *testscript.TestScript, _ bool, _ []string) {
	for range 600 {
		if ts.Exec("bootlane", "host", "show", "node1") == nil && strings.Contains(ts.ReadFile("stdout"), "open until") {
			return
		}
		time.Sleep(50 * time.Millisecond) // another process provisions: there is nothing to wait on
	}
	ts.Fatalf("node1 is not provisioned")
}
