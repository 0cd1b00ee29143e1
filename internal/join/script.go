package join

import (
	"bytes"
	"embed"
	"fmt"
	"text/template"

	"bootlane/internal/lane"
)

//go:embed templates/*
var sources embed.FS

var scripts = template.Must(template.New("").Option("missingkey=error").Funcs(template.FuncMap{"sq": lane.ShellQuote}).ParseFS(sources, "templates/*"))

// order is what a join script is made of.
type order struct {
	Host                    lane.HostID
	Run                     lane.RunID
	Cluster, Node, Endpoint string
	Expires                 string
	Text                    string // what the distribution reads: a configuration, a token
	Config                  string // of k3s
}

// K3sTokenFile is where an agent of k3s reads its token at every start.
const K3sTokenFile = "/etc/rancher/k3s/bootlane-token"

// Script returns the script with which the node joins. It holds the credential.
func (c *Cluster) Script(node string, t lane.Token) ([]byte, error) {
	o := order{Host: t.Host, Run: t.Run, Cluster: c.cfg.Name, Node: node, Endpoint: c.cfg.Endpoint, Expires: t.Expires.UTC().Format("2006-01-02 15:04:05Z")}
	token := t.ID + "." + t.Secret
	var err error
	switch c.cfg.Distribution {
	case lane.DistributionKubeadm:
		o.Text = joinConfiguration(c.cfg.Endpoint, node, token, c.pins)
	case lane.DistributionK0s:
		o.Text, err = k0sToken(c.cfg.Endpoint, token, c.ca)
	case lane.DistributionK3s:
		o.Config = k3sConfig(c.cfg.Endpoint, node, K3sTokenFile)
		o.Text, err = k3sToken(token, c.ca)
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := scripts.ExecuteTemplate(&b, c.cfg.Distribution+".sh", o); err != nil {
		return nil, fmt.Errorf("write the join script: %w", err)
	}
	return b.Bytes(), nil
}
