package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bootlane/internal/bundle"
	"bootlane/internal/control"
	"bootlane/internal/lane"
	"bootlane/internal/pull"
	"bootlane/internal/registry"
	"bootlane/internal/trust"
)

// Bundles says which bundles the site installs.
type Bundles struct {
	// Trust is the trust file: the keys that must have signed a bundle. Empty: nobody must.
	Trust string `yaml:"trust,omitempty"`
	// Approval admits only bundles that an operator has approved.
	Approval bool `yaml:"approval,omitempty"`
	// Registry is HOST[:PORT]/PATH, where bundles are fetched that the store lacks. Empty: nowhere.
	Registry string `yaml:"registry,omitempty"`
	// RegistryCA is a file with certificates that are trusted besides the system's.
	RegistryCA string `yaml:"registryCA,omitempty"`
	// RegistryPlainHTTP goes to the registry without TLS.
	RegistryPlainHTTP bool `yaml:"registryPlainHTTP,omitempty"`
}

// trustInForce, below Config.Data, is the trust file that was accepted last.
const trustInForce = "trust.yaml"

// check reads the files that are named here.
func (b Bundles) check() []lane.Problem { return append(b.checkTrust(), b.checkRegistry()...) }

// checkRegistry looks for what would keep the registry from being asked. It is not asked.
func (b Bundles) checkRegistry() (out []lane.Problem) {
	bad := func(field, message string) {
		out = append(out, lane.Problem{Field: "bundles." + field, Message: message})
	}
	switch {
	case b.Registry == "" && b.RegistryCA != "":
		bad("registryCA", "without bundles.registry there is nobody to trust: give that too")
	case b.Registry == "" && b.RegistryPlainHTTP:
		bad("registryPlainHTTP", "without bundles.registry there is nobody to ask: give that too")
	case b.RegistryCA != "" && b.RegistryPlainHTTP:
		bad("registryCA", "is of no use without TLS: give it, or registryPlainHTTP")
	case b.Registry != "":
		if _, err := b.source(""); err != nil {
			field := "registry"
			if e := new(os.PathError); errors.As(err, &e) || b.RegistryCA != "" && strings.Contains(err.Error(), "PEM") {
				field = "registryCA"
			}
			bad(field, err.Error())
		}
	}
	return out
}

// source is the registry, below Config.Data.
func (b Bundles) source(data string) (*pull.Source, error) {
	o := registry.Options{PlainHTTP: b.RegistryPlainHTTP}
	if b.RegistryCA != "" {
		var err error
		if o.CA, err = os.ReadFile(b.RegistryCA); err != nil {
			return nil, err
		}
	}
	return pull.New(pull.Config{Registry: b.Registry, Options: o, Dir: filepath.Join(data, pullDir)})
}

// bundleSource is the registry as control wants it.
type bundleSource struct{ *pull.Source }

// Find is [control.Registry]'s.
func (s bundleSource) Find(ctx context.Context, name, version string) (control.Offer, error) {
	o, err := s.Source.Find(ctx, name, version)
	if err != nil {
		return nil, err
	}
	return o, nil
}

// bundleRegistry returns the registry of the configuration, nil where it names none.
func (c Config) bundleRegistry() (control.Registry, error) {
	if c.Bundles.Registry == "" {
		return nil, nil
	}
	s, err := c.Bundles.source(c.Data)
	if err != nil {
		return nil, err
	}
	return bundleSource{s}, nil
}

// checkTrust reads the trust file.
func (b Bundles) checkTrust() []lane.Problem {
	if b.Trust == "" {
		return nil
	}
	data, err := os.ReadFile(b.Trust)
	if err != nil {
		return []lane.Problem{{Field: "bundles.trust", Message: err.Error()}}
	}
	_, err = trust.Parse(b.Trust, data)
	var e *lane.Error
	if !errors.As(err, &e) {
		return nil
	}
	var out []lane.Problem
	for _, p := range append([]string{e.Message}, e.Problems...) {
		out = append(out, lane.Problem{Field: "bundles.trust", Message: p})
	}
	return out
}

// unsigned says what it means that nobody must sign; nothing: somebody must.
func (b Bundles) unsigned() string {
	if b.Trust == "" {
		return "bundles need no signature: whoever can import one can have it installed. bundles.trust names the keys that must have signed, docs/bundles.md"
	}
	return ""
}

// trustPending says why the trust file would not take the place of the one in force, or nothing.
func (c Config) trustPending(now time.Time) string {
	if c.Bundles.Trust == "" {
		return ""
	}
	return trust.Pending(c.Bundles.Trust, filepath.Join(c.Data, trustInForce), now)
}

// openBundles opens the bundle store, and lists its background work as a part.
func (a *App) openBundles() (*bundle.Store, error) {
	var keeper *trust.Keeper
	if file := a.Config.Bundles.Trust; file != "" {
		var err error
		if keeper, err = trust.Open(file, filepath.Join(a.Config.Data, trustInForce), time.Now); err != nil {
			return nil, err
		}
	} else {
		a.log.Warn(a.Config.Bundles.unsigned())
	}
	s, err := bundle.NewStore(filepath.Join(a.Config.Data, bundleDir), keeper)
	if err != nil {
		return nil, err
	}
	for _, err := range s.Damaged() {
		a.log.Error("a bundle cannot be used", "err", err)
	}
	a.parts = append(a.parts, part{"bundles", func(ctx context.Context) error { return a.watchBundles(ctx, s, keeper) }})
	return s, nil
}

// watchEvery is how often the log is told that a changed trust file is not in force.
const watchEvery = time.Minute

// watchBundles verifies what is in the store, once, and then looks after the trust file.
func (a *App) watchBundles(ctx context.Context, s *bundle.Store, keeper *trust.Keeper) error {
	found, err := s.Run(ctx)
	if ctx.Err() != nil {
		return nil // asked to stop: what is left is verified when it is asked for
	}
	if err != nil {
		return err
	}
	for _, d := range found.Damaged {
		a.log.Error("a file of a bundle is damaged: the bundle is refused until it is imported again", "digest", d.Digest, "files", d.Files, "bundles", d.Bundles, "problem", d.Problem)
	}
	if len(found.Damaged) > 0 {
		a.control.Rouse()
	}
	a.log.Info("bundles verified", "files", found.Files, "bytes", found.Bytes, "damaged", len(found.Damaged))
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	said := ""
	for {
		if keeper != nil {
			if w := keeper.Warning(); w != said {
				said = w
				a.log.Warn("trust file", "problem", w) // an empty one: it is in force again
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
