package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/demand"
)

// Advise is knarr advise: requests that fit what was used.
func Advise() *cobra.Command {
	var dataDir, namespace string
	cmd := &cobra.Command{
		Use:   "advise",
		Short: "Print requests that fit what pods used",
		Long: `Prints, for each container of each workload, what it requests, what it used, and requests that would fit that: for processor time what 95 % of the minutes
needed, for memory the most that it had, both with 15 % of room. Nothing is changed.

The agent of each node measures its pods once a minute and keeps a histogram for each container in memory: it knows of no time before its own start, nor of pods that are
gone. Where there is less than an hour of data, the line says so.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return asAdmin(cmd.Context(), dataDir, func(ctx context.Context, a *admin) error {
				return advise(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), a, namespace, a.get)
			})
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only this namespace")
	return cmd
}

// part is a container of the pods of one workload.
type part struct {
	namespace, workload, container string
}

// parts is what is known of each.
type parts struct {
	uses      map[part]*demand.Use
	pods      map[part]int
	requested map[part]corev1.ResourceList
}

// advise prints the advice for the containers of a namespace, or of all. A node that does not answer is named in problems.
func advise(ctx context.Context, out, problems io.Writer, c client.Client, namespace string, ask func(context.Context, string) ([]byte, error)) error {
	pods, err := client.List[*corev1.Pod](ctx, c, client.ListOptions{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	owners, err := makers(ctx, c, namespace)
	if err != nil {
		return err
	}
	known := parts{uses: map[part]*demand.Use{}, pods: map[part]int{}, requested: map[part]corev1.ResourceList{}}
	byNode := map[string]map[api.Key]*corev1.Pod{}
	for _, p := range pods {
		if p.Spec.NodeName == "" {
			continue
		}
		if byNode[p.Spec.NodeName] == nil {
			byNode[p.Spec.NodeName] = map[api.Key]*corev1.Pod{}
		}
		byNode[p.Spec.NodeName][api.KeyOf(p)] = p
	}
	for node, of := range byNode {
		body, err := ask(ctx, "/api/v1/nodes/"+node+"/proxy/usage/demand")
		var uses []demand.Use
		if err == nil {
			err = json.Unmarshal(body, &uses)
		}
		if err != nil {
			fmt.Fprintf(problems, "node %s does not say what its pods used: %v\n", node, err)
			continue
		}
		known.add(uses, of, owners)
	}
	return known.print(out)
}

// makers returns what made each ReplicaSet and Job that was made by something, as "Kind/name".
func makers(ctx context.Context, c client.Client, namespace string) (map[types.UID]string, error) {
	sets, err := client.List[*appsv1.ReplicaSet](ctx, c, client.ListOptions{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("listing ReplicaSets: %w", err)
	}
	jobs, err := client.List[*batchv1.Job](ctx, c, client.ListOptions{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("listing Jobs: %w", err)
	}
	out := map[types.UID]string{}
	note := func(o metav1.Object) {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			out[o.GetUID()] = ref.Kind + "/" + ref.Name
		}
	}
	for _, s := range sets {
		note(s)
	}
	for _, j := range jobs {
		note(j)
	}
	return out, nil
}

// workloadOf returns what a pod belongs to, as "Kind/name": the Deployment rather than its ReplicaSet, the CronJob rather than its Job.
func workloadOf(p *corev1.Pod, owners map[types.UID]string) string {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return "Pod/" + p.Name
	}
	if above := owners[ref.UID]; above != "" {
		return above
	}
	return ref.Kind + "/" + ref.Name
}

// add notes what the pods of a node used.
func (k *parts) add(uses []demand.Use, pods map[api.Key]*corev1.Pod, owners map[types.UID]string) {
	for _, u := range uses {
		p := pods[api.Key{Namespace: u.Namespace, Name: u.Pod}]
		if p == nil {
			continue
		}
		at := part{u.Namespace, workloadOf(p, owners), u.Container}
		if k.uses[at] == nil {
			k.uses[at] = &demand.Use{}
		}
		k.uses[at].Merge(u)
		k.pods[at]++
		for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range list {
				if list[i].Name == u.Container {
					k.requested[at] = list[i].Resources.Requests
				}
			}
		}
	}
}

func (k *parts) print(out io.Writer) error {
	var all []part
	for at := range k.uses {
		all = append(all, at)
	}
	slices.SortFunc(all, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.workload, b.workload), cmp.Compare(a.container, b.container))
	})
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tWORKLOAD\tCONTAINER\tCPU NOW\tADVISED\tUSED: HALF, 95%, MOST\tMEMORY NOW\tADVISED\tUSED: HALF, MOST\tFROM")
	for _, at := range all {
		a := k.uses[at].Advise()
		from := fmt.Sprintf("%d min, pods: %d, over %s", a.Samples, k.pods[at], a.Over.Round(time.Minute))
		if a.Thin {
			from += " (little)"
		}
		r := k.requested[at]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%dm\t%dm, %dm, %dm\t%s\t%s\t%s, %s\t%s\n", at.namespace, at.workload, at.container,
			requested(r, corev1.ResourceCPU), a.CPU, a.MedianCPU, a.BusyCPU, a.MaxCPU,
			requested(r, corev1.ResourceMemory), size(uint64(a.Memory)<<10), size(uint64(a.MedianMemory)<<10), size(uint64(a.MaxMemory)<<10), from)
	}
	return w.Flush()
}

// requested shows what a container requests of a resource now.
func requested(r corev1.ResourceList, name corev1.ResourceName) string {
	q, ok := r[name]
	switch {
	case !ok:
		return "-"
	case name == corev1.ResourceCPU:
		return fmt.Sprintf("%dm", amount.Milli(q))
	}
	return size(uint64(max(0, amount.Units(q))))
}
