package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod with a service account asks the API about itself, by the name that the cluster's DNS has for it, and gets what RBAC
// allows. The test's web server does the asking, as client libraries do: with the token and the CA's certificate of the pod.
func TestAPodUsesTheAPIAsItsServiceAccount(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "-n", ns, "create", "serviceaccount", "robot")
	kubectl(t, "-n", ns, "create", "role", "reader", "--verb=get,list", "--resource=pods")
	kubectl(t, "-n", ns, "create", "rolebinding", "reads", "--role=reader", "--serviceaccount="+ns+":robot")
	apply(t, ns, manifest("p", `
  serviceAccountName: robot
  containers: [{name: c, image: "docker.io/knarr/e2e-web:v1"}]
`)+manifest("without", `
  automountServiceAccountToken: false
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "`+obedient+`"]}]
`))
	p := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
	ask := func(path string) string {
		tell(t, p, "/")
		out, err := fetch("http://" + p.Status.PodIP + ":8080/api?path=" + path)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	pods := "/api/v1/namespaces/" + ns + "/pods"
	for _, tc := range []struct{ path, want string }{
		{pods + "/p", `200 … "serviceAccountName":"robot"`},
		{pods, `200 … "kind":"PodList"`},
		{"/api/v1/namespaces/" + ns + "/secrets", `403 … secrets is forbidden: User \"system:serviceaccount:` + ns + `:robot\" cannot list resource \"secrets\" in API group \"\" in the namespace \"` + ns + `\"","reason":"Forbidden"`},
		{"/api/v1/namespaces/default/pods", "403"},
		{"/api/v1/nodes", "403"},
		{"/version", "200"},
		{"/nosuch", "403"},
	} {
		if got := ask(tc.path); !shows(got, tc.want) {
			t.Errorf("the pod asked for %s\nwant: %s\ngot:  %s", tc.path, tc.want, got)
		}
	}
	awaitPod(t, ns, "without", 60*time.Second, "Ready", ready)
	session(t, ns, []step{{"", "!exec without -- ls /var/run/secrets/kubernetes.io", "No such file or directory"}})

	// The token ends with the pod: it is bound to it.
	token := strings.TrimSpace(mustFetch(t, "http://"+p.Status.PodIP+":8080/file?path=/var/run/secrets/kubernetes.io/serviceaccount/token"))
	if code, body := request(t, "GET", pods, token); code != http.StatusOK {
		t.Errorf("with the pod's token: %d %s", code, body)
	}
	kubectl(t, "-n", ns, "delete", "pod", "p")
	eventually(t, 10*time.Second, "the token of a deleted pod is refused", func() error {
		if code, body := request(t, "GET", pods, token); code != http.StatusUnauthorized {
			return fmt.Errorf("it gets %d %s", code, body)
		}
		return nil
	})
}

func TestWhoIsNotKnownIsRefused(t *testing.T) {
	t.Parallel()
	forged := strings.Join([]string{enc(`{"alg":"RS256","kid":"x"}`), enc(`{"iss":"https://kubernetes.default.svc.cluster.local","sub":"system:serviceaccount:kube-system:x","exp":9999999999}`), enc("signature")}, ".")
	unsigned := strings.Join([]string{enc(`{"alg":"none"}`), enc(`{"sub":"system:serviceaccount:kube-system:x"}`), ""}, ".")
	for _, tc := range []struct {
		name, token, path string
		code              int
	}{
		{"anonymous", "", "/api/v1/namespaces", http.StatusUnauthorized},
		{"anonymous", "", "/version", http.StatusUnauthorized},
		{"anonymous", "", "/openapi/v2", http.StatusUnauthorized},
		{"anonymous", "", "/metrics", http.StatusUnauthorized},
		{"anonymous", "", "/healthz", http.StatusOK},
		{"anonymous", "", "/livez", http.StatusOK},
		{"anonymous", "", "/readyz", http.StatusOK},
		{"a wrong token", "wrong", "/api/v1/namespaces", http.StatusUnauthorized},
		{"a forged token", forged, "/api/v1/namespaces", http.StatusUnauthorized},
		{"a token without signature", unsigned, "/api/v1/namespaces", http.StatusUnauthorized},
	} {
		code, body := request(t, "GET", tc.path, tc.token)
		if code != tc.code {
			t.Errorf("%s asks for %s: %d %s, want %d", tc.name, tc.path, code, body, tc.code)
		}
		if tc.code == http.StatusUnauthorized {
			var status metav1.Status
			if err := json.Unmarshal([]byte(body), &status); err != nil || status.Reason != metav1.StatusReasonUnauthorized {
				t.Errorf("%s asks for %s: the answer is %s", tc.name, tc.path, body)
			}
		}
	}
	if resp, err := http.Get("http://" + apiAddress(t) + "/healthz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("the API answers without TLS: %s", resp.Status)
		}
	}
}

func TestRolesCannotBeOutgrown(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "-n", ns, "create", "role", "rolemaker", "--verb=create,get,list", "--resource=roles,rolebindings,pods")
	kubectl(t, "-n", ns, "create", "rolebinding", "rolemaker", "--role=rolemaker", "--user=jane")
	session(t, ns, []step{
		{"", "get pods --as=jane", "No resources found"},
		{"", "create role small --verb=get --resource=pods --as=jane", "role.rbac.authorization.k8s.io/small created"},
		{"", "!create role big --verb=get --resource=secrets --as=jane", `is attempting to grant RBAC permissions not currently held: {APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`},
		{"", "!create rolebinding big --clusterrole=admin --user=jane --as=jane", "is attempting to grant RBAC permissions not currently held"},
		{"", "!create serviceaccount x --as=jane", `cannot create resource "serviceaccounts"`},
	})
}

func enc(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func mustFetch(t testing.TB, url string) string {
	t.Helper()
	out, err := fetch(url)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apiAddress is the host and port of the API.
func apiAddress(t testing.TB) string {
	t.Helper()
	return strings.TrimPrefix(kubectl(t, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"), "https://")
}

// request sends a request with a bearer token, if there is one, and no client certificate. It checks the server's certificate
// with the CA's of the kubeconfig.
func request(t testing.TB, method, path, token string) (code int, body string) {
	t.Helper()
	ca, err := base64.StdEncoding.DecodeString(kubectl(t, "config", "view", "--raw", "--minify", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the kubeconfig's certificate authority is not PEM: %q", ca)
	}
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+apiAddress(t)+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
