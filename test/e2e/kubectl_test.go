package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// web is a Deployment of the test image that is Ready as soon as it answers.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: docker.io/knarr/e2e-web:v1
        ports: [{containerPort: 8080, name: http}]
        resources: {requests: {cpu: 10m, memory: 16Mi}}
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
`

func TestKubectlShowsObjects(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	session(t, ns, []step{
		{web, "apply -f -", "deployment.apps/web created"},
		{"", "rollout status deployment/web --timeout=60s", `deployment "web" successfully rolled out`},
		{web, "apply -f -", "deployment.apps/web unchanged"},
		{"", "get deploy", "NAME READY UP-TO-DATE AVAILABLE AGE web 2/2 2 2"},
		{"", "get deploy -o wide", "CONTAINERS IMAGES SELECTOR web 2/2 2 2 … web docker.io/knarr/e2e-web:v1 app=web"},
		{"", "get rs", "NAME DESIRED CURRENT READY AGE web-"},
		{"", "get pods", "NAME READY STATUS RESTARTS AGE web-…1/1 Running 0"},
		{"", "get pods -o wide", "IP NODE NOMINATED NODE READINESS GATES … 10.2…<none> <none>"},
		{"", "get po -l app=web -o name", "pod/web-…pod/web-"},
		{"", "get po -l 'app in (x,y)'", "No resources found"},
		{"", "get po -l app!=web", "No resources found"},
		{"", "get po --field-selector status.phase=Running -o name", "pod/web-…pod/web-"},
		{"", "get po --field-selector status.phase=Failed", "No resources found"},
		{"", "!get po --field-selector spec.nonsense=1", "field label not supported: spec.nonsense"},
		{"", "get deploy/web -o jsonpath='{.spec.replicas} {.status.readyReplicas}'", "2 2"},
		{"", "get deploy web -o yaml", "apiVersion: apps/v1 kind: Deployment"},
		{"", "get deploy web -o json", `"kind": "Deployment"`},
		{"", "get po -o custom-columns=N:.metadata.name,I:.spec.containers[0].image", "N I web-… docker.io/knarr/e2e-web:v1"},
		{"", "get po -o go-template='{{range .items}}{{.status.phase}} {{end}}'", "Running Running"},
		{"", "get po --sort-by=.metadata.creationTimestamp --no-headers", "web-…web-"},
		{"", "get po --show-labels", "app=web,pod-template-hash="},
		{"", "get po -L app", "APP web-…web"},
		{"", "get po --chunk-size=1 -o name", "pod/web-…pod/web-"},
		{"", "get all", "pod/web-…deployment.apps/web…replicaset.apps/web-"},
		{"", "!get po nosuch", `Error from server (NotFound): pods "nosuch" not found`},
		{"", "!get frogs", `the server doesn't have a resource type "frogs"`},
		{"", "get po nosuch --ignore-not-found", ""},
		{"", "describe deploy web", "Name: web…Replicas: 2 desired | 2 updated | 2 total | 2 available | 0 unavailable…25% max unavailable, 25% max surge…Available True MinimumReplicasAvailable…Scaled up replica set web-"},
		{"", "describe rs -l app=web --show-events=true", "Controlled By: Deployment/web…2 current / 2 desired…SuccessfulCreate"},
		{"", "describe po -l app=web --show-events=true", "Controlled By: ReplicaSet/web-…Container ID: containerd://…Image ID: …State: Running…Ready: True…Readiness: http-get http://:http/healthz…QoS Class: Burstable…Events:…Normal Started"},
		{"", "describe ns " + ns, "Status: Active"},
		{"", "describe node", "Roles:…MemoryPressure False…Ready True…Capacity:…System Info:…Non-terminated Pods:…Allocated resources:"},
		{"", "get node -o wide", "STATUS ROLES AGE VERSION INTERNAL-IP …Ready <none>…containerd://2.4"},
		{"", "events --for deployment/web", "ScalingReplicaSet Deployment/web Scaled up replica set"},
		{"", "events --types=Normal", "LAST SEEN TYPE REASON OBJECT MESSAGE…Normal Started"},
		{"", "get events --field-selector reason=Scheduled", "Normal Scheduled pod/web-… Successfully assigned"},
		{"", "explain pods.spec.containers.livenessProbe.httpGet.path", "KIND: Pod VERSION: v1 FIELD: path <string>"},
		{"", "explain deploy --recursive", "progressDeadlineSeconds <integer>"},
		{"", "api-resources", "deployments deploy apps/v1 true Deployment"},
		{"", "api-resources --namespaced=false -o name", "clusterroles.rbac.authorization.k8s.io"},
		{"", "api-versions", "apps/v1…rbac.authorization.k8s.io/v1…v1"},
		{"", "version", "Client Version: v1.37…Server Version: v1.37"},
		{"", "cluster-info", "Kubernetes control plane is running at https://"},
		{"", "get --raw /readyz", "ok"},
		{"", "auth whoami", "Groups [system:masters"},
		{"", "auth can-i create deployments", "yes"},
		{"", "!auth can-i create deployments --as=jane", "no"},
		{"", "auth can-i --list --as=jane", "selfsubjectreviews.authentication.k8s.io"},
		{"", "!get po --as=jane", `User "jane" cannot list resource "pods" in API group "" in the namespace "` + ns + `"`},
		{"", "get po --as=jane --as-group=system:masters", "web-"},
	})
}

