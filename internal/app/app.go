// Package app puts the parts together: the only package that knows everybody.
package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"bootlane/internal/api"
	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/dhcp"
	"bootlane/internal/dhcp6"
	"bootlane/internal/httpboot"
	"bootlane/internal/lane"
	"bootlane/internal/observe"
	"bootlane/internal/script"
	"bootlane/internal/store"
	"bootlane/internal/store/sqlite"
	"bootlane/internal/tftp"
)

// Files below Config.Data.
const (
	DatabaseFile = "bootlane.db"
	TokenFile    = "operator.token"
	bundleDir    = "bundles"
	pullDir      = "pull" // bundles on their way from the registry
)

// App is a whole server.
type App struct {
	Config   Config
	Operator string // address of the operators' listener
	Machines string // address of the machines' HTTP listener

	log     *slog.Logger
	store   *store.Store
	parts   []part
	control *control.Control
}

type part struct {
	name string
	run  func(context.Context) error
}

// New opens everything that can fail: database, bundles, listeners. version is
// what `bootlane version` says.
func New(ctx context.Context, cfg Config, version string, log *slog.Logger) (_ *App, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	a := &App{Config: cfg, log: log}
	engine, err := sqlite.Open(ctx, filepath.Join(cfg.Data, DatabaseFile))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, engine.Close())
		}
	}()
	if a.store, err = store.New(ctx, engine, time.Now); err != nil {
		return nil, err
	}
	bundles, err := a.openBundles()
	if err != nil {
		return nil, err
	}
	networks, err := cfg.networks()
	if err != nil {
		return nil, err
	}
	known, err := cfg.controlNetworks(networks)
	if err != nil {
		return nil, err
	}
	firmware, unread := cfg.SecureBoot.policy()
	if len(unread) > 0 {
		return nil, lane.Errorf(lane.Invalid, "%s: %s", unread[0].Field, unread[0].Message)
	}
	registry, err := cfg.bundleRegistry()
	if err != nil {
		return nil, err
	}
	ask := reach
	if !*cfg.Policy.AskMirrors {
		ask = nil
	}
	clusters, err := cfg.openClusters()
	if err != nil {
		return nil, err
	}
	a.control = control.New(control.Config{Store: journal{a.store, log, new(alarms)}, Bundles: bundles, Registry: registry, Now: time.Now, Rand: rand.Reader, Site: cfg.Site, Roles: cfg.Roles, Profiles: cfg.Profiles, BaseURL: cfg.BaseURL(""),
		Policy: cfg.Policy.rules(), InspectBundle: cfg.Policy.Inspect.Bundle, InspectThen: cfg.Policy.Inspect.Then, BundlePolicy: lane.BundlePolicy{Approval: cfg.Bundles.Approval}, Hold: script.Hold{Wait: cfg.Policy.Held.Wait, Then: cfg.Policy.Held.Then},
		HoldScreen: *cfg.Policy.Held.Screen, Loaders: cfg.platformLoaders(), GRUBByHTTP: cfg.SecureBoot.GRUBByHTTP, SecureBoot: firmware, Unpinned: cfg.Policy.Unpinned, DiskNames: cfg.Policy.DiskNames, Reach: ask, Networks: known, Clusters: clusters})
	a.parts = append(a.parts, part{"memory", collect}, part{"control", a.control.Run}, part{"pull", a.control.RunPull}, part{"joins", a.control.RunJoins})
	return a, a.listen(ctx, networks, bundles, version)
}

