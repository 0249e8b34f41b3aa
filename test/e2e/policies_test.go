package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// NetworkPolicies on real pods: who may, may; who may not, does not, from the first moment of its life and while nobody looks after the rules.

// defaultDeny denies all pods of a namespace everything, both ways; its server may be reached by its friends.
const defaultDeny = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all-may-ask-the-server}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [friend, stranger]}]}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: server}}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: http}]
`

// asker is a pod that asks the Service server all the time and notes when it got an answer. It asks from its first moment on.
func asker(name string) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `, labels: {app: ` + name + `}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command:
    - sh
    - -c
    - while :; do if timeout 1 wget -q -O /dev/null http://$SERVER_SERVICE_HOST/; then date +%s >>/tmp/answers; else echo >>/tmp/silence; fi; sleep 0.2; done
    resources: {requests: {cpu: 5m, memory: 8Mi}}
`
}

const policyServer = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command: [sh, -c, "mkdir /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
    ports: [{name: http, containerPort: 8080}]
    resources: {requests: {cpu: 5m, memory: 8Mi}}
    readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
`

func TestPoliciesHoldAlsoWhileTheServerIsDead(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := setUp(t, []string{"pod/server", "pod/friend", "pod/stranger"}, defaultDeny, policyServer, asker("friend"), asker("stranger"))
	// answers are the times at which a pod had an answer.
	answers := func(pod string) []string {
		return strings.Fields(kubectl(t, "-n", ns, "exec", pod, "--", "sh", "-c", "touch /tmp/answers; cat /tmp/answers"))
	}
	hasAnswer := func(pod string) {
		t.Helper()
		eventually(t, 20*time.Second, "an answer for the "+pod, func() error {
			if len(answers(pod)) == 0 {
				return errors.New("there is none")
			}
			return nil
		})
	}
	hasAnswer("friend")
	// Names are the node's to answer, which no policy is about.
	if out, err := run("", "-n", ns, "exec", "friend", "--", "timeout", "5", "wget", "-q", "-O", "-", "http://server/"); err != nil || !strings.HasPrefix(out, "server") {
		t.Errorf("the server by its name, under default deny: %q %v", out, err)
	}
	end(t, serverPID(), syscall.SIGKILL)
	dead := time.Now()
	time.Sleep(3 * time.Second) // whatever goes on without Knarr
	again := time.Now()
	if err := startCluster(); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", ns, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=30s")
	answered := 0
	for _, line := range answers("friend") {
		if at, err := strconv.ParseInt(line, 10, 64); err == nil && at > dead.Unix() && at < again.Unix() {
			answered++
		}
	}
	if answered == 0 {
		t.Errorf("the friend had no answer while Knarr was dead, from %d to %d: %v", dead.Unix(), again.Unix(), answers("friend"))
	}
	if got := answers("stranger"); len(got) > 0 {
		t.Errorf("the stranger had answers at %v", got)
	}
	if out, err := run("", "-n", ns, "exec", "stranger", "--", "sh", "-c", "wc -l </tmp/silence"); err != nil || strings.TrimSpace(out) == "0" {
		t.Errorf("the stranger did not ask: %q %v", out, err)
	}
	// The server's policy is in force, and the stranger's packets are counted for it.
	listed := regexp.MustCompile(`(?m)^\S+ +server +1/1 +20\S+Z +[1-9][0-9]* +0$`)
	eventually(t, 10*time.Second, "dropped packets in knarr policy ls", func() error {
		out, err := knarr("policy", "ls", "-n", ns)
		if err == nil && !listed.MatchString(out) {
			err = fmt.Errorf("it shows\n%s", out)
		}
		return err
	})
	if out, err := knarr("why", "connect", "-n", ns, "stranger", "service/server:80"); err == nil || !strings.Contains(out, "none of its 1 rules for ingress") {
		t.Errorf("knarr why connect: %v\n%s", err, out)
	}
	kubectl(t, "-n", ns, "label", "pod", "stranger", "app=friend", "--overwrite")
	hasAnswer("stranger")
}
