package join

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"strings"
	"text/template"

	"bootlane/internal/lane"
)

//go:embed manifests/*
var manifestSources embed.FS

var manifests = template.Must(template.New("").Option("missingkey=error").Funcs(template.FuncMap{
	"yq": quote,
	// In the single quotes of YAML: the names that are written so have neither of its characters.
	"cel":    quote,
	"base64": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
}).ParseFS(manifestSources, "manifests/*"))

// rights is what the manifests are made of.
type rights struct {
	Config
	Group          string
	Signs, Signing bool
	TTL            string
}

// Manifests returns what gives Bootlane the rights that it needs in the cluster, and no others:
// YAML for `kubectl apply -f -`.
func (c *Cluster) Manifests() (string, error) { return c.cfg.manifests() }

func (c Config) manifests() (string, error) {
	r := rights{Config: c, Group: group(c.Distribution), Signs: c.Distribution == lane.DistributionKubeadm, Signing: c.Distribution != lane.DistributionK0s, TTL: c.TokenTTL.String()}
	parts := []string{"rbac.yaml", "policy.yaml"}
	if r.Signs {
		parts = []string{"rbac.yaml", "nodes.yaml", "policy.yaml"}
	}
	var out []string
	for _, p := range parts {
		var b bytes.Buffer
		if err := manifests.ExecuteTemplate(&b, p, r); err != nil {
			return "", fmt.Errorf("write the manifests: %w", err)
		}
		out = append(out, strings.TrimSpace(b.String()))
	}
	return strings.Join(out, "\n---\n") + "\n", nil
}
