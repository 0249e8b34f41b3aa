package frontproxy

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Trust is what aggregated servers have to know.
type Trust struct {
	// ClientCA is the authority of users' certificates, FrontProxyCA that of front proxies, both in PEM. Without the second there is no
	// front proxy.
	ClientCA, FrontProxyCA []byte
	// Names are the common names of front proxies.
	Names []string
	// Headers are those in which front proxies name the user.
	Headers Headers
}

// Headers are the names of the headers, or their prefixes, in which a front proxy says who sends a request.
type Headers struct {
	User, UID, Group, ExtraPrefix string
}

const (
	clientCAKey     = "client-ca-file"
	frontProxyCAKey = "requestheader-client-ca-file"
)

// plan returns the ConfigMap that there should be, or nil where old is it. What other servers have added stays in it.
func plan(old *corev1.ConfigMap, trust Trust, now time.Time) *corev1.ConfigMap {
	have := map[string]string{}
	if old != nil {
		have = old.Data
	}
	data := map[string]string{clientCAKey: bundle(have[clientCAKey], trust.ClientCA, now)}
	if len(trust.FrontProxyCA) > 0 {
		data[frontProxyCAKey] = bundle(have[frontProxyCAKey], trust.FrontProxyCA, now)
		for key, values := range map[string][]string{
			"requestheader-allowed-names":        trust.Names,
			"requestheader-username-headers":     {trust.Headers.User},
			"requestheader-uid-headers":          {trust.Headers.UID},
			"requestheader-group-headers":        {trust.Headers.Group},
			"requestheader-extra-headers-prefix": {trust.Headers.ExtraPrefix},
		} {
			data[key] = union(have[key], values)
		}
	}
	if old == nil {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: configMapName}, Data: data}
	}
	if maps.Equal(old.Data, data) {
		return nil
	}
	cm := old.DeepCopy()
	cm.Data = data
	return cm
}

// union returns the JSON list of the words in the list have and of further ones, each once. A list that cannot be read counts as empty.
func union(have string, further []string) string {
	var words []string
	if json.Unmarshal([]byte(have), &words) != nil {
		words = nil
	}
	for _, w := range further {
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	b, err := json.Marshal(words)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// bundle returns the certificates in PEM of have and further, each once and none that has expired.
func bundle(have string, further []byte, now time.Time) string {
	var out strings.Builder
	var seen [][]byte
	for rest := slices.Concat([]byte(have), []byte("\n"), further); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out.String()
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || now.After(cert.NotAfter) || slices.ContainsFunc(seen, func(b []byte) bool { return string(b) == string(cert.Raw) }) {
			continue
		}
		seen = append(seen, cert.Raw)
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
}
