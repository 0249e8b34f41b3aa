package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// read decodes a manifest as the server does: into the stored version, then defaults.
func read(t testing.TB, manifest string) Object {
	t.Helper()
	obj, gvk, err := Codecs.UniversalDeserializer().Decode([]byte("---\n"+manifest), nil, nil)
	if err != nil {
		t.Fatalf("decode: %v\n%s", err, manifest)
	}
	res := BuiltinCatalog().Kind(*gvk)
	if res == nil {
		t.Fatalf("%s is not served", gvk)
	}
	obj, err = Convert(obj, res.GroupVersion())
	if err != nil {
		t.Fatal(err)
	}
	o := obj.(Object)
	res.Default(o)
	return o
}

func resourceOf(t testing.TB, obj Object) *Resource {
	t.Helper()
	kinds, _, err := Scheme.ObjectKinds(obj)
	if err != nil {
		t.Fatal(err)
	}
	return BuiltinCatalog().Kind(kinds[0])
}

func texts(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

const goodPod = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  containers: [{name: web, image: nginx}]
`

const goodDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: nginx}]
`

const goodService = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.7
  selector: {app: web}
  ports: [{name: http, port: 80}]
`

const goodWebhook = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: hook}
webhooks:
- name: hook.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {namespace: default, name: hook}}
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  matchConditions: [{name: named, expression: "object.metadata.name != 'x'"}]
`

func TestValidateCreate(t *testing.T) {
	cases := []struct {
		name, manifest string
		want           []string
	}{
		{"pod", goodPod, nil},
		{"deployment", goodDeployment, nil},
		{"service", goodService, nil},
		{"privileged pod", strings.Replace(goodPod, "image: nginx", "image: nginx, securityContext: {privileged: true}", 1), nil},
		{"no image", strings.Replace(goodPod, ", image: nginx", "", 1), []string{
			`spec.containers[0].image: Required value`,
		}},
		{"no containers", `{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: b}, spec: {}}`, []string{
			`spec.containers: Required value`,
		}},
		{"bad names", `{apiVersion: v1, kind: Pod, metadata: {name: A_b, namespace: b}, spec: {containers: [{name: C, image: i}]}}`, []string{
			`metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		}},
		{"limits below requests", strings.Replace(goodPod, "image: nginx", "image: nginx, resources: {requests: {cpu: 2}, limits: {cpu: 1}}", 1), []string{
			`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`,
		}},
		{"unknown restart policy", strings.Replace(goodPod, "spec:", "spec:\n  restartPolicy: Sometimes", 1), []string{
			`spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`,
		}},
		{"mount without volume", strings.Replace(goodPod, "image: nginx", "image: nginx, volumeMounts: [{name: v, mountPath: /v}]", 1), []string{
			`spec.containers[0].volumeMounts[0].name: Not found: "v"`,
		}},
		{"selector does not match", strings.Replace(goodDeployment, "labels: {app: web}", "labels: {app: db}", 1), []string{
			"spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
		}},
		{"negative replicas", strings.Replace(goodDeployment, "spec:", "spec:\n  replicas: -1", 1), []string{
			`spec.replicas: Invalid value: -1: must be greater than or equal to 0`,
		}},
		{"no selector", `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a, namespace: b}, spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`, []string{
			`spec.selector: Required value`,
			"spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
		}},
		{"no ports", strings.Replace(goodService, "  ports: [{name: http, port: 80}]\n", "", 1), []string{
			`spec.ports: Required value`,
		}},
		{"port range", strings.Replace(goodService, "port: 80", "port: 99999", 1), []string{
			`spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive`,
			`spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive`,
		}},
		{"config map key", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: b}, data: {"a/b": c}}`, []string{
			`data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')`,
		}},
		{"tls secret without key", `{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: b}, type: kubernetes.io/tls}`, []string{
			`data[tls.crt]: Required value`, `data[tls.key]: Required value`,
		}},
		{"namespace in a cluster-scoped object", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a, namespace: b}}`, []string{
			`metadata.namespace: Forbidden: not allowed on this type`,
		}},
		{"no namespace", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`, []string{`metadata.namespace: Required value`}},
		{"role binding to nothing", `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a, namespace: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Potato, name: r}}`, []string{
			`roleRef.kind: Unsupported value: "Potato": supported values: "Role", "ClusterRole"`,
		}},
		{"rule without verbs", `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a, namespace: b}, rules: [{apiGroups: [""], resources: [pods]}]}`, []string{
			`rules[0].verbs: Required value`,
		}},
		{"endpoint slice address", `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, namespace: b}, addressType: IPv4, endpoints: [{addresses: [nonsense]}]}`, []string{
			`endpoints[0].addresses[0]: Invalid value: "nonsense": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
		}},
		{"disruption budget", `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a, namespace: b}, spec: {minAvailable: 1, maxUnavailable: 1, selector: {}}}`, []string{
			`spec: Invalid value: {"MinAvailable":1,"Selector":{},"MaxUnavailable":1,"UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set`,
		}},
		{"lease", `{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a, namespace: b}, spec: {leaseDurationSeconds: 0}}`, []string{
			`spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0`,
		}},
		{"service range", `{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: a}, spec: {cidrs: [10.0.0.1/8]}}`, []string{
			`spec.cidrs[0]: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length`,
		}},
		{"ip address", `{apiVersion: networking.k8s.io/v1, kind: IPAddress, metadata: {name: 10.0.0.1}}`, []string{
			`spec.parentRef: Required value`,
		}},
		{"priority", `{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: a}, value: 2000000000}`, []string{
			`value: Forbidden: maximum allowed value of a user defined priority is 1000000000`,
		}},
		{"ingress", goodIngress, nil},
		{"ingress without rules", `{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: b}, spec: {}}`, []string{
			"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
		}},
		{"ingress class", `{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: a}, spec: {controller: nonsense}}`, []string{
			`spec.controller: Invalid value: "nonsense": must be a domain-prefixed path (such as "acme.io/foo")`,
		}},
		{"network policy", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b}, spec: {podSelector: {}, ingress: [{from: [{}]}]}}`, []string{
			`spec.ingress[0].from[0]: Required value: must specify a peer`,
		}},
		{"storage class", `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: a}}`, []string{`provisioner: Required value`}},
		{"volume attributes class", `{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: a}, driverName: x.example}`, []string{
			`parameters: Required value: must contain at least one key/value pair`,
		}},
		{"storage capacity", `{apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, metadata: {name: a, namespace: b}, storageClassName: c, capacity: -1}`, []string{
			`capacity: Invalid value: "-1": must be greater than or equal to 0`,
		}},
		{"webhook", goodWebhook, nil},
		{"webhook named like one of a file", strings.Replace(goodWebhook, "name: hook}", "name: hook.static.k8s.io}", 1), []string{
			`metadata.name: Invalid value: "hook.static.k8s.io": names ending with ".static.k8s.io" are reserved for static manifest-based configurations and cannot be managed via the API`,
		}},
		{"webhook with side effects", strings.Replace(goodWebhook, "sideEffects: None", "sideEffects: Some", 1), []string{
			`webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"`,
		}},
		{"webhook with a condition that is none", strings.Replace(goodWebhook, "object.metadata.name != 'x'", "1 + 1", 1), []string{
			`webhooks[0].matchConditions[0].expression: Invalid value: "1 + 1": must evaluate to bool but got int`,
		}},
		{"flow schema", goodFlowSchema, nil},
		{"flow schema before all others", strings.Replace(goodFlowSchema, "distinguisherMethod:", "matchingPrecedence: 1\n  distinguisherMethod:", 1), []string{
			`spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1`,
		}},
		{"priority level that is exempt", `{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: a}, spec: {type: Exempt}}`, []string{
			"spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
		}},
		{"runtime class", `{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: a}}`, []string{`handler: Required value`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			obj := read(t, c.manifest)
			res := resourceOf(t, obj)
			res.PrepareForCreate(obj)
			before := obj.DeepCopyObject()
			if diff := cmp.Diff(c.want, texts(res.Validate(obj))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, runtime.Object(obj)); diff != "" {
				t.Errorf("Validate changed the object:\n%s", diff)
			}
		})
	}
}