func TestKubectlShowsWhatIsUsed(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, web)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	for line, want := range map[string]string{
		"top pods":              "NAME CPU(cores) MEMORY(bytes) web-…m …Mi web-…m …Mi",
		"top pods --containers": "POD NAME CPU(cores) MEMORY(bytes) web-… web …m …Mi",
		"top nodes":             "NAME CPU(cores) CPU(%) MEMORY(bytes) MEMORY(%) …m …% …Mi …%",
	} {
		// A rate takes two samples.
		eventually(t, 60*time.Second, "kubectl "+line, func() error {
			out, err := run("", append([]string{"-n", ns}, strings.Fields(line)...)...)
			if err == nil && !shows(out, want) {
				err = fmt.Errorf("it shows\n%s", out)
			}
			return err
		})
	}
}

func TestKubectlChangesObjects(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	session(t, ns, []step{
		{"", "create deployment web --image=docker.io/knarr/e2e-web:v1 --port=8080", "deployment.apps/web created"},
		{"", `patch deploy web -p '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":2}}}}'`, "deployment.apps/web patched"},
		{"", "!create deployment web --image=x", `deployments.apps "web" already exists`},
		{"", "expose deployment web --port=80 --target-port=8080", "service/web exposed"},
		{"", "get svc web", "ClusterIP 10.… <none> 80/TCP"},
		{"", "describe svc web", "Type: ClusterIP…TargetPort: 8080/TCP…Session Affinity: None"},
		{"", "create svc nodeport np --tcp=80:8080", "service/np created"},
		{"", "get svc np -o wide", "NodePort 10.… <none> 80:3…/TCP … app=np"},
		{"", "create svc externalname ext --external-name=example.org", "service/ext created"},
		{"", "create svc clusterip none --clusterip=None", "service/none created"},
		{"", "create configmap cm --from-literal=a=1 --from-literal=b=2", "configmap/cm created"},
		{"", "get cm cm", "NAME DATA AGE cm 2"},
		{"", "create secret generic s --from-literal=password=hush", "secret/s created"},
		{"", "get secret s -o jsonpath={.data.password}", "aHVzaA=="},
		{"", "describe secret s", "Type: Opaque…password: 4 bytes"},
		{"", "create secret docker-registry reg --docker-server=r.example --docker-username=u --docker-password=p", "secret/reg created"},
		{"", "create sa robot", "serviceaccount/robot created"},
		{"", "create token robot", "eyJ"},
		{"", "create role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader created"},
		{"", "create rolebinding reads --role=reader --serviceaccount=" + ns + ":robot", "rolebinding.rbac.authorization.k8s.io/reads created"},
		{"", "auth can-i list pods --as=system:serviceaccount:" + ns + ":robot", "yes"},
		{"", "!auth can-i delete pods --as=system:serviceaccount:" + ns + ":robot", "no"},
		{"", "get role,rolebinding", "role.rbac.authorization.k8s.io/reader…rolebinding.rbac.authorization.k8s.io/reads Role/reader"},
		{"", "create quota q --hard=pods=100", "resourcequota/q created"},
		{"", "create pdb p --selector=app=web --min-available=1", "poddisruptionbudget.policy/p created"},
		{"", "run one --image=busybox:1 --restart=Never --command -- sleep 1000", "pod/one created"},
		{"", "wait --for=condition=Ready pod/one --timeout=60s", "pod/one condition met"},
		{"", "label pod one tier=x", "pod/one labeled"},
		{"", "!label pod one tier=y", "already has a value (x), and --overwrite is false"},
		{"", "label pod one tier=y --overwrite", "pod/one labeled"},
		{"", "get pod -l tier=y -o name", "pod/one"},
		{"", "label pod one tier-", "pod/one unlabeled"},
		{"", "annotate pod one note='two words'", "pod/one annotated"},
		{"", "get pod one -o jsonpath={.metadata.annotations.note}", "two words"},
		{"", "annotate pod one note-", "pod/one annotated"},
		{"", "set env deploy/web COLOUR=blue", "deployment.apps/web env updated"},
		{"", "set env deploy/web --list", "COLOUR=blue"},
		{"", "set resources deploy/web --limits=memory=64Mi --requests=cpu=10m", "deployment.apps/web resource requirements updated"},
		{"", "set serviceaccount deploy/web robot", "deployment.apps/web serviceaccount updated"},
		{"", "set selector svc/np app=web", "service/np selector updated"},
		{"", "set image deploy/web e2e-web=docker.io/knarr/e2e-web:v2", "deployment.apps/web image updated"},
		{"", "autoscale deploy/web --max=3", "horizontalpodautoscaler.autoscaling/web autoscaled"},
		{"", "delete hpa web", `horizontalpodautoscaler.autoscaling "web" deleted`},
		{"", "scale deploy/web --replicas=2", "deployment.apps/web scaled"},
		{"", "!scale deploy/web --current-replicas=7 --replicas=1", "Expected replicas to be 7, was 2"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "get deploy web -o jsonpath='{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].resources.limits.memory} {.spec.replicas}'", "docker.io/knarr/e2e-web:v2 64Mi 2"},
		{"", `patch deploy web -p '{"spec":{"template":{"spec":{"containers":[{"name":"e2e-web","env":[{"name":"MORE","value":"1"}]}]}}}}'`, "deployment.apps/web patched"},
		{"", "get deploy web -o jsonpath={.spec.template.spec.containers[0].env[*].name}", "MORE COLOUR"},
		{"", `patch deploy web --type=merge -p '{"metadata":{"labels":{"m":"1","app":null}}}'`, "deployment.apps/web patched"},
		{"", `patch deploy web --type=json -p '[{"op":"test","path":"/metadata/labels/m","value":"1"},{"op":"add","path":"/metadata/labels/j","value":"2"}]'`, "deployment.apps/web patched"},
		{"", `!patch deploy web --type=json -p '[{"op":"test","path":"/metadata/labels/m","value":"7"}]'`, "testing value /metadata/labels/m failed"},
		{"", "get deploy web -o jsonpath={.metadata.labels}", `{"j":"2","m":"1"}`},
		{"", `patch deploy web --subresource=scale --type=merge -p '{"spec":{"replicas":1}}'`, "scale.autoscaling/web patched"},
		{"", "get deploy web --subresource=scale -o jsonpath={.spec.replicas}", "1"},
		{"", `patch cm cm -p '{"data":{"a":"9"}}' --dry-run=server -o jsonpath={.data.a}`, "9"},
		{"", "get cm cm -o jsonpath={.data.a}", "1"},
		{"", "create cm dry --from-literal=a=1 --dry-run=server", "configmap/dry created (server dry run)"},
		{"", "!get cm dry", "not found"},
		{"", "wait --for=jsonpath='{.status.readyReplicas}'=1 deploy/web --timeout=60s", "deployment.apps/web condition met"},
		{"", "delete pod one --grace-period=1", `pod "one" deleted`},
		{"", "delete cm,secret --all", `configmap "cm" deleted`},
		{"", "delete svc np ext none --now", `service "np" deleted`},
		{"", "delete deploy web --cascade=foreground", `deployment.apps "web" deleted`},
		{"", "get rs,pods -o name --ignore-not-found", ""},
		{"", "!delete deploy web", "not found"},
		{"", "delete deploy web --ignore-not-found", ""},
	})
}

