package containerd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/version"
)

const (
	// streamAddress is where the child serves exec, attach and port-forward, on a port of the kernel's choice. Only the API
	// server's relay on this machine connects to it.
	streamAddress = "127.0.0.1"
	// streamCertificateLife is how long a certificate of that server is valid; it is renewed after two thirds of it.
	streamCertificateLife = 365 * 24 * time.Hour
	// streamCertificateCheck is how often its age is looked at. A timer for the day itself would miss that the clock was set,
	// as it is on machines that boot without knowing the time.
	streamCertificateCheck = time.Hour
)

// prepareCertificate sees to it that the child finds a certificate for its streaming server, and returns the generation of the
// child that has read it: containerd reads it once, at its start, so one with an older certificate has to be replaced.
func (s *Supervisor) prepareCertificate() (generation string, err error) {
	cert, err := ensureStreamCertificate(s.options.streamCertificateFile(), s.now())
	if err != nil {
		return "", fmt.Errorf("certificate of the runtime's streaming server: %w", err)
	}
	s.mu.Lock()
	s.certificate = cert
	s.mu.Unlock()
	return generationOf(s.config, cert), nil
}

// generationOf is a hash of all that a child has been started with.
func generationOf(config string, cert *x509.Certificate) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%x", version.Version, config, cert.Raw)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// ensureStreamCertificate returns the certificate of the child's streaming server from the file at path, which holds its key as
// well. It makes a new one where there is none, or none that is good at now. Nobody but the relay has to trust it, and that is
// given the certificate itself, so no authority signs it.
func ensureStreamCertificate(path string, now time.Time) (*x509.Certificate, error) {
	cert, err := readStreamCertificate(path)
	if err == nil && !streamCertificateDue(cert, now) {
		return cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Knarr container streams"},
		NotBefore:             now,
		NotAfter:              now.Add(streamCertificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, // and not an authority: who steals the key cannot sign others
		IPAddresses:           []net.IP{net.ParseIP(streamAddress)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: pkcs8}, {Type: "CERTIFICATE", Bytes: der}} {
		if err := pem.Encode(&b, block); err != nil {
			return nil, err
		}
	}
	if err := replaceFile(path, b.Bytes()); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// readStreamCertificate reads a certificate that belongs to its key, for our address, which nobody else could read.
func readStreamCertificate(path string) (*x509.Certificate, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others", path)
	}
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return nil, err
	}
	if pair.Leaf.IsCA {
		return nil, errors.New("the certificate is an authority's")
	}
	return pair.Leaf, pair.Leaf.VerifyHostname(streamAddress)
}

// streamCertificateDue reports whether cert is to be replaced at now: two thirds of its life are over, or the clock was ahead when it
// was made.
func streamCertificateDue(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return now.Before(cert.NotBefore) || now.After(cert.NotBefore.Add(life*2/3))
}

// replaceFile writes a file that only we may read, whole or not at all.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
