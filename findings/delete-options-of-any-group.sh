#!/bin/sh
# client-go 0.37.2: a typed client of a custom resource sends DeleteOptions of the custom resource's own group
#
# metav1.AddToGroupVersion, which every generated AddToScheme calls, registers DeleteOptions (and Create-, Update-, Patch-, Get- and ListOptions) in
# each group-version as if they were its own. The encoder of a REST client for that group-version therefore writes
# apiVersion: guests.example.com/v2, kind: DeleteOptions into the body of a DELETE, where kubectl and dynamic clients write v1 or meta.k8s.io/v1.
# A server that knows only v1 and the built-in groups answers 400 to every deletion with options by a controller-runtime operator. The same client without
# options sends an empty object of that version, not an empty body.
#
# Needs Go and its module proxy. Fails if what is printed is no longer what is written below.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.26.0

require (
	k8s.io/apimachinery v0.37.2
	k8s.io/client-go v0.37.2
)
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

func main() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Printf("%s %s\n", r.Method, strings.TrimSpace(string(b)))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	}))
	defer srv.Close()
	gv := schema.GroupVersion{Group: "guests.example.com", Version: "v2"}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, gv)
	typed, err := rest.RESTClientFor(&rest.Config{Host: srv.URL, APIPath: "/apis", ContentConfig: rest.ContentConfig{
		GroupVersion: &gv, NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion()}})
	if err != nil {
		panic(err)
	}
	ctx, seconds := context.Background(), int64(5)
	for _, opts := range []*metav1.DeleteOptions{{GracePeriodSeconds: &seconds}, {}} {
		if err := typed.Delete().Namespace("default").Resource("guestbooks").Name("inn").Body(opts).Do(ctx).Error(); err != nil {
			fmt.Println(err)
		}
	}
	untyped := dynamic.NewForConfigOrDie(&rest.Config{Host: srv.URL}).Resource(gv.WithResource("guestbooks")).Namespace("default")
	if err := untyped.Delete(ctx, "inn", metav1.DeleteOptions{GracePeriodSeconds: &seconds}); err != nil {
		fmt.Println(err)
	}
}
GO
cat >want <<'OUT'
DELETE {"kind":"DeleteOptions","apiVersion":"guests.example.com/v2","gracePeriodSeconds":5}
DELETE {"kind":"DeleteOptions","apiVersion":"guests.example.com/v2"}
DELETE {"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":5}
OUT
GOFLAGS=-mod=mod go run . >got
cat got
diff want got