func TestKubectlAppliesAndEdits(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const cm = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: \"%\", b: \"2\"}\n"
	one, two := strings.ReplaceAll(cm, "%", "1"), strings.ReplaceAll(cm, "%", "2")
	session(t, ns, []step{
		{one, "create -f -", "configmap/c created"},
		{one, "!create -f -", `configmaps "c" already exists`},
		{two, "!diff -f -", `-  a: "1" + a: "2"`},
		{one, "diff -f -", ""},
		{two, "replace -f -", "configmap/c replaced"},
		{one, "replace --force -f -", "configmap/c replaced"},
		{"", "delete cm c", "deleted"},
		{one, "apply --server-side --field-manager=alice -f -", "configmap/c serverside-applied"},
		{two, "!apply --server-side --field-manager=bob -f -", `Apply failed with 1 conflict: conflict with "alice" … .data.a`},
		{two, "apply --server-side --field-manager=bob --force-conflicts -f -", "configmap/c serverside-applied"},
		{"", "get cm c -o jsonpath={.data.a}", "2"},
		{"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n", "apply --server-side --field-manager=bob -f -", "configmap/c serverside-applied"},
		{"", "get cm c -o jsonpath={.data}", `{"b":"2"}`}, // alice still owns b
		{two, "apply --server-side --field-manager=carol -f - --dry-run=server", "configmap/c serverside-applied (server dry run)"},
		{one, "delete -f -", `configmap "c" deleted`},
		{one, "apply -f -", "configmap/c created"},
		{strings.Replace(one, ", b: \"2\"", "", 1), "apply -f -", "configmap/c configured"},
		{"", "get cm c -o jsonpath={.data}", `{"a":"1"}`},
		{"", "apply view-last-applied cm/c", `a: "1"`},
		{one + "frog: 1\n", "!apply -f -", `unknown field "frog"`},
		{one + "frog: 1\n", "apply --validate=ignore -f -", "configmap/c configured"},
		{strings.Replace(one, "name: c", "name: c2", 1), "apply --prune --all --prune-allowlist=core/v1/ConfigMap -f -", "configmap/c2 created…configmap/c pruned"},
	})

	// edit, with an editor that changes a value, and with one that writes nonsense.
	edit := func(script string, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := command(ctx, append([]string{"-n", ns, "edit"}, args...)...)
		cmd.Env = append(os.Environ(), "KUBE_EDITOR="+editor(t, script))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := edit(`sed -i 's/a: "1"/a: edited/' "$1"`, "cm/c2"); err != nil || !shows(out, "configmap/c2 edited") {
		t.Errorf("kubectl edit: %v\n%s", err, out)
	}
	if got := kubectl(t, "-n", ns, "get", "cm", "c2", "-o", "jsonpath={.data.a}"); got != "edited" {
		t.Errorf("after kubectl edit, a is %q", got)
	}
	if out, err := edit(":", "cm/c2"); err != nil || !shows(out, "Edit cancelled, no changes made") {
		t.Errorf("kubectl edit without a change: %v\n%s", err, out)
	}
}

func TestKubectlRollsOut(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, web)
	session(t, ns, []step{
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "annotate deploy/web kubernetes.io/change-cause=first", "annotated"},
		{"", "set image deploy/web web=docker.io/knarr/e2e-web:v2", "image updated"},
		{"", "annotate deploy/web kubernetes.io/change-cause=second --overwrite", "annotated"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "rollout history deploy/web", "REVISION CHANGE-CAUSE 1 first 2 second"},
		{"", "rollout history deploy/web --revision=1", "Image: docker.io/knarr/e2e-web:v1"},
		{"", "rollout undo deploy/web", "deployment.apps/web rolled back"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "docker.io/knarr/e2e-web:v1"},
		{"", "rollout history deploy/web", "REVISION CHANGE-CAUSE 2 second 3 first"},
		{"", "rollout undo deploy/web --to-revision=2", "rolled back"},
		{"", "!rollout undo deploy/web --to-revision=77", "unable to find specified revision 77"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "rollout pause deploy/web", "deployment.apps/web paused"},
		{"", "!rollout pause deploy/web", "already paused"},
		{"", "set image deploy/web web=docker.io/knarr/e2e-web:v1", "image updated"},
		{"", "!rollout undo deploy/web", "cannot rollback a paused deployment"},
		{"", "get pods -o jsonpath={.items[*].spec.containers[*].image}", "docker.io/knarr/e2e-web:v2 docker.io/knarr/e2e-web:v2"},
		{"", "describe deploy web", "Progressing Unknown DeploymentPaused"},
		{"", "rollout resume deploy/web", "deployment.apps/web resumed"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "rollout restart deploy/web", "deployment.apps/web restarted"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "get deploy web -o jsonpath={.spec.template.metadata.annotations}", "kubectl.kubernetes.io/restartedAt"},
	})
}