func TestValidateUpdate(t *testing.T) {
	cases := []struct {
		name, old string
		change    func(string) string
		sub       string
		want      []string
	}{
		{"nothing", goodPod, replace("", ""), "", nil},
		{"image", goodPod, replace("image: nginx", "image: nginx@sha256:"+strings.Repeat("0", 64)+", imagePullPolicy: Always"), "", nil},
		{"immutable pod spec", goodPod, replace("spec:", "spec:\n  hostNetwork: true"), "", []string{
			"spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
		}},
		{"immutable selector", goodDeployment, replace("app: web", "app: db"), "", []string{
			`spec.selector: Invalid value: {"matchLabels":{"app":"db"}}: field is immutable`,
		}},
		{"cluster address", goodService, replace("10.96.0.7", "10.96.0.8"), "", []string{
			`spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set`,
		}},
		{"renamed", goodDeployment, replace("{name: web, namespace", "{name: db, namespace"), "", []string{
			`metadata.name: Invalid value: "db": field is immutable`,
		}},
		{"sealed", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: b}, immutable: true, data: {k: v}}`, replace("k: v", "k: w"), "", []string{
			"data: Forbidden: field is immutable when `immutable` is set",
		}},
		{"role ref", `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a, namespace: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}}`, replace("name: r}", "name: s}"), "", []string{
			`roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"s"}: field is immutable`,
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			old := read(t, c.old)
			res := resourceOf(t, old)
			res.PrepareForCreate(old)
			old.SetUID("u")
			old.SetResourceVersion("1")
			obj := read(t, c.change(c.old))
			obj.SetResourceVersion("1")
			before := old.DeepCopyObject()
			res.PrepareForUpdate(obj, old, c.sub)
			if diff := cmp.Diff(c.want, uniq(texts(res.ValidateUpdate(obj, old, c.sub)))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, runtime.Object(old)); diff != "" {
				t.Errorf("the stored object changed:\n%s", diff)
			}
		})
	}
}

func replace(from, to string) func(string) string {
	return func(s string) string { return strings.ReplaceAll(s, from, to) }
}

// uniq keeps the first line of each error (a forbidden pod update appends a diff) and each text once (metadata is checked
// by the common rules and by the kind's).
func uniq(in []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range in {
		s, _, _ = strings.Cut(s, "\n")
		if !seen[s] {
			out = append(out, s)
		}
		seen[s] = true
	}
	return out
}
