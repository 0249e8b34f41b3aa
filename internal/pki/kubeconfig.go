package pki

import (
	"crypto/ecdsa"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig returns a kubeconfig with one cluster, user and context, all embedded, as kubectl and client-go read it.
// server is an https:// URL, name the context's name ("knarr").
func (p *PKI) Kubeconfig(name, server string, certPEM, keyPEM []byte) ([]byte, error) {
	user := name + "-admin"
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: p.CAPEM()}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: certPEM, ClientKeyData: keyPEM}
	cfg.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	cfg.CurrentContext = name
	return clientcmd.Write(*cfg)
}

// AdminKubeconfig returns the administrator's kubeconfig.
func (p *PKI) AdminKubeconfig(name, server string) ([]byte, error) {
	admin := p.admin.Load()
	keyPEM, err := encodeKey(admin.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return nil, err
	}
	return p.Kubeconfig(name, server, encodeCert(admin.Certificate[0]), keyPEM)
}

// WriteAdminKubeconfig writes it to path, readable by the owner only, unless exactly that is there.
func (p *PKI) WriteAdminKubeconfig(path, name, server string) error {
	data, err := p.AdminKubeconfig(name, server)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return WriteFile(path, data, 0o600)
}