func TestKubectlWatchesAndWaits(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	watch := start(t, "-n", ns, "get", "pods", "-w", "--output-watch-events")
	names := start(t, "-n", ns, "get", "pods", "-w", "-o", "name")
	created := start(t, "-n", ns, "wait", "--for=create", "pod/w", "--timeout=60s")
	session(t, ns, []step{
		{"", "run w --image=busybox:1 --restart=Never --command -- sh -c 'sleep 1; exit 4'", "pod/w created"},
		{"", "wait --for=condition=Ready pod/w --timeout=60s", "condition met"},
		{"", "wait --for=jsonpath='{.status.phase}'=Failed pod/w --timeout=60s", "condition met"},
		{"", "!wait --for=condition=Ready pod/w --timeout=1s", "timed out waiting for the condition on pods/w"},
		{"", "get pod w", "0/1 Error 0"},
		{"", "get pod w -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode}", "4"},
	})
	watch.waitFor(t, 10*time.Second, "EVENT NAME READY STATUS…ADDED w 0/1…MODIFIED w 1/1 Running…MODIFIED w 0/1 Error")
	names.waitFor(t, 10*time.Second, "pod/w pod/w")
	if err := created.wait(t, 10*time.Second); err != nil {
		t.Errorf("kubectl wait --for=create: %v\n%s", err, created)
	}
	gone := start(t, "-n", ns, "wait", "--for=delete", "pod/w", "--timeout=60s")
	kubectl(t, "-n", ns, "delete", "pod", "w")
	if err := gone.wait(t, 20*time.Second); err != nil {
		t.Errorf("kubectl wait --for=delete: %v\n%s", err, gone)
	}
	watch.waitFor(t, 10*time.Second, "DELETED w")
}

