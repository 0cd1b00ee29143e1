package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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

// dhcp finds how many exchanges a second each server serves, each with a lease that is
// kept, and what one costs. perfdhcp plays a relay agent with machines behind it.
func dhcp(ctx context.Context, r *rig) ([]result, error) {
	var out []result
	for _, s := range []struct {
		name  string
		start func(context.Context) (*server, error)
		rates []int
	}{
		{"bootlane", func(ctx context.Context) (*server, error) { return r.serve(ctx, "") }, []int{1000, 2000, 4000, 5000, 6000, 7000, 8000, 9000, 10000}},
		{"kea memfile", r.kea, []int{1000, 2000, 4000, 5000, 6000, 7000, 8000, 9000}},
		{"dnsmasq", r.dnsmasqDHCP, []int{100, 200, 400, 800}},
	} {
		best, err := r.ladder(ctx, s.name, s.start, s.rates)
		if err != nil {
			return out, err
		}
		out = append(out, best)
		if best.Rate == 0 {
			continue
		}
		over, err := r.overload(ctx, s.start, best)
		if err != nil {
			return out, err
		}
		out = append(out, over)
	}
	return out, nil
}

// overload offers four times of what a server can serve.
func (r *rig) overload(ctx context.Context, start func(context.Context) (*server, error), best result) (result, error) {
	s, err := start(ctx)
	if err != nil {
		return best, err
	}
	got, lost, err := r.perfdhcp(ctx, s, 4*int(best.Rate))
	if stopped := s.stop(); err == nil {
		err = stopped
	}
	fmt.Printf("dhcp %-12s offered %5d: %5.0f/s, %.2f %% lost, %.1f us CPU, %s\n", best.Server, 4*int(best.Rate), got.Rate, lost, got.CPU, got.Note)
	got.Bench, got.Server, got.Load, got.Unit, got.PerWhat = best.Bench, best.Server, "four times as many", best.Unit, best.PerWhat
	got.Note = fmt.Sprintf("%.0f %% of the rate above", 100*got.Rate/best.Rate)
	return got, err
}

// ladder raises the rate until more than the rule allows is lost, with a new server for
// each step.
func (r *rig) ladder(ctx context.Context, name string, start func(context.Context) (*server, error), rates []int) (best result, err error) {
	best = result{Bench: "dhcp", Server: name, Load: "4-way, relayed, PXE", Unit: "exchanges/s", PerWhat: "exchange", Note: "none of the rates tried was served"}
	for _, rate := range rates {
		s, err := start(ctx)
		if err != nil {
			return best, err
		}
		got, lost, err := r.perfdhcp(ctx, s, rate)
		if stopped := s.stop(); err == nil {
			err = stopped
		}
		if err != nil {
			return best, err
		}
		fmt.Printf("dhcp %-12s offered %5d: %5.0f/s, %.2f %% lost, %.1f us CPU, %s\n", name, rate, got.Rate, lost, got.CPU, got.Note)
		if lost > most {
			return best, nil
		}
		got.Bench, got.Server, got.Load, got.Unit, got.PerWhat = best.Bench, best.Server, best.Load, best.Unit, best.PerWhat
		best = got
	}
	return best, nil
}

func (r *rig) perfdhcp(ctx context.Context, s *server, rate int) (result, float64, error) {
	before, err := s.cpu()
	if err != nil {
		return result{}, 0, err
	}
	args := append([]string{"perfdhcp", "-4", "-r", strconv.Itoa(rate), "-p", strconv.Itoa(r.seconds), "-R", "1000000", "-l", clientLink}, append(pxeOptions, serverIP)...)
	text, _, err := r.client(ctx, args...)
	if err != nil {
		return result{}, 0, err
	}
	after, err := s.cpu()
	if err != nil {
		return result{}, 0, fmt.Errorf("%s ended under load: %w", s.name, err)
	}
	worst := 0.0
	for _, m := range ratioLine.FindAllStringSubmatch(text, -1) {
		v, _ := strconv.ParseFloat(m[1], 64) // the pattern admits numbers only
		worst = max(worst, v)
	}
	got, avg := last(gotLine, text), last(avgLine, text)
	if got == 0 {
		return result{}, 100, nil
	}
	return result{Rate: last(rateLine, text), CPU: float64((after - before).Microseconds()) / got, Note: fmt.Sprintf("ACK after %.2f ms on average", avg), Command: strings.Join(args, " ")}, worst, nil
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
