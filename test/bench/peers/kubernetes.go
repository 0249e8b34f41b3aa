package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const etcdURL = "http://127.0.0.1:2379" // without TLS: it spares both ends the work

// startKubernetes starts etcd and the three processes of a control plane, with everything on that helps them here and nothing off that
// Knarr does too: no limits on clients or requests, no leader election, one identity with all rights (no RBAC rules to walk through), more workers in
// the controllers that the load keeps busy, protobuf between the components (the default).
func (b *bench) startKubernetes(ctx context.Context, c *cluster) error {
	keys, err := b.startAPIServer(ctx, c)
	if err != nil {
		return err
	}
	schedulerConfig := filepath.Join(c.dir, "scheduler.yaml")
	if err := os.WriteFile(schedulerConfig, fmt.Appendf(nil, `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %s, qps: 10000, burst: 10000, contentType: %s}
`, c.kubeconfig, protobufType), 0o600); err != nil {
		return err
	}
	if err := c.start("kube-controller-manager", filepath.Join(b.peers, "kube-controller-manager"),
		"--kubeconfig", c.kubeconfig, "--bind-address", "127.0.0.1", "--cert-dir", c.dir, "--leader-elect=false",
		"--service-account-private-key-file", keys.serviceAccount, "--root-ca-file", keys.ca,
		"--kube-api-qps", "10000", "--kube-api-burst", "10000",
		"--concurrent-deployment-syncs", "20", "--concurrent-replicaset-syncs", "20", "--concurrent-job-syncs", "20", "--concurrent-cron-job-syncs", "20",
		"--concurrent-statefulset-syncs", "20", "--concurrent-daemonset-syncs", "20"); err != nil {
		return err
	}
	if err := c.start("kube-scheduler", filepath.Join(b.peers, "kube-scheduler"),
		"--config", schedulerConfig, "--bind-address", "127.0.0.1", "--cert-dir", c.dir); err != nil {
		return err
	}
	// Pods can be created once the controllers have made the namespace's service account.
	return c.wait(ctx, "the controllers to work", startTimeout, 20*time.Millisecond, func(ctx context.Context) error {
		_, err := c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", "")
		return err
	})
}

// startAPIServer starts etcd and kube-apiserver, which are all that a load on one object needs.
func (b *bench) startAPIServer(ctx context.Context, c *cluster) (keys, error) {
	k, err := makeKeys(c.dir, c.kubeconfig)
	if err != nil {
		return keys{}, err
	}
	began := time.Now()
	if err := c.start("etcd", filepath.Join(b.peers, "etcd"),
		"--data-dir", filepath.Join(c.dir, "etcd"), "--log-level", "warn",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL, "--quota-backend-bytes", "8589934592"); err != nil {
		return keys{}, err
	}
	if err := c.start("kube-apiserver", filepath.Join(b.peers, "kube-apiserver"),
		"--etcd-servers", etcdURL, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none",
		"--tls-cert-file", k.serverCert, "--tls-private-key-file", k.serverKey, "--client-ca-file", k.ca,
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", k.serviceAccount,
		"--service-account-signing-key-file", k.serviceAccount, "--service-cluster-ip-range", "10.96.0.0/16",
		"--authorization-mode", "RBAC", "--enable-priority-and-fairness=false",
		"--max-requests-inflight", "0", "--max-mutating-requests-inflight", "0"); err != nil {
		return keys{}, err
	}
	return k, c.waitReady(ctx, began)
}