// A node that no machine stands behind, so that nothing else is disturbed.
func TestKubectlLooksAfterNodes(t *testing.T) {
	t.Parallel()
	name := "ghost-" + strings.ToLower(t.Name()[len(t.Name())-5:])
	ghost := "apiVersion: v1\nkind: Node\nmetadata: {name: " + name + ", labels: {ghost: \"yes\"}}\nspec: {unschedulable: true}\n"
	session(t, "default", []step{
		{ghost, "create -f -", "node/" + name + " created"},
		{"", "get node " + name, "SchedulingDisabled"},
		{"", "uncordon " + name, "node/" + name + " uncordoned"},
		{"", "taint node " + name + " k=v:NoSchedule", "node/" + name + " tainted"},
		{"", "get node -l ghost -o jsonpath={.items[0].spec.taints[*].key}", "k"},
		{"", "taint node " + name + " k-", "node/" + name + " untainted"},
		{"", "cordon " + name, "node/" + name + " cordoned"},
		{"", "drain " + name, "node/" + name + " drained"},
		{"", "delete node " + name, "deleted"},
	})
}

func TestKubectlSaysSoWhenTheServerIsGone(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(cluster.bin, "kubectl", "--server", "https://127.0.0.1:1", "--token", "x", "get", "pods").CombinedOutput()
	if err == nil || !shows(string(out), "The connection to the server 127.0.0.1:1 was refused") {
		t.Errorf("%v\n%s", err, out)
	}
}