// listen opens the listeners and lists them as parts.
func (a *App) listen(ctx context.Context, networks []dhcp.Network, bundles *bundle.Store, version string) error {
	cfg := a.Config
	ports, err := cfg.machinePorts()
	if err != nil {
		return err
	}
	machines, err := httpboot.New(ctx, httpboot.Config{Listeners: ports, Boots: boots{a.control}, Runs: a.control, Reports: a.control, Inspects: a.control, Files: bundles, Now: time.Now, Log: a.log})
	if err != nil {
		return err
	}
	files, err := tftp.New(tftp.Config{Addr: cfg.Listen.TFTP, Source: tftpSource{a.control, cfg.BaseURL}, Now: time.Now, Log: a.log, Done: a.transferred,
		MaxBlock: cfg.TFTP.MaxBlock, MaxWindow: cfg.TFTP.MaxWindow, MaxPerClient: cfg.TFTP.MaxPerClient, SinglePort: cfg.TFTP.SinglePort})
	if err != nil {
		return err
	}
	token, err := operatorToken(filepath.Join(cfg.Data, TokenFile))
	if err != nil {
		return err
	}
	observer, err := observe.New(observe.Config{Interfaces: cfg.observed(), Evidence: a.control, Every: *cfg.Policy.ProbeEvery, Now: time.Now, Rand: rand.Reader, Log: a.log})
	if err != nil {
		return err
	}
	addresses, err := dhcp.New(ctx, dhcp.Config{Networks: networks, Asker: a.control, Leases: a.store, Reservations: a.control, Evidence: a.control, Now: time.Now, Rand: rand.Reader, Log: a.log})
	if err != nil {
		return err
	}
	addresses6, err := a.listen6(ctx)
	if err != nil {
		return err
	}
	operators, err := api.New(ctx, api.Config{Addr: cfg.Listen.Operators, Token: token, Operator: a.control, Observer: observer, DHCP: addressServers{addresses, addresses6, cfg.external()}, Log: a.log, Transfers: machines.Transfers,
		Version: api.Version{Version: version, Go: runtime.Version()}})
	if err != nil {
		return err
	}
	a.Operator, a.Machines = operators.Addr(), machines.Addr()
	a.parts = append(a.parts, part{"machines", machines.Run}, part{"operators", operators.Run}, part{"tftp", files.Run}, part{"dhcp", addresses.Run}, part{"observer", observer.Run})
	return nil
}

// listen6 opens DHCPv6, where some network has it; nil where none has.
func (a *App) listen6(ctx context.Context) (*dhcp6.Server, error) {
	networks, err := a.Config.networks6()
	if err != nil || len(networks) == 0 {
		return nil, err
	}
	duid, err := serverDUID(a.Config.duidFile(), rand.Read)
	if err != nil {
		return nil, err
	}
	server, err := dhcp6.New(ctx, dhcp6.Config{Networks: networks, DUID: duid, Asker: a.control, Leases: a.store, Reservations: a.control, Evidence: a.control, Now: time.Now, Log: a.log})
	if err != nil {
		return nil, err
	}
	a.parts = append(a.parts, part{"dhcp6", server.Run})
	return server, nil
}

// machinePorts lists the listeners for machines.
func (c Config) machinePorts() ([]httpboot.Listener, error) {
	out := []httpboot.Listener{{Addr: c.Listen.Machines, BaseURL: c.BaseURL}}
	if c.Listen.HTTPS == "" && c.Listen.LegacyHTTPS == "" {
		return out, nil
	}
	pair, err := c.machinesCertificate(time.Now())
	if err != nil {
		return nil, err
	}
	if c.Listen.HTTPS != "" {
		out = append(out, httpboot.Listener{Addr: c.Listen.HTTPS, BaseURL: c.TLSBaseURL, TLS: tlsConfig(pair, false)})
	}
	if c.Listen.LegacyHTTPS != "" {
		old := func(local string) string { return c.urlOf("https://", c.Listen.LegacyHTTPS, local) }
		out = append(out, httpboot.Listener{Addr: c.Listen.LegacyHTTPS, BaseURL: old, TLS: tlsConfig(pair, true)})
	}
	return out, nil
}

