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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server"
)

// TestEveryKindOfKubernetesIsKnown: what Kubernetes serves in a stable version is served.
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
