package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestEnvironment(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "-n", ns, "create", "configmap", "cm", "--from-literal=colour=blue", "--from-literal=size=big")
	kubectl(t, "-n", ns, "create", "secret", "generic", "s", "--from-literal=password=hush")
	apply(t, ns, manifest("p", `
  restartPolicy: Never
  enableServiceLinks: false
  containers:
  - name: c
    image: busybox:1
    command: [env]
    resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {memory: 32Mi}}
    envFrom:
    - {prefix: CM_, configMapRef: {name: cm}}
    - {secretRef: {name: s}}
    - {secretRef: {name: nosuch, optional: true}}
    env:
    - {name: A, value: "1"}
    - {name: B, value: "$(A)2 $$(A) $(NOSUCH)"}
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: cm, key: colour}}}
    - {name: MAYBE, valueFrom: {configMapKeyRef: {name: cm, key: nosuch, optional: true}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: HOSTIP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
`)+manifest("nokey", `
  containers: [{name: c, image: "busybox:1", env: [{name: X, valueFrom: {configMapKeyRef: {name: cm, key: nosuch}}}]}]
`)+manifest("nosecret", `
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "`+obedient+`"], env: [{name: X, valueFrom: {secretKeyRef: {name: later, key: k}}}]}]
`))
	p := awaitPod(t, ns, "p", 60*time.Second, "ended", ended)
	env := "\n" + kubectl(t, "-n", ns, "logs", "p")
	for _, want := range []string{"CM_colour=blue", "CM_size=big", "password=hush", "A=1", "B=12 $(A) $(NOSUCH)", "COLOUR=blue", "NAME=p", "NS=" + ns,
		"LABEL=p", "IP=" + p.Status.PodIP, "HOSTIP=" + p.Status.HostIP, "SA=default", "LIMIT=32", "KUBERNETES_SERVICE_HOST=10.96.0.1", "HOSTNAME=p"} {
		if !strings.Contains(env, "\n"+want+"\n") {
			t.Errorf("the environment has no %s:%s", want, env)
		}
	}
	if strings.Contains(env, "MAYBE=") {
		t.Errorf("an optional key that does not exist is in the environment:%s", env)
	}
	awaitPod(t, ns, "nokey", 30*time.Second, "refused", waitingFor("CreateContainerConfigError", "couldn't find key nosuch in ConfigMap "+ns+"/cm"))
	awaitPod(t, ns, "nosecret", 30*time.Second, "refused", waitingFor("CreateContainerConfigError", `secret "later" not found`))
	kubectl(t, "-n", ns, "create", "secret", "generic", "later", "--from-literal=k=v")
	awaitPod(t, ns, "nosecret", 90*time.Second, "Ready once its Secret is there", ready)
}

const volumes = `
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 4321}
  volumes:
  - {name: cm, configMap: {name: cm, defaultMode: 0400, items: [{key: a, path: deep/a}, {key: b, path: b, mode: 0777}]}}
  - {name: secret, secret: {secretName: s}}
  - {name: maybe, configMap: {name: nosuch, optional: true}}
  - name: me
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
  - {name: host, hostPath: {path: HOSTDIR/made, type: DirectoryOrCreate}}
  - name: all
    projected:
      sources:
      - {configMap: {name: cm, items: [{key: a, path: from-cm}]}}
      - {secret: {name: s, items: [{key: password, path: from-secret}]}}
      - {serviceAccountToken: {path: token, audience: vault, expirationSeconds: 700}}
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "OBEDIENT"]
    resources: {limits: {cpu: 250m, memory: 64Mi}}
    volumeMounts:
    - {name: cm, mountPath: /v/cm}
    - {name: secret, mountPath: /v/secret, readOnly: true}
    - {name: maybe, mountPath: /v/maybe}
    - {name: me, mountPath: /v/me}
    - {name: scratch, mountPath: /v/scratch}
    - {name: memory, mountPath: /v/memory}
    - {name: host, mountPath: /v/host}
    - {name: all, mountPath: /v/all}
    - {name: cm, mountPath: /etc/one-file, subPath: deep/a}
`

