package containerd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStreamCertificate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "streams.pem")
	made := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	cert, err := ensureStreamCertificate(path, made)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key %T, want ECDSA P-256", cert.PublicKey)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life != 365*24*time.Hour || !cert.NotBefore.Equal(made) {
		t.Errorf("valid for %s from %s", life, cert.NotBefore)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1", CurrentTime: made.Add(time.Hour)}); err != nil {
		t.Errorf("it does not verify as its own root: %v", err)
	}
	if err := cert.VerifyHostname("192.0.2.1"); err == nil {
		t.Error("it is good for any address")
	}
	if pair, err := tls.LoadX509KeyPair(path, path); err != nil || !bytes.Equal(pair.Certificate[0], cert.Raw) {
		t.Errorf("the file does not hold the pair: %v", err)
	}

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.pem")
	if _, err := ensureStreamCertificate(other, made); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	mixed := append(bytes.Clone(content[:bytes.Index(content, []byte("-----BEGIN CERTIFICATE"))]), foreign[bytes.Index(foreign, []byte("-----BEGIN CERTIFICATE")):]...)
	const day = 24 * time.Hour
	for _, test := range []struct {
		name    string
		content []byte
		mode    os.FileMode
		at      time.Time
		kept    bool
	}{
		{"the same day", content, 0o600, made, true},
		{"before two thirds of the year", content, 0o600, made.Add(243 * day), true},
		{"after two thirds of the year", content, 0o600, made.Add(244 * day), false},
		{"expired", content, 0o600, made.Add(400 * day), false},
		{"made while the clock was ahead", content, 0o600, made.Add(-day), false},
		{"readable by others", content, 0o644, made, false},
		{"cut short", content[:len(content)/2], 0o600, made, false},
		{"empty", nil, 0o600, made, false},
		{"the key of another", mixed, 0o600, made, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, test.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			got, err := ensureStreamCertificate(path, test.at)
			if err != nil {
				t.Fatal(err)
			}
			if kept := bytes.Equal(got.Raw, cert.Raw); kept != test.kept {
				t.Errorf("kept: %v, want %v", kept, test.kept)
			}
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v; want 0600", fi.Mode(), err)
			}
			again, err := ensureStreamCertificate(path, test.at)
			if err != nil || !again.Equal(got) {
				t.Errorf("asked again: another certificate, or %v", err)
			}
			if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
				t.Errorf("left beside it: %v, %v", entries, err)
			}
		})
	}
	if _, err := ensureStreamCertificate(filepath.Join(path, "streams.pem"), made); err == nil {
		t.Error("no error where it cannot be written")
	}
}

// TestGeneration: a child is replaced when it must read another certificate or configuration, and not otherwise.
func TestGeneration(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "containerd"), 0o700); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	start := func(config string) string { // of another process each time
		t.Helper()
		s := &Supervisor{options: Options{DataDir: dir}, config: config, now: func() time.Time { return at }}
		generation, err := s.prepareCertificate()
		if err != nil || s.StreamCertificate() == nil {
			t.Fatalf("certificate %v, error %v", s.StreamCertificate(), err)
		}
		return generation
	}
	first := start("a")
	at = at.Add(200 * 24 * time.Hour)
	if start("a") != first {
		t.Error("the generation changed without a reason")
	}
	if start("b") == first {
		t.Error("the configuration changed, the generation did not")
	}
	at = at.Add(100 * 24 * time.Hour)
	if start("a") == first {
		t.Error("the certificate was renewed, but the child that has the old one would be kept")
	}
}
