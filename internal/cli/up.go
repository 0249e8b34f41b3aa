package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/cluster"
)

// Up is knarr up: a server in the background.
func Up() *cobra.Command {
	var dataDir string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "up [-- flags of knarr server]",
		Short: "Start a single-machine cluster in the background and wait until it is ready",
		Long: `Start knarr server in the background and wait until its API answers and this machine is a Ready node. What it logs goes
to knarr.log in the data directory. Doing it again is harmless.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			return up(ctx, cmd.OutOrStdout(), dataDir, args)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "directory for everything Knarr keeps")
	cmd.Flags().DurationVar(&wait, "wait", 90*time.Second, "how long to wait until the cluster is ready")
	return cmd
}

func up(ctx context.Context, out io.Writer, dataDir string, args []string) error {
	began := time.Now()
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	logPath := filepath.Join(dataDir, "knarr.log")
	var node string
	for running := cluster.RunningServer(dataDir); ; running = 0 {
		var ended <-chan error
		if running != 0 {
			fmt.Fprintf(out, "knarr is running already (process %d)\n", running)
			ended = awaitEnd(ctx, dataDir, running)
		} else {
			if ended, err = Background(logPath, nil, append([]string{"server", "--data-dir", dataDir}, args...)...); err != nil {
				return err
			}
			fmt.Fprintf(out, "started knarr server, logging to %s\n", logPath)
		}
		node, err = waitReady(ctx, dataDir, ended)
		if err == nil {
			break
		}
		if running != 0 && errors.Is(err, errEnded) {
			fmt.Fprintln(out, "it has just ended") // it was being stopped, or killed
			continue
		}
		return fmt.Errorf("%w\nthe last lines of %s:\n%s", err, logPath, Tail(logPath, 10))
	}
	what := "the control plane"
	if node != "" {
		what = "node " + node
	}
	fmt.Fprintf(out, "%s is Ready after %v\nkubeconfig: %s\n", what, time.Since(began).Round(10*time.Millisecond), cluster.KubeconfigPath(dataDir))
	return nil
}

// errEnded says that the server which was waited for has ended.
var errEnded = errors.New("knarr server ended")

// awaitEnd reports when process pid, which is not our child, is no longer the server of dataDir.
func awaitEnd(ctx context.Context, dataDir string, pid int) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for cluster.RunningServer(dataDir) == pid {
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		ended <- errors.New("the server exited")
	}()
	return ended
}

// Background runs this executable with args and further environment in a session of its own. The channel tells if it ends.
func Background(logPath string, env []string, args ...string) (<-chan error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding knarr's own executable: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(logPath), 0o755); err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("the log file: %w", err)
	}
	defer log.Close() // the child has its own
	child := exec.Command(self, args...)
	child.Env = append(os.Environ(), env...)
	child.Stdout, child.Stderr = log, log
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("starting knarr %s: %w", args[0], err)
	}
	died := make(chan error, 1)
	go func() { died <- child.Wait() }() // lives as long as this short command
	return died, nil
}

// waitReady waits until the API answers and a node is Ready, and returns the node's name. A cluster without any node (--no-agent) is
// ready with its API.
func waitReady(ctx context.Context, dataDir string, died <-chan error) (string, error) {
	last := errors.New("the API has not answered yet")
	for {
		name, err := readyNode(ctx, cluster.KubeconfigPath(dataDir))
		switch {
		case err == nil:
			return name, nil
		case errors.Is(err, errNoNode) && !cluster.RunsNode(dataDir):
			return "", nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case err := <-died:
			return "", fmt.Errorf("%w: %w", errEnded, err)
		case <-ctx.Done():
			return "", fmt.Errorf("the cluster did not become ready in time: %w", last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// errNoNode is what a cluster without nodes lacks.
var errNoNode = errors.New("no node has joined yet")

// readyNode returns the name of a node that is Ready.
func readyNode(ctx context.Context, kubeconfig string) (string, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return "", err
	}
	hc, err := rest.HTTPClientFor(config)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/api/v1/nodes", nil)
	if err != nil {
		return "", err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the API answers %s", resp.Status)
	}
	var nodes corev1.NodeList
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return "", fmt.Errorf("reading the list of nodes: %w", err)
	}
	if len(nodes.Items) == 0 {
		return "", errNoNode
	}
	reason := fmt.Sprintf("node %s has not reported yet", nodes.Items[0].Name)
	for _, n := range nodes.Items {
		for _, c := range n.Status.Conditions {
			if c.Type != corev1.NodeReady {
				continue
			}
			if c.Status == corev1.ConditionTrue {
				return n.Name, nil
			}
			reason = fmt.Sprintf("node %s is not ready: %s: %s", n.Name, c.Reason, c.Message)
		}
	}
	return "", errors.New(reason)
}

// Tail returns the last n lines of a file, as well as can be.
func Tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	end := len(b)
	for i := end - 1; i >= 0; i-- {
		if b[i] == '\n' && i != end-1 {
			if n--; n == 0 {
				return string(b[i+1:])
			}
		}
	}
	return string(b)
}