func TestVolumes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	host := t.TempDir()
	kubectl(t, "-n", ns, "create", "configmap", "cm", "--from-literal=a=first", "--from-literal=b=#!/bin/sh\necho script")
	kubectl(t, "-n", ns, "create", "secret", "generic", "s", "--from-literal=password=hush")
	apply(t, ns, manifest("p", strings.NewReplacer("HOSTDIR", host, "OBEDIENT", obedient).Replace(volumes)))
	p := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
	session(t, ns, []step{
		{"", "exec p -- cat /v/cm/deep/a", "first"},
		{"", "exec p -- stat -L -c %a:%g /v/cm/deep/a", "440:4321"}, // fsGroup may read what the owner may
		{"", "exec p -- /v/cm/b", "script"},
		{"", "exec p -- cat /v/secret/password", "hush"},
		{"", "!exec p -- touch /v/secret/x", "Read-only file system"},
		{"", "exec p -- grep /v/secret /proc/mounts", "tmpfs"},
		{"", "exec p -- ls /v/maybe", ""},
		{"", "exec p -- cat /v/me/labels", `app="p"`},
		{"", "exec p -- cat /v/me/cpu", "250"},
		{"", "exec p -- sh -c 'echo x > /v/scratch/x && stat -c %g /v/scratch'", "4321"},
		{"", "exec p -- sh -c 'grep /v/memory /proc/mounts'", "tmpfs … size=16384k"},
		{"", "!exec p -- dd if=/dev/zero of=/v/memory/big bs=1M count=20", "No space left on device"},
		{"", "exec p -- sh -c 'echo from inside > /v/host/file'", ""},
		{"", "exec p -- cat /v/all/from-cm /v/all/from-secret /etc/one-file", "firsthushfirst"},
	})
	if got, err := os.ReadFile(filepath.Join(host, "made", "file")); err != nil || string(got) != "from inside\n" {
		t.Errorf("the file written into the hostPath volume: %q, %v", got, err)
	}
	checkToken(t, p, kubectl(t, "-n", ns, "exec", "p", "--", "cat", "/v/all/token"))

	// Changes arrive in the running container.
	kubectl(t, "-n", ns, "patch", "configmap", "cm", "-p", `{"data":{"a":"second"}}`)
	kubectl(t, "-n", ns, "label", "pod", "p", "mood=good")
	began := time.Now()
	for file, want := range map[string]string{"/v/cm/deep/a": "second", "/v/all/from-cm": "second", "/v/me/labels": `mood="good"`} {
		eventually(t, 60*time.Second, "the change in "+file, func() error {
			if got := kubectl(t, "-n", ns, "exec", "p", "--", "cat", file); !strings.Contains(got, want) {
				return fmt.Errorf("it holds %q", got)
			}
			return nil
		})
	}
	t.Logf("changes were visible within %v", time.Since(began).Round(time.Millisecond))
	if got := kubectl(t, "-n", ns, "exec", "p", "--", "cat", "/etc/one-file"); got != "first" {
		t.Errorf("a file mounted by subPath changed to %q; it is to stay as it was", got)
	}
	kubectl(t, "-n", ns, "delete", "pod", "p")
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), string(p.UID)) {
		t.Errorf("mounts of the deleted pod %s are left", p.UID)
	}
}

// checkToken looks into a token of a projected volume: made for the audience, bound to the pod, and of the length asked for.
func checkToken(t testing.TB, p *corev1.Pod, token string) {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 3 {
		t.Fatalf("the token is %q", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Aud        []string `json:"aud"`
		Sub        string   `json:"sub"`
		Exp, Iat   int64
		Kubernetes struct {
			Pod, Node struct{ Name, UID string }
		} `json:"kubernetes.io"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if len(claims.Aud) != 1 || claims.Aud[0] != "vault" || claims.Sub != "system:serviceaccount:"+p.Namespace+":default" ||
		claims.Exp-claims.Iat != 700 || claims.Kubernetes.Pod.UID != string(p.UID) || claims.Kubernetes.Node.Name != p.Spec.NodeName {
		t.Errorf("the token's claims are %s", payload)
	}
}

func TestVolumesThatCannotBeMountedAreExplained(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const spec = `
  volumes: [{name: v, %s}]
  containers: [{name: c, image: "busybox:1", volumeMounts: [{name: v, mountPath: /v}]}]
`
	apply(t, ns, manifest("nocm", fmt.Sprintf(spec, "configMap: {name: nosuch}"))+
		manifest("nodir", fmt.Sprintf(spec, "hostPath: {path: /nosuch, type: Directory}")))
	for name, want := range map[string]string{
		"nocm":  `MountVolume.SetUp failed for volume "v" : configmap "nosuch" not found`,
		"nodir": `MountVolume.SetUp failed for volume "v" : hostPath type check failed: /nosuch is not a directory`,
	} {
		eventually(t, 30*time.Second, "an event about pod "+name, func() error {
			out := kubectl(t, "-n", ns, "get", "events", "--field-selector", "reason=FailedMount,involvedObject.name="+name)
			if !shows(out, want) {
				return fmt.Errorf("the events are:\n%s", out)
			}
			return nil
		})
	}
	session(t, ns, []step{{"", "get pod nocm", "0/1 ContainerCreating 0"}})
}

func TestNamesInsideAPod(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("p", `
  restartPolicy: Never
  hostname: anna
  subdomain: family
  shareProcessNamespace: true
  hostAliases: [{ip: 1.2.3.4, hostnames: [four.example]}]
  dnsConfig: {searches: [corp.example], options: [{name: ndots, value: "3"}]}
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "hostname; hostname -f; cat /etc/hosts /etc/resolv.conf; ps"]}]
`))
	awaitPod(t, ns, "p", 60*time.Second, "ended", ended)
	out := kubectl(t, "-n", ns, "logs", "p")
	domain := ns + ".svc.cluster.local"
	want := "anna anna.family." + domain + "…1.2.3.4 four.example…search " + domain + " svc.cluster.local cluster.local…corp.example…nameserver 10.96.0.10…options ndots:3…/pause"
	if !shows(strings.ReplaceAll(out, "\t", " "), want) {
		t.Errorf("want %s, got:\n%s", want, out)
	}
}
