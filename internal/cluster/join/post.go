package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// postTime bounds a Post; the server may have to wait for the others.
const postTime = time.Minute

// Post sends in, as JSON, to a path of the server that the token is for, with the token, and reads the answer into out.
func Post(ctx context.Context, server string, token Token, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, postTime)
	defer cancel()
	server = strings.TrimSuffix(server, "/")
	if err := post(ctx, server, token, path, in, out); err != nil {
		return fmt.Errorf("joining the cluster at %s: %w", server, err)
	}
	return nil
}

func post(ctx context.Context, server string, token Token, path string, in, out any) error {
	ca, err := fetchAuthority(ctx, Config{Server: server, Token: token, Log: slog.Default()})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	transport := newTransport(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
	defer transport.CloseIdleConnections()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := bearer{transport, token.Bearer()}.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const most = 1 << 20
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var status metav1.Status
		if json.Unmarshal(answer, &status) == nil && status.Message != "" {
			return fmt.Errorf("it refuses: %s", status.Message)
		}
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return json.Unmarshal(answer, out)
}
