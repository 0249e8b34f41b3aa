package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// Policy is knarr policy: what nodes make of NetworkPolicies.
func Policy() *cobra.Command {
	var dataDir, namespace string
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "See what nodes make of NetworkPolicies",
		Long: `kubectl get networkpolicies shows what policies say; this asks every node what it has of them: on how many a policy is in force as it is now, since when it
is on all, and how many packets to and from pods that it guards were dropped. knarr why connect says which connections these are.`,
	}
	cmd.PersistentFlags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	cmd.PersistentFlags().StringVarP(&namespace, "namespace", "n", "", "the namespace of the policies; all if it is not given")
	cmd.AddCommand(&cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the policies: where and since when they are in force, and what was dropped", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return asAdmin(cmd.Context(), dataDir, func(ctx context.Context, a *admin) error {
				return listPolicies(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), a, namespace, a.get)
			})
		},
	})
	return cmd
}

// policyFigures are what a node says of policies.
type policyFigures struct {
	revision int64 // the last change that is in force there
	since    map[api.Key]float64
	dropped  map[api.Key][2]float64 // into pods and out of them
}

// listPolicies prints what all nodes make of the policies. A node that does not answer is named in problems, and counts as one that has none.
func listPolicies(ctx context.Context, out, problems io.Writer, c client.Client, namespace string, ask func(context.Context, string) ([]byte, error)) error {
	policies, err := client.List[*networkingv1.NetworkPolicy](ctx, c, client.ListOptions{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("listing network policies: %w", err)
	}
	nodes, err := client.List[*corev1.Node](ctx, c, client.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	var all []policyFigures
	for _, n := range nodes {
		body, err := ask(ctx, "/api/v1/nodes/"+n.Name+"/proxy/metrics")
		f, ok := readPolicyFigures(string(body))
		if err == nil && !ok {
			err = fmt.Errorf("its metrics have none of them")
		}
		if err != nil {
			fmt.Fprintf(problems, "node %s does not say which policies it has: %v\n", n.Name, err)
			continue
		}
		all = append(all, f)
	}
	policies = slices.Clone(policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tNAME\tNODES\tIN FORCE ON ALL SINCE\tDROPPED IN\tDROPPED OUT")
	for _, p := range policies {
		revision, _ := strconv.ParseInt(p.ResourceVersion, 10, 64) // an API server's are numbers
		have, since, in, egress := 0, 0.0, 0.0, 0.0
		key := api.KeyOf(p)
		for _, f := range all {
			if f.revision >= revision {
				have++
			}
			since = max(since, f.since[key])
			in, egress = in+f.dropped[key][0], egress+f.dropped[key][1]
		}
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%.0f\t%.0f\n", p.Namespace, p.Name, have, len(nodes), sinceText(have == len(nodes), since), in, egress)
	}
	return w.Flush()
}

// sinceText says since when a policy is in force on all nodes.
func sinceText(everywhere bool, since float64) string {
	switch {
	case !everywhere:
		return "not yet"
	case since == 0:
		return "- (it selects no pod that runs)"
	}
	return time.UnixMilli(int64(since * 1000)).UTC().Format(time.RFC3339)
}

var (
	policyFigure = regexp.MustCompile(`^knarr_network_policy_(revision|in_force_since_seconds|denied_packets_total)(?:\{(.*)\})? (\S+)$`)
	figureLabel  = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// readPolicyFigures reads a node's metrics in Prometheus' text format; ok is false where there is nothing of policies.
func readPolicyFigures(metrics string) (f policyFigures, ok bool) {
	f.since, f.dropped = map[api.Key]float64{}, map[api.Key][2]float64{}
	for line := range strings.Lines(metrics) {
		m := policyFigure.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		labels := map[string]string{}
		for _, l := range figureLabel.FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = l[2]
		}
		key := api.Key{Namespace: labels["namespace"], Name: labels["policy"]}
		switch m[1] {
		case "revision":
			f.revision, ok = int64(value), true
		case "in_force_since_seconds":
			f.since[key] = value
		default:
			d := f.dropped[key]
			if labels["direction"] == "egress" {
				d[1] += value
			} else {
				d[0] += value
			}
			f.dropped[key] = d
		}
	}
	return f, ok
}
