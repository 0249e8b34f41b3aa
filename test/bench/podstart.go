package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const waitImage = "docker.io/knarr/bench-wait:1"

// measurePodStart starts pods one after the other through the API, and the same pods by bare CRI calls, in turn, so that both see the
// same machine.
func measurePodStart(ctx context.Context, b *bench) (_ []figure, err error) {
	rounds := 30
	if b.quick {
		rounds = 8
	}
	s, stop, err := b.startNode(ctx, "podstart")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := b.importPause(ctx, s, waitImage); err != nil {
		return nil, err
	}
	sockets, err := filepath.Glob(filepath.Join(s.dataDir, "*", "containerd.sock"))
	if err != nil || len(sockets) != 1 {
		return nil, fmt.Errorf("one containerd.sock expected below %s, found %v (%v)", s.dataDir, sockets, err)
	}
	conn, err := grpc.NewClient("unix://"+sockets[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	runtime := cri.NewRuntimeServiceClient(conn)
	// The first pod is not timed: it stays, as the pattern of the bare ones.
	if _, err := s.startPod(ctx, "pattern"); err != nil {
		return nil, err
	}
	pattern, err := readPattern(ctx, runtime)
	if err != nil {
		return nil, err
	}
	var api, bare []time.Duration
	for i := range rounds {
		name := fmt.Sprint("pod-", i)
		took, err := s.startPod(ctx, name)
		if err != nil {
			return nil, err
		}
		api = append(api, took)
		if err := errors.Join(s.removePod(ctx, name), quiet(ctx, runtime)); err != nil {
			return nil, err
		}
		if took, err = pattern.run(ctx, runtime, i); err != nil {
			return nil, err
		}
		bare = append(bare, took)
		if err := quiet(ctx, runtime); err != nil {
			return nil, err
		}
	}
	p50, bare50 := quantile(api, 0.5), quantile(bare, 0.5)
	note := fmt.Sprintf("%d pods one after the other; p99 %s", rounds, millis(quantile(api, 0.99)))
	bareNote := fmt.Sprintf("RunPodSandbox, CreateContainer, StartContainer of the same pod; p99 %s", millis(quantile(bare, 0.99)))
	return []figure{
		{"API create to Running and Ready, p50", millis(p50), "", note},
		{"bare CRI calls, p50", millis(bare50), "", bareNote},
		{"ratio of the medians", fmt.Sprintf("%.2f", float64(p50)/float64(bare50)), "<= 1.2", ""},
	}, nil
}

// startPod creates a pod and returns how long it took until a watch told that it is Running and Ready.
func (s *server) startPod(ctx context.Context, name string) (time.Duration, error) {
	const path = "/api/v1/namespaces/default/pods"
	events, stop, err := s.watchPod(ctx, name)
	if err != nil {
		return 0, err
	}
	defer stop()
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":%q}]}}`, name, waitImage)
	began := time.Now()
	if err := s.send(ctx, http.MethodPost, path, body); err != nil {
		return 0, err
	}
	for {
		_, pod, err := events()
		if err != nil {
			return 0, err
		}
		for _, c := range pod.Status.Conditions {
			if pod.Status.Phase == corev1.PodRunning && c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return time.Since(began), nil
			}
		}
	}
}

// removePod deletes a pod and waits until it is gone.
func (s *server) removePod(ctx context.Context, name string) error {
	events, stop, err := s.watchPod(ctx, name)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.send(ctx, http.MethodDelete, "/api/v1/namespaces/default/pods/"+name, ""); err != nil {
		return err
	}
	for {
		kind, _, err := events()
		if kind == watch.Deleted || err != nil {
			return err
		}
	}
}

// watchPod watches one pod; next returns one event after the other.
func (s *server) watchPod(ctx context.Context, name string) (next func() (watch.EventType, *corev1.Pod, error), stop func(), err error) {
	const patience = 60 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	resp, err := s.open(ctx, "/api/v1/namespaces/default/pods?watch=1&fieldSelector=metadata.name%3D"+name, jsonType)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	decoder := json.NewDecoder(resp.Body)
	next = func() (watch.EventType, *corev1.Pod, error) {
		var e struct {
			Type   watch.EventType
			Object corev1.Pod
		}
		if err := decoder.Decode(&e); err != nil {
			return "", nil, fmt.Errorf("waiting for pod %s: %w", name, err)
		}
		return e.Type, &e.Object, nil
	}
	return next, func() { cancel(); resp.Body.Close() }, nil
}

// pattern is a pod as the agent told the runtime to run it.
type pattern struct {
	sandbox   *cri.PodSandboxConfig
	container *cri.ContainerConfig
}

// readPattern asks the runtime for the one pod that runs.
func readPattern(ctx context.Context, rt cri.RuntimeServiceClient) (*pattern, error) {
	sandboxes, err := rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := rt.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	if len(sandboxes.Items) != 1 || len(containers.Containers) != 1 {
		return nil, fmt.Errorf("one pod expected, found %d sandboxes and %d containers", len(sandboxes.Items), len(containers.Containers))
	}
	sandbox, err := rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: sandboxes.Items[0].Id, Verbose: true})
	if err != nil {
		return nil, err
	}
	container, err := rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: containers.Containers[0].Id, Verbose: true})
	if err != nil {
		return nil, err
	}
	var p pattern
	err = errors.Join(configOf(sandbox.Info, &p.sandbox), configOf(container.Info, &p.container))
	if err == nil && (p.sandbox == nil || p.container == nil) {
		err = errors.New("the runtime does not tell the configuration of a pod")
	}
	return &p, err
}

// configOf reads the configuration out of containerd's verbose information.
func configOf[T any](info map[string]string, into **T) error {
	holder := struct {
		Config **T `json:"config"`
	}{into}
	return json.Unmarshal([]byte(info["info"]), &holder)
}

// quiet waits until the runtime has the pattern only, and a little longer: what ends a pod must not be counted as the start of the next.
func quiet(ctx context.Context, rt cri.RuntimeServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		list, err := rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil || len(list.Items) == 1 {
			return err
		}
	}
}

// run starts a copy of the pattern and removes it, and returns how long the start took.
func (p *pattern) run(ctx context.Context, rt cri.RuntimeServiceClient, i int) (_ time.Duration, err error) {
	p.sandbox.Metadata.Name, p.sandbox.Metadata.Uid = fmt.Sprint("bare-", i), fmt.Sprint("bare-", i)
	p.sandbox.Labels, p.container.Labels = nil, nil // no pod of the agent's
	began := time.Now()
	sandbox, err := rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.sandbox})
	if err != nil {
		return 0, fmt.Errorf("bare RunPodSandbox: %w", err)
	}
	defer func() {
		_, err1 := rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		_, err2 := rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
		err = errors.Join(err, err1, err2)
	}()
	container, err := rt.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, Config: p.container, SandboxConfig: p.sandbox})
	if err != nil {
		return 0, fmt.Errorf("bare CreateContainer: %w", err)
	}
	if _, err := rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: container.ContainerId}); err != nil {
		return 0, fmt.Errorf("bare StartContainer: %w", err)
	}
	return time.Since(began), nil
}
