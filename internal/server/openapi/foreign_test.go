package openapi

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
)

// theirs is the document of a server of fish.example.com/v1, whose ObjectMeta is not that of this release.
const theirs = `{"swagger":"2.0","paths":{
	"/apis/fish.example.com/v1/fishes":{"get":{"responses":{"200":{"schema":{"$ref":"#/definitions/example.Fish"}}}}},
	"/apis/birds.example.com/v1/birds":{"get":{"responses":{"200":{"schema":{"$ref":"#/definitions/example.Bird"}}}}}},
"definitions":{
	"example.Fish":{"type":"object","properties":{
		"metadata":{"$ref":"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},"next":{"$ref":"#/definitions/example.Fish"},
		"mine":{"$ref":"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.GroupVersionForDiscovery"}}},
	"example.Bird":{"type":"object"},
	"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta":{"type":"object","properties":{"name":{"type":"string"}}}}}`

func TestOtherServersDocumentsJoin(t *testing.T) {
	part, err := Part([]byte(theirs), "/apis/fish.example.com/v1/")
	if err != nil {
		t.Fatal(err)
	}
	own := New(api.Builtin, nil, "v1.37.2")
	gv := schema.GroupVersion{Group: "fish.example.com", Version: "v1"}
	both := own.Beside([]Foreign{{gv, part, "/openapi/v3/apis/fish.example.com/v1?hash=AB"}})
	doc, err := both.V2()
	if err != nil {
		t.Fatal(err)
	}
	b, err := doc.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Paths       map[string]any
		Definitions map[string]struct {
			Properties map[string]map[string]any
		}
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Paths["/apis/fish.example.com/v1/fishes"] == nil || got.Paths["/api/v1/pods"] == nil || got.Paths["/apis/birds.example.com/v1/birds"] != nil {
		t.Error("the paths are not those of both")
	}
	const meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	fish := got.Definitions["example.Fish"].Properties
	if fish["metadata"]["$ref"] != "#/definitions/"+meta+"_v2" || fish["next"]["$ref"] != "#/definitions/example.Fish" {
		t.Errorf("what a fish refers to: %v", fish)
	}
	if len(got.Definitions[meta+"_v2"].Properties) != 1 || len(got.Definitions[meta].Properties) < 5 {
		t.Errorf("%d properties of their metadata, %d of ours", len(got.Definitions[meta+"_v2"].Properties), len(got.Definitions[meta].Properties))
	}
	if _, ok := got.Definitions["example.Bird"]; ok {
		t.Error("a definition that no path needs")
	}
	index, err := both.Index()
	if err != nil || !strings.Contains(string(index), `"apis/fish.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/fish.example.com/v1?hash=AB"}`) || !strings.Contains(string(index), `"apis/apps/v1"`) {
		t.Errorf("the index: %v %.300s", err, index)
	}
	if own.Beside(nil) != own {
		t.Error("documents are made anew without anybody beside")
	}
}

// A server that takes the place of a group-version of this one documents it alone, or nobody does.
func TestAnotherServerDocumentsAGroupVersionOfThisOne(t *testing.T) {
	both := New(api.Builtin, nil, "v1.37.2").Beside([]Foreign{{schema.GroupVersion{Group: "apps", Version: "v1"}, nil, ""}})
	index, err := both.Index()
	if err != nil || strings.Contains(string(index), `"apis/apps/v1"`) {
		t.Errorf("the index: %v %.300s", err, index)
	}
	if _, err := Part([]byte("no document"), "/"); err == nil {
		t.Error("nonsense was taken for a document")
	}
}
