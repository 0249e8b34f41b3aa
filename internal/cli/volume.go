package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/local"
)

// Volume is knarr volume: the volumes that nodes keep on their disks.
func Volume() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "See the volumes that nodes keep on their disks",
		Long: `Volumes of StorageClass knarr-local are directories, or files, on the disk of one node. kubectl get pv,pvc shows them as all others; this shows what
takes room on disks, that of which the API no longer knows included: nothing removes such data but you.`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	cmd.AddCommand(&cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the volumes: where each is, whose, how full, used by which pods", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return asAdmin(cmd.Context(), dataDir, func(ctx context.Context, a *admin) error {
				return listVolumes(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), a, a.get)
			})
		},
	})
	return cmd
}

// asAdmin calls do with the administrator's access to the cluster of a data directory, and with a minute of time.
func asAdmin(ctx context.Context, dataDir string, do func(context.Context, *admin) error) error {
	a, err := newAdmin(dataDir)
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return do(ctx, a)
}

// get asks the API server for a path that is no object's.
func (a *admin) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}

// listVolumes prints the volumes of all nodes. A node that does not answer is named in problems, and the others are shown.
func listVolumes(ctx context.Context, out, problems io.Writer, c client.Client, ask func(context.Context, string) ([]byte, error)) error {
	nodes, err := client.List[*corev1.Node](ctx, c, client.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tVOLUME\tCLAIM\tSIZE\tLIMIT\tUSED\tPODS")
	for _, n := range nodes {
		body, err := ask(ctx, "/api/v1/nodes/"+n.Name+"/proxy/volumes")
		var list []local.Listed
		if err == nil {
			err = json.Unmarshal(body, &list)
		}
		if err != nil {
			fmt.Fprintf(problems, "node %s does not say which volumes it has: %v\n", n.Name, err)
			continue
		}
		for i := range list {
			v := &list[i]
			fmt.Fprintf(w, "%s\t%s\t%s/%s\t%s\t%s\t%s\t%s\n", n.Name, v.Handle, v.Namespace, v.Claim, size(uint64(v.Bytes)), limitOf(v), size(v.Used), podsOf(v))
		}
	}
	return w.Flush()
}

// size returns bytes as people read them, in three digits.
func size(bytes uint64) string {
	const units = "KMGTPE"
	if bytes < 1<<10 {
		return resource.NewQuantity(int64(bytes), resource.BinarySI).String()
	}
	i, unit := 0, uint64(1<<10)
	for i+1 < len(units) && bytes >= unit<<10 {
		i, unit = i+1, unit<<10
	}
	return fmt.Sprintf("%.3g%ci", float64(bytes)/float64(unit), units[i])
}

// limitOf says what holds a volume to its size.
func limitOf(v *local.Listed) string {
	switch {
	case v.Raw:
		return "device"
	case v.Limited:
		return "loop"
	}
	return "none"
}

func podsOf(v *local.Listed) string {
	switch {
	case v.Orphan:
		return "- (no PersistentVolume: its data stays until you remove it)"
	case len(v.Pods) == 0:
		return "-"
	}
	return strings.Join(v.Pods, ",")
}
