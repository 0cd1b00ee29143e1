package join

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kubeconfig is what one context of a kubeconfig file says.
type kubeconfig struct {
	server string // https://HOST:PORT
	name   string // by which its certificate is checked; empty: that of the server
	ca     []byte // PEM; empty: it has none
	cert   []byte // PEM, with key
	key    []byte
	token  string
}

// kubeconfigFile is the part of the format that is read. Much else may stand there.
type kubeconfigFile struct {
	Current  string `yaml:"current-context"`
	Contexts []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster string `yaml:"cluster"`
			User    string `yaml:"user"`
		} `yaml:"context"`
	} `yaml:"contexts"`
	Clusters []struct {
		Name    string         `yaml:"name"`
		Cluster kubeconfigHost `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string         `yaml:"name"`
		User kubeconfigUser `yaml:"user"`
	} `yaml:"users"`
}

type kubeconfigHost struct {
	Server   string `yaml:"server"`
	Name     string `yaml:"tls-server-name"`
	CA       string `yaml:"certificate-authority"`
	CAData   string `yaml:"certificate-authority-data"`
	Insecure bool   `yaml:"insecure-skip-tls-verify"`
	Proxy    string `yaml:"proxy-url"`
}

type kubeconfigUser struct {
	Cert      string    `yaml:"client-certificate"`
	CertData  string    `yaml:"client-certificate-data"`
	Key       string    `yaml:"client-key"`
	KeyData   string    `yaml:"client-key-data"`
	Token     string    `yaml:"token"`
	TokenFile string    `yaml:"tokenFile"`
	Exec      yaml.Node `yaml:"exec"`
	Provider  yaml.Node `yaml:"auth-provider"`
	Password  string    `yaml:"password"`
}

// readKubeconfig reads the current context of a kubeconfig file, and the files that it names.
func readKubeconfig(path string) (kubeconfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return kubeconfig{}, err
	}
	var f kubeconfigFile
	if err := yaml.Unmarshal(data, &f); err != nil {
		return kubeconfig{}, fmt.Errorf("%s is no kubeconfig: %w", path, err)
	}
	var host *kubeconfigHost
	var user *kubeconfigUser
	for _, c := range f.Contexts {
		if c.Name != f.Current {
			continue
		}
		for i := range f.Clusters {
			if f.Clusters[i].Name == c.Context.Cluster {
				host = &f.Clusters[i].Cluster
			}
		}
		for i := range f.Users {
			if f.Users[i].Name == c.Context.User {
				user = &f.Users[i].User
			}
		}
	}
	if host == nil || user == nil {
		return kubeconfig{}, fmt.Errorf("%s: the current-context %q names no cluster and user that stand in it", path, f.Current)
	}
	k, err := host.read(filepath.Dir(path))
	if err == nil {
		err = user.read(filepath.Dir(path), &k)
	}
	if err != nil {
		return kubeconfig{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

func (h kubeconfigHost) read(dir string) (k kubeconfig, err error) {
	u, err := url.Parse(h.Server)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "":
		return k, fmt.Errorf("server %q is not https://HOST:PORT", h.Server)
	case h.Insecure:
		return k, fmt.Errorf("insecure-skip-tls-verify is set: whoever answered would be believed; give certificate-authority-data in its place")
	case h.Proxy != "":
		return k, fmt.Errorf("proxy-url is set: Bootlane speaks to the API server directly")
	}
	k.server, k.name = "https://"+u.Host, h.Name
	k.ca, err = inline("certificate-authority", h.CAData, h.CA, dir)
	return k, err
}

func (u kubeconfigUser) read(dir string, k *kubeconfig) (err error) {
	if u.Exec.Kind != 0 || u.Provider.Kind != 0 || u.Password != "" {
		return fmt.Errorf("its user logs in by exec, auth-provider or a password: give it a client certificate, a token or a tokenFile")
	}
	if k.cert, err = inline("client-certificate", u.CertData, u.Cert, dir); err != nil {
		return err
	}
	if k.key, err = inline("client-key", u.KeyData, u.Key, dir); err != nil {
		return err
	}
	k.token = u.Token
	if u.TokenFile != "" {
		text, err := os.ReadFile(beside(dir, u.TokenFile))
		if err != nil {
			return fmt.Errorf("tokenFile: %w", err)
		}
		k.token = strings.TrimSpace(string(text))
	}
	switch {
	case (len(k.cert) == 0) != (len(k.key) == 0):
		return fmt.Errorf("client-certificate and client-key belong together: give both, or neither")
	case len(k.cert) == 0 && k.token == "":
		return fmt.Errorf("its user has neither a client certificate nor a token")
	}
	if len(k.cert) > 0 {
		if _, err := tls.X509KeyPair(k.cert, k.key); err != nil {
			return fmt.Errorf("client-certificate and client-key: %w", err)
		}
	}
	return nil
}

// inline returns what stands in base64, or else in a file.
func inline(field, data, path, dir string) ([]byte, error) {
	switch {
	case data != "":
		b, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("%s-data is not base64", field)
		}
		return b, nil
	case path != "":
		b, err := os.ReadFile(beside(dir, path))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return b, nil
	}
	return nil, nil
}

// beside returns a path as kubectl takes it: relative ones are beside the kubeconfig.
func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
