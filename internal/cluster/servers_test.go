package cluster

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/pki"
)

func TestWhoMayNotJoin(t *testing.T) {
	keys, err := pki.Ensure(t.TempDir(), pki.Params{Server: "a"})
	if err != nil {
		t.Fatal(err)
	}
	settings := AgentSettings{
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
		ClusterDNS: netip.MustParseAddr("10.96.0.10"), ClusterDomain: "cluster.local", Overlay: "auto",
	}
	s := &Servers{Keys: keys, Settings: settings} // over an external etcd
	for _, tc := range []struct {
		name, body string
		err        func(error) bool // nil: it may
	}{
		{"all is well", `{"name":"b","url":"https://192.0.2.2:6443","externalEtcd":true}`, nil},
		{"the same settings", `{"name":"b","url":"https://192.0.2.2:6443","externalEtcd":true,"settings":{"clusterCIDR":"10.244.0.0/16","overlay":"auto"}}`, nil},
		{"no JSON", `name=b`, apierrors.IsBadRequest},
		{"no name", `{"url":"https://192.0.2.2:6443","externalEtcd":true}`, apierrors.IsBadRequest},
		{"a name that etcd's list cannot hold", `{"name":"b=c","url":"https://192.0.2.2:6443","externalEtcd":true}`, apierrors.IsBadRequest},
		{"a host name", `{"name":"b","url":"https://b:6443","externalEtcd":true}`, apierrors.IsBadRequest},
		{"without TLS", `{"name":"b","url":"http://192.0.2.2:6443","externalEtcd":true}`, apierrors.IsBadRequest},
		{"the wrong kind of etcd", `{"name":"b","url":"https://192.0.2.2:6443"}`, apierrors.IsBadRequest},
		{"other settings", `{"name":"b","url":"https://192.0.2.2:6443","externalEtcd":true,"settings":{"clusterCIDR":"10.1.0.0/16"}}`, apierrors.IsConflict},
	} {
		w := httptest.NewRecorder()
		err := s.all(w, httptest.NewRequest(http.MethodPost, ServersPath, strings.NewReader(tc.body)))
		if tc.err != nil {
			if !tc.err(err) || strings.Contains(w.Body.String(), "PRIVATE") {
				t.Errorf("%s: %v %s", tc.name, err, w.Body)
			}
			continue
		}
		var reply JoinReply
		if err != nil || json.Unmarshal(w.Body.Bytes(), &reply) != nil || reply.Settings["clusterDNS"] != "10.96.0.10" {
			t.Errorf("%s: %v %s", tc.name, err, w.Body)
		}
		// The new server has the cluster's authority.
		dir := t.TempDir()
		if err := pki.Install(dir, reply.Keys); err != nil {
			t.Fatal(err)
		}
		if theirs, err := pki.Ensure(dir, pki.Params{Server: "b"}); err != nil || !theirs.CA().Equal(keys.CA()) {
			t.Errorf("%s: the authority: %v", tc.name, err)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		if err := s.all(httptest.NewRecorder(), httptest.NewRequest(method, ServersPath, nil)); !apierrors.IsMethodNotSupported(err) {
			t.Errorf("%s: %v", method, err)
		}
	}
	other, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Shared()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pki.Install(dir, foreign); err != nil {
		t.Fatal(err)
	}
	if mine, _ := keys.Shared(); pki.Install(dir, mine) == nil {
		t.Error("the keys of another cluster were replaced")
	}
}

func TestFlagsThatContradictTheCluster(t *testing.T) {
	mine := AgentSettings{ClusterCIDR: netip.MustParsePrefix("10.1.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterDNS: netip.MustParseAddr("10.96.0.10"), ClusterDomain: "cluster.local"}
	theirs := mine
	theirs.ClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	m := &Membership{Settings: theirs.Data()}
	if err := m.Agree(mine.Given(func(string) bool { return false })); err != nil {
		t.Errorf("no flag was given: %v", err)
	}
	if err := m.Agree(mine.Given(func(f string) bool { return f == "service-cidr" })); err != nil {
		t.Errorf("the flag that was given agrees: %v", err)
	}
	if err := m.Agree(mine.Given(func(string) bool { return true })); err == nil || !strings.Contains(err.Error(), "--cluster-cidr 10.1.0.0/16") {
		t.Errorf("a flag contradicts: %v", err)
	}
}

func TestGateWaitsForAServerThatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := make(chan struct{})
		g := &Gate{Contact: NewContact(), Several: func() bool { return true }, Ready: ready, API: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
		})}
		get := func(path string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			g.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			return w
		}
		began := time.Now()
		if w := get("/livez"); w.Code != http.StatusTeapot {
			t.Errorf("whether it lives: %d", w.Code)
		}
		if w := get("/api"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"kind":"Status"`) || time.Since(began) != startPatience {
			t.Errorf("too early: %d %s after %v", w.Code, w.Body, time.Since(began))
		}
		time.AfterFunc(time.Second, func() { close(ready) })
		if w := get("/api"); w.Code != http.StatusTeapot {
			t.Errorf("a little early: %d", w.Code)
		}
		g.Contact.lost(errCutOff)
		if w := get("/api"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("cut off: %d", w.Code)
		}
		g.Contact.regained()
		if w := get("/api"); w.Code != http.StatusTeapot {
			t.Errorf("in touch again: %d", w.Code)
		}
	})
}
