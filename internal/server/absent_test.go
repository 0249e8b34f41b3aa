package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-io/knarr/internal/server"
)

// TestAbsentKinds: of a kind of Kubernetes that Knarr does not serve there are none; who wants to write one is told why not.
func TestAbsentKinds(t *testing.T) {
	f := start(t)
	for path, kind := range map[string]string{
		"/apis/resource.k8s.io/v1/namespaces/default/resourceclaims": "ResourceClaim",
		"/apis/resource.k8s.io/v1/deviceclasses":                     "DeviceClass",
	} {
		for _, accept := range []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf,application/json", "application/json" + asTable + ",application/json"} {
			if a := f.do("GET", path, "", "Accept", accept); a.Code != 200 || !strings.Contains(a.Body, kind+"List") && !strings.Contains(a.Body, `"rows":[]`) {
				t.Errorf("GET %s as %s: %d %s", path, accept, a.Code, a.Body)
			}
		}
		if a := f.do("GET", path+"/x", ""); a.Code != 404 || !strings.Contains(a.Body, `\"x\" not found`) {
			t.Errorf("GET %s/x: %d %s", path, a.Code, a.Body)
		}
		for _, write := range [][2]string{{"POST", path}, {"PUT", path + "/x"}, {"PATCH", path + "/x"}, {"DELETE", path + "/x"}, {"DELETE", path}, {"GET", path + "/x/status"}} {
			a := f.do(write[0], write[1], `{"metadata":{"name":"x"}}`)
			if reason, message := a.status(t); a.Code != 404 || reason != "NotFound" || !strings.HasPrefix(message, "Knarr does not serve "+kind) {
				t.Errorf("%s %s: %d %s %s", write[0], write[1], a.Code, reason, message)
			}
		}
	}
	if a := f.do("GET", "/apis/apps/v1/frogs", ""); a.Code != 404 || !strings.Contains(a.Body, "could not find") {
		t.Errorf("what nobody knows: %d %s", a.Code, a.Body)
	}
	w := f.must("GET", "/apis/resource.k8s.io/v1/resourceclaims?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", "")
	contains(t, w.Body, `{"type":"BOOKMARK","object":{"kind":"ResourceClaim"`)
	contains(t, w.Body, "initial-events-end")
}

// TestAbsentKindsOfTypedClients: client-go's own clients read nothing rather than an error.
func TestAbsentKindsOfTypedClients(t *testing.T) {
	f := start(t)
	for name, cfg := range formats(f) {
		c, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.ResourceV1().ResourceClaims("default").List(context.Background(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 0 || list.ResourceVersion == "" {
			t.Errorf("%s: %v %+v", name, err, list)
		}
		_, err = c.ResourceV1().ResourceClaims("default").Create(context.Background(), &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), "Knarr does not serve ResourceClaim (resource.k8s.io/v1)") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryKindOfKubernetesIsKnown: what Kubernetes serves in a stable version is served, or answered for as absent.
func TestEveryKindOfKubernetesIsKnown(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		t.Skip("the module k8s.io/kubernetes is not on this machine")
	}
	f := start(t)
	dir, n := filepath.Join(strings.TrimSpace(string(out)), "api", "discovery"), 0
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || !strings.HasSuffix(name, "__v1.json") && !strings.HasSuffix(name, "__v2.json") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var list metav1.APIResourceList
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		root := "/apis/" + list.GroupVersion
		if list.GroupVersion == "v1" {
			root = "/api/v1"
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") {
				continue
			}
			n++
			at := root + "/" + r.Name
			if r.Namespaced {
				at = root + "/namespaces/default/" + r.Name
			}
			a := f.do("GET", at, "")
			if reads := strings.Contains(strings.Join(r.Verbs, " "), "list"); reads && a.Code != 200 || !reads && a.Code != 405 {
				t.Errorf("GET %s: %d %s", at, a.Code, a.Body)
			}
		}
		return nil
	})
	if err != nil || n < 60 {
		t.Errorf("%v after %d kinds", err, n)
	}
}

func TestComponentStatuses(t *testing.T) {
	var ill error
	f := start(t, func(c *server.Config) {
		c.Ready = []server.Check{{Name: "etcd", Check: func(context.Context) error { return ill }}}
	})
	const path = "/api/v1/componentstatuses"
	a := f.must("GET", path, "")
	contains(t, a.Body, `{"metadata":{"name":"etcd-0"},"conditions":[{"type":"Healthy","status":"True","message":"ok"}]}`)
	contains(t, a.Header.Get("Warning"), "v1 ComponentStatus is deprecated in v1.19+")
	contains(t, f.must("GET", path+"/scheduler", "").Body, `{"kind":"ComponentStatus","apiVersion":"v1","metadata":{"name":"scheduler"}`)
	contains(t, f.must("GET", path+"?fieldSelector=metadata.name%3Detcd-0", "", "Accept", "application/json"+asTable).Body, `"cells":["etcd-0","Healthy","ok",""]`)
	ill = errors.New("no leader")
	contains(t, f.must("GET", path+"/etcd-0", "").Body, `"status":"False","error":"no leader"`)
	for _, wrong := range [][3]string{{"GET", path + "/frog", "404"}, {"POST", path, "405"}, {"GET", path + "/etcd-0/status", "404"}, {"GET", path + "?labelSelector=%3D%3D", "400"}} {
		if a := f.do(wrong[0], wrong[1], ""); a.Code/100 != 4 || !strings.Contains(a.Body, `"code":`+wrong[2]) {
			t.Errorf("%s %s: %d %s", wrong[0], wrong[1], a.Code, a.Body)
		}
	}
}
