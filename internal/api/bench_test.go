package api

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const benchPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-5d4f8c7b9-x2x7k","namespace":"default","labels":{"app":"web","pod-template-hash":"5d4f8c7b9"},
"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-5d4f8c7b9","uid":"0f5c1f5e","controller":true,"blockOwnerDeletion":true}]},
"spec":{"serviceAccountName":"default","containers":[{"name":"web","image":"nginx:1.29","ports":[{"containerPort":80}],
"env":[{"name":"A","value":"1"},{"name":"B","valueFrom":{"configMapKeyRef":{"name":"c","key":"k"}}}],
"resources":{"requests":{"cpu":"100m","memory":"64Mi"},"limits":{"memory":"128Mi"}},
"readinessProbe":{"httpGet":{"path":"/","port":80}},"volumeMounts":[{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}]}],
"volumes":[{"name":"token","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}]}}],
"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]}}`

// BenchmarkPodCreatePath is what the api layer costs for one pod that comes over HTTP as JSON, and each step of it.
func BenchmarkPodCreatePath(b *testing.B) {
	decoder := Codecs.UniversalDeserializer()
	decode := func() *corev1.Pod {
		obj, _, err := decoder.Decode([]byte(benchPod), nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		return obj.(*corev1.Pod)
	}
	pod := decode()
	Pods.Default(pod)
	ready := pod.DeepCopy()
	Pods.PrepareForCreate(ready)
	stored := mustEncode(b, ready)
	running := ready.DeepCopy()
	running.ResourceVersion = "1"
	running.Status.Phase = corev1.PodRunning

	run := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
	run("all", func() {
		p := decode()
		Pods.Default(p)
		Pods.PrepareForCreate(p)
		if errs := Pods.Validate(p); len(errs) != 0 {
			b.Fatal(errs)
		}
		mustEncode(b, p)
	})
	run("in-process", func() {
		p := ready.DeepCopy()
		Pods.Default(p)
		Pods.PrepareForCreate(p)
		if errs := Pods.Validate(p); len(errs) != 0 {
			b.Fatal(errs)
		}
		mustEncode(b, p)
	})
	run("decode-json", func() { decode() })
	run("plain-json", func() { _ = json.Unmarshal([]byte(benchPod), &corev1.Pod{}) })
	run("deepcopy", func() { ready.DeepCopy() })
	run("default", func() { Pods.Default(ready) })
	run("prepare", func() { Pods.PrepareForCreate(ready) })
	run("validate", func() { Pods.Validate(ready) })
	run("prepare-status", func() { Pods.PrepareForUpdate(running.DeepCopy(), running, "status") })
	run("validate-status", func() { Pods.ValidateUpdate(running, running, "status") })
	run("warnings", func() { Pods.Warnings(ready, nil) })
	run("encode-storage", func() { mustEncode(b, ready) })
	run("decode-storage", func() {
		if _, err := decodeStorage(Pods, stored); err != nil {
			b.Fatal(err)
		}
	})
}
