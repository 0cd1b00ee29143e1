package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// PXE options of OVMF, as perfdhcp wants them.
var pxeOptions = []string{"-o", "60,505845436c69656e743a417263683a30303030373a554e44493a303033303030", "-o", "93,0007", "-o", "94,010300"}

var (
	rateLine  = regexp.MustCompile(`Rate: ([0-9.]+) 4-way`)
	ratioLine = regexp.MustCompile(`drops ratio: ([0-9.]+)`)
	avgLine   = regexp.MustCompile(`avg delay: ([0-9.]+)`)
	gotLine   = regexp.MustCompile(`received packets: ([0-9]+)`)
)

// most is Kea's own rule: a rate counts as served with at most so many per cent lost.
const most = 2.5

// tried is one under test, and the rates that are tried with it.
type tried struct {
	name  string
	start func(context.Context) (*server, error)
	rates []int
}

// dhcp finds how many exchanges a second each server serves, each with a lease that is
// kept, and what one costs. perfdhcp plays a relay agent with machines behind it.
func dhcp(ctx context.Context, r *rig) ([]result, error) {
	var out []result
	ours := func(ctx context.Context) (*server, error) { return r.serve(ctx, "") }
	for _, s := range []tried{
		{"bootlane", ours, []int{1000, 2000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 11000, 12000}},
		{"kea memfile", r.kea, []int{1000, 2000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 11000, 12000}},
		{"dnsmasq", r.dnsmasqDHCP, []int{100, 200, 400, 800}},
	} {
		best, err := r.ladder(ctx, s)
		if err != nil {
			return out, err
		}
		out = append(out, best)
		if best.Rate == 0 {
			continue
		}
		over, err := r.load(ctx, s, 4*int(best.Rate), "four times as many")
		if err != nil {
			return out, err
		}
		over.Note += fmt.Sprintf(", %.0f %% of the rate above", 100*over.Rate/best.Rate)
		out = append(out, over)
		if s.name == "kea memfile" { // where it is at its best, how long does each keep a machine waiting?
			same, err := r.load(ctx, tried{name: "bootlane", start: ours}, int(best.Rate+0.5), "at Kea's maximum")
			if err != nil {
				return out, err
			}
			out = append(out, same)
		}
	}
	return out, nil
}

// ladder raises the rate until more than the rule allows is lost.
func (r *rig) ladder(ctx context.Context, s tried) (result, error) {
	const load = "4-way, relayed, PXE"
	best := result{Bench: "dhcp", Server: s.name, Load: load, Unit: "exchanges/s", PerWhat: "exchange", Note: "none of the rates tried was served"}
	for _, rate := range s.rates {
		got, err := r.load(ctx, s, rate, load)
		if err != nil {
			return best, err
		}
		if got.lost > most {
			break
		}
		best = got
	}
	return best, nil
}

// load offers a server, started anew, exchanges at a rate.
func (r *rig) load(ctx context.Context, d tried, rate int, name string) (result, error) {
	s, err := d.start(ctx)
	if err != nil {
		return result{}, err
	}
	got, err := r.perfdhcp(ctx, s, rate)
	if stopped := s.stop(); err == nil {
		err = stopped
	}
	got.Bench, got.Server, got.Load, got.Unit, got.PerWhat = "dhcp", d.name, name, "exchanges/s", "exchange"
	fmt.Printf("dhcp %-12s offered %5d: %5.0f/s, %.2f %% lost, %.1f us CPU, %s\n", d.name, rate, got.Rate, got.lost, got.CPU, got.Note)
	return got, err
}

func (r *rig) perfdhcp(ctx context.Context, s *server, rate int) (result, error) {
	before, err := s.cpu()
	if err != nil {
		return result{}, err
	}
	undo, err := roomy() // the server has opened its sockets
	if err != nil {
		return result{}, err
	}
	args := append([]string{"perfdhcp", "-4", "-r", strconv.Itoa(rate), "-p", strconv.Itoa(r.seconds), "-R", "1000000", "-l", clientLink}, append(pxeOptions, serverIP)...)
	out, err := r.client(ctx, args...)
	if err := errors.Join(err, undo()); err != nil {
		return result{}, err
	}
	after, err := s.cpu()
	if err != nil {
		return result{}, fmt.Errorf("%s ended under load: %w", s.name, err)
	}
	worst := 0.0
	for _, m := range ratioLine.FindAllStringSubmatch(out.text, -1) {
		v, _ := strconv.ParseFloat(m[1], 64) // the pattern admits numbers only
		worst = max(worst, v)
	}
	got, avg := last(gotLine, out.text), last(avgLine, out.text)
	if got == 0 {
		return result{lost: 100, Note: "nothing was answered"}, nil
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / got }
	return result{Rate: last(rateLine, out.text), CPU: each(after - before), lost: worst, Command: strings.Join(args, " "),
		Note: fmt.Sprintf("ACK after %.2f ms on average, generator %.0f us", avg, each(out.cpu))}, nil
}

func last(re *regexp.Regexp, text string) float64 {
	all := re.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return 0
	}
	v, _ := strconv.ParseFloat(all[len(all)-1][1], 64) // the pattern admits numbers only
	return v
}

func (r *rig) kea(ctx context.Context) (*server, error) {
	dir, err := r.fresh("kea")
	if err != nil {
		return nil, err
	}
	config, err := r.file("kea.json", fmt.Sprintf(`{"Dhcp4": {"interfaces-config": {"interfaces": [%q], "dhcp-socket-type": "udp"},
  "lease-database": {"type": "memfile", "persist": true, "name": %q, "lfc-interval": 0}, "valid-lifetime": 3600,
  "client-classes": [{"name": "uefi", "test": "option[93].hex == 0x0007", "next-server": %q, "boot-file-name": "snponly.efi"}],
  "subnet4": [{"id": 1, "subnet": "10.0.0.0/8", "pools": [{"pool": "10.1.0.0-10.31.255.255"}]}],
  "loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": %q}]}]}}`,
		serverLink, filepath.Join(dir, "leases.csv"), serverIP, filepath.Join(dir, "kea.log")))
	if err != nil {
		return nil, err
	}
	return r.start(ctx, "kea", "env", "KEA_LOCKFILE_DIR="+dir, "KEA_PIDFILE_DIR="+dir, "kea-dhcp4", "-c", config)
}

func (r *rig) dnsmasqDHCP(ctx context.Context) (*server, error) {
	dir, err := r.fresh("dnsmasq")
	if err != nil {
		return nil, err
	}
	return r.start(ctx, "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--no-ping", "--interface="+serverLink, "--pid-file",
		"--dhcp-range=10.1.0.0,10.31.255.255,255.0.0.0,1h", "--dhcp-lease-max=2000000", "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--dhcp-boot=snponly.efi")
}
