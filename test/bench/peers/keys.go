package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// keys are the files that a Kubernetes control plane needs.
type keys struct {
	ca, serverCert, serverKey, serviceAccount string
}

// makeKeys makes an authority, a certificate for the API, one for its administrator (in the kubeconfig), and the key that signs service
// account tokens. All are elliptic curve keys, as Knarr's.
func makeKeys(dir, kubeconfig string) (keys, error) {
	k := keys{
		ca:             filepath.Join(dir, "ca.crt"),
		serverCert:     filepath.Join(dir, "server.crt"),
		serverKey:      filepath.Join(dir, "server.key"),
		serviceAccount: filepath.Join(dir, "service-account.key"),
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peers"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caKey, caKeyPEM, err1 := newKey()
	caPEM, err2 := sign(authority, authority, caKey, caKey)
	serverKey, serverKeyPEM, err3 := newKey()
	serverPEM, err4 := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, serverKey, caKey)
	adminKey, adminKeyPEM, err5 := newKey()
	adminPEM, err6 := sign(&x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority, adminKey, caKey)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return k, err
	}
	for path, content := range map[string][]byte{k.ca: caPEM, k.serverCert: serverPEM, k.serverKey: serverKeyPEM, k.serviceAccount: caKeyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return k, err
		}
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["peer"] = &clientcmdapi.Cluster{Server: "https://" + apiAddress, CertificateAuthorityData: caPEM}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: adminPEM, ClientKeyData: adminKeyPEM}
	config.Contexts["peer"] = &clientcmdapi.Context{Cluster: "peer", AuthInfo: "admin"}
	config.CurrentContext = "peer"
	return k, clientcmd.WriteToFile(*config, kubeconfig)
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}

func sign(cert, parent *x509.Certificate, key, by *ecdsa.PrivateKey) ([]byte, error) {
	if key == nil || by == nil {
		return nil, errors.New("no key to sign with")
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), by)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}