// Run runs every part until ctx ends or one fails, then the store, which must be
// the last to stop: the others still write to it while they end.
func (a *App) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	stored := make(chan error, 1)
	go func() { stored <- a.store.Run(writing) }()
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range a.parts {
		g.Go(func() error {
			if err := p.run(ctx); err != nil {
				return fmt.Errorf("run %s: %w", p.name, err)
			}
			return nil
		})
	}
	if note := a.Config.exposed(); note != "" {
		a.log.Warn(note, "operators", a.Operator)
	}
	a.log.Info("bootlane serves", "networks", a.Config.Subnets(), "machines", a.Machines, "operators", a.Operator, "data", a.Config.Data)
	err := g.Wait()
	a.log.Info("bootlane stops")
	stop()
	return errors.Join(err, <-stored, a.store.Close())
}

func (a *App) transferred(t tftp.Transfer) {
	if p, ok := lane.ParseBootPath(t.Name); ok && t.Outcome == tftp.OutcomeComplete {
		a.control.Loaded(p)
	}
	a.log.Debug("tftp transfer ended", "transfer", fmt.Sprintf("%+v", t))
}

// operatorToken reads the token, or makes one at the first start.
func operatorToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", &lane.Error{Code: lane.Unavailable, Message: "read the operators' token", Err: err}
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make the operators' token: %w", err)
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", &lane.Error{Code: lane.Unavailable, Message: "write the operators' token", Err: err}
	}
	return token, nil
}

// observed lists the interfaces to observe. Where a site's own server gives addresses
// on one, machines take that one's offers rightly.
func (c Config) observed() []observe.Interface {
	var out []observe.Interface
	for _, n := range c.Networks {
		i := slices.IndexFunc(out, func(o observe.Interface) bool { return o.Name == n.Interface })
		switch {
		case n.Interface == "":
			continue
		case i < 0:
			i = len(out)
			out = append(out, observe.Interface{Name: n.Interface, Owned: n.Mode == modeOwn})
		default:
			out[i].Owned = out[i].Owned && n.Mode == modeOwn
		}
		for _, s := range append([]string{n.Server}, n.Relays...) {
			if a, err := netip.ParseAddr(s); err == nil { // checked with the rest
				out[i].Servers = append(out[i].Servers, a)
			}
		}
	}
	return out
}

// external lists the networks whose addresses another server gives by itself.
func (c Config) external() (out []lane.NetworkUsage) {
	for _, n := range c.Networks {
		if p, err := netip.ParsePrefix(n.Subnet); err == nil && n.Mode == modeExternal { // checked with the rest
			out = append(out, lane.NetworkUsage{Network: p, Interface: cmp.Or(n.Interface, "-"), Mode: n.Mode})
		}
	}
	return out
}

// exposed says who reaches the operators' listener, which has no TLS, and what protects it;
// nothing where only this machine reaches it.
func (c Config) exposed() string {
	a, err := netip.ParseAddrPort(c.Listen.Operators)
	if err != nil || a.Addr().IsLoopback() {
		return ""
	}
	from := "from the networks that reach " + a.Addr().String()
	if a.Addr().IsUnspecified() {
		from = "from everywhere, the boot networks among it"
	}
	return fmt.Sprintf("the operators' API is reachable %s: only the token in %s protects it, and that crosses the network in clear text. Let listen.operators be a loopback address, and reach it by ssh -L or a TLS proxy", from, filepath.Join(c.Data, TokenFile))
}

// Subnets names the networks, for the log and for people.
func (c Config) Subnets() string {
	var out []string
	for _, n := range c.Networks {
		out = append(out, n.Subnet+" on "+n.Interface+" ("+n.Mode+")")
		if n.IPv6 != nil {
			out = append(out, n.IPv6.Subnet+" on "+n.Interface)
		}
	}
	return strings.Join(out, ", ")
}

// level returns the slog level of a name, or nil.
func level(name string) *slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) != nil {
		return nil
	}
	return &l
}

// NewLog returns a logger of the configured level that writes to w.
func (c Config) NewLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: *level(c.Log)}))
}
